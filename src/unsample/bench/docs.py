"""`[docs]` of a plan: which table of a Markdown document its runs fill (`unsample report RUN --docs FILE`), and how.

It changes no result, so it is no part of a plan's fingerprint; it is checked when the plan is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unsample.errors import BadOption, shown, unknown_name

EDITING = ("editor", "mask", "edit w")  # plain columns that tell apart how was edited
TELLING = ("model", "method", "steps", "w", "inverting w", *EDITING)  # plain columns that tell one row from another
COSTS = {"NFE": "nfe", "backward": "backward", "edit NFE": "edit_nfe", "edit backward": "edit_backward"}
PLAIN = (*TELLING, *COSTS, "n", "made")
Line = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f<|]+$")]  # neither HTML nor a new cell


class _Closed(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Shown(_Closed):
    """A column of figures: a value of a row's cells, as one number.

    `median`; `mean` with the half width of its 95 % interval; `share`, a mean of yes and no without it; `pooled`,
    weighted by another value of the cell, so that gains of edits are of all their pixels together; `ratio`, of its mean
    to that of another method over the same items, with its 95 % interval, drawn together.
    """

    title: Line
    value: Line  # `stage.metric`
    show: Literal["median", "mean", "share", "pooled", "ratio"]
    weight: Line | None = None  # of `pooled`
    most: float | None = None  # values above it, exact ones too, count as this
    of: Line | None = None  # the cells of one kind of edit alone: colour, shape, ...
    against: Line | None = None  # of `ratio`: the other method, as the plan lists it, or by its bare name
    interval: bool = False  # of `pooled`: with the half width of its 95 % interval, as of a ratio of two means

    @model_validator(mode="after")
    def _weighed(self) -> Shown:
        if (self.show == "pooled") != (self.weight is not None):
            raise ValueError("show = 'pooled' and a weight belong together")
        if (self.show == "ratio") != (self.against is not None):
            raise ValueError("show = 'ratio' and against, a method, belong together")
        if self.interval and self.show != "pooled":
            raise ValueError("interval is of show = 'pooled'; a mean has its own")
        return self


class Docs(_Closed):
    """A table: its name in `<!-- table NAME -->`, what is said above it, and its columns."""

    table: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    note: Line
    columns: tuple[str | Shown, ...]

    @property
    def titles(self) -> list[str]:
        """The table's head."""
        return [c if isinstance(c, str) else c.title for c in self.columns]


def read_docs(given: object, metrics: Sequence[str], stages: Sequence[str]) -> Docs:
    """A checked `[docs]` of a plan with these metrics, whose cells are measured in these stages.

    Raises:
        BadOption, UnknownName: a key, column, stage or metric that cannot be, by its name.
    """
    if not isinstance(given, Mapping):
        raise BadOption(f"docs of a plan is a table, [docs]; got {shown(given)}")
    columns = given.get("columns")
    if not isinstance(columns, list | tuple):
        raise BadOption(f"docs of a plan need columns, a list such as ['method', 'n', 'made']; got {shown(columns)}")
    made = tuple(_column(c, metrics, stages) for c in columns)
    docs: Docs = _checked(Docs, {**given, "columns": made}, "docs of a plan", given)
    for title in ("method", "made"):
        if title not in made:
            raise BadOption(f"columns in docs of a plan must hold {title!r}; got {', '.join(docs.titles)}")
    if len({*docs.titles}) < len(made):
        raise BadOption(f"columns in docs of a plan must have different titles; got {', '.join(docs.titles)}")
    return docs


def _column(given: object, metrics: Sequence[str], stages: Sequence[str]) -> str | Shown:
    if isinstance(given, str):
        if given not in PLAIN:
            raise unknown_name("column in docs of a plan", given, PLAIN)
        return given
    if not isinstance(given, Mapping):
        raise BadOption(
            f"a column in docs of a plan is a name, or a table with title, value and show; got {shown(given)}"
        )
    column: Shown = _checked(Shown, given, f"column {shown(given.get('title'))} in docs of a plan", given)
    for key in filter(None, (column.value, column.weight)):
        stage, _, metric = key.partition(".")
        if stage not in stages:
            raise unknown_name(f"stage in the docs column {column.title!r} (values are STAGE.METRIC)", stage, stages)
        if metric not in metrics:
            raise unknown_name(f"metric in the docs column {column.title!r}, of those of the plan", metric, metrics)
    return column


def _checked(kind: type[Any], given: Mapping[str, Any], what: str, written: Mapping[str, Any]) -> Any:
    """The model of what is given; an error quotes what is written in the plan."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f", {'.'.join(map(str, first['loc']))}" if first["loc"] else ""
        message = str(first["msg"]).removeprefix("Value error, ")
        found = written if first["input"] == given else first["input"]  # where a key is missing, the whole
        raise BadOption(f"{what}{where}: {message[:1].lower()}{message[1:]}; got {shown(found)}") from error
