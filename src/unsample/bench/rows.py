"""What is read from a run folder is somebody's word until it was looked at here: a row, and the file of the plan.

A row has the columns of `Row`; `plan.json` is a `PlanFile`, whose plan `make_plan` knows better.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from unsample.bench.plan import FORMAT
from unsample.errors import BadInput
from unsample.experiment.setup import NO_MASK, PLAIN_EDIT
from unsample.media.files import name_parts

ARTEFACTS = "artefacts"
LARGEST = 2**63 - 1  # a whole number that every reader of an export takes

Name = Annotated[str, Field(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Amount = Annotated[float, Field(ge=0)]


class _Closed(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Open(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Value(_Closed):
    """What a metric gave."""

    value: float | None
    exact: bool
    reason: str | None


class Artefact(_Closed):
    """A file of a cell, with its path inside the run folder."""

    kind: Name
    path: Name
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SetValue(Value):
    """What a metric of whole sets gave."""

    n: Count  # pictures of the method
    details: dict[str, JsonValue]


class PartRow(_Open):
    """What a row says of its part of the plan; a later version's row may have more columns."""

    dataset: str
    model: Name
    method: Name  # the label
    method_name: Name
    settings: dict[str, JsonValue]
    baseline: bool
    guidance: Amount
    inversion_guidance: Amount
    strength: Amount | None = None  # as the plan has it; None: the method's own
    steps: Count
    editor: Name = PLAIN_EDIT  # the label; this and what follows is not in rows from before there were editors
    editor_name: Name = PLAIN_EDIT
    editor_settings: dict[str, JsonValue] = {}
    mask: Name = NO_MASK  # where the edit was let change the picture; `given` is the item's own
    edit_guidance: Amount | None = None  # None: that of sampling


class SetRow(PartRow):
    """The metrics of whole sets of one part of the plan, by `stage.metric`."""

    values: dict[str, SetValue]
    of: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # SHA-256 of what it was made of: names and hashes of pictures


class Row(PartRow):
    """A cell that has ended."""

    order: Count
    item: Name
    edit: bool
    status: Literal["ok", "not_converged", "diverged", "failed"]
    error: str | None
    traceback: str | None
    values: dict[str, Value]
    artefacts: list[Artefact]
    key: str | None
    seed: Count | None
    nfe: Count | None
    backward: Count | None
    seconds: Amount | None
    peak_memory_mb: Amount | None
    stores: str | None
    stored_ratio: Amount | None
    fitted: bool
    exact_by_construction: bool
    attempts: Count
    deaths: Count
    batch_size: Count
    threads: Count | None
    device: str | None = None
    started: str | None
    finished: str | None
    engine: str = ""
    workers: Count = 1
    changed: str | None = None  # what kind of edit the item is, where its data set knows
    edit_nfe: Count | None = None  # of the edit, its source's share included; None: there is none
    edit_backward: Count | None = None
    edited_at: Amount | None = None  # the guidance that the edit had
    nonfinite_at: dict[str, JsonValue] | None = None
    probed: dict[str, JsonValue] = {}  # what the probe of a study found
    out_of_domain: bool = False  # the model does not know such a picture, or such words


OPEN = (
    "settings",
    "editor_settings",
    "nonfinite_at",
    "values",
    "probed",
)  # columns of which a part may be JSON of any kind


class PlanKeys(_Open):
    """The plan itself, as far as it is read without making a `Plan` of it."""

    dataset: str = ""
    datasets: dict[str, str] = {}
    models: list[str] = []
    methods: list[str] = []
    metrics: list[str] = []
    guidance: list[Amount] = []
    steps: list[Count] | Count = []
    edit: bool = False
    editors: list[str] = []
    quick: bool = False
    docs: dict[str, JsonValue] = {}


class PlanFile(_Open):
    """What plan.json holds."""

    plan: PlanKeys
    format: Count = FORMAT
    fingerprint: str = ""
    versions: dict[str, str] = {}
    command: list[str] | str = []


def read_row(text: str) -> dict[str, Any]:
    """A row from its JSON, as it stands there.

    Raises:
        BadInput: which column is wrong, and how.
    """
    row = _finite(_read(text, Row))
    for number, artefact in enumerate(row["artefacts"]):
        try:
            parts = name_parts(artefact["path"])
        except BadInput as error:
            raise type(error)(f"column artefacts.{number}.path: {error}") from error
        if parts[0] != ARTEFACTS or len(parts) < 2:
            raise BadInput(f"column artefacts.{number}.path: {artefact['path'][:100]!r} is not in {ARTEFACTS}/")
    return row


def read_set(text: str) -> dict[str, Any]:
    """A row of whole sets from its JSON, as it stands there.

    Raises:
        BadInput: which column is wrong, and how.
    """
    return _finite(_read(text, SetRow))


def read_plan(text: str) -> dict[str, Any]:
    """What plan.json holds, as it stands there.

    Raises:
        BadInput: which key is wrong, and how; or a later version's.
    """
    found = _read(text, PlanFile)
    _check_finite("plan", found)
    if (version := found.get("format", FORMAT)) > FORMAT:
        raise BadInput(f"it has format {version}, this unsample reads {FORMAT}; upgrade unsample")
    return found


def _read(text: str, kind: type[BaseModel]) -> dict[str, Any]:
    try:
        found = from_json(text, allow_inf_nan=False)
        kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part)[:100] for part in first["loc"])
        said = "it is missing" if first["type"] == "missing" else first["msg"][:1].lower() + first["msg"][1:]
        got = "" if first["type"] == "missing" else f"; got {first['input']!r:.60}"
        raise BadInput(f"column {where}: {said}{got}" if where else f"{said}{got}") from error
    except ValueError as error:
        raise BadInput(f"it is not JSON as unsample writes it: {error}") from error
    return dict(found)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    for name in row.keys() - (Row.model_fields.keys() - {*OPEN}):
        _check_finite(name, row[name])
    return row


def _check_finite(name: str, value: Any) -> None:
    """JSON of any kind: its numbers are finite (`1e999` is read as infinite)."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise BadInput(f"column {name}: it holds a number that is not finite") from error
