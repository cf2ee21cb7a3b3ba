"""A study run: its plans by the benchmark, its rows of their cells, its verdicts of the rows; written in one folder.

    DIR/rows.csv, rows.json, verdicts.json, study.json, figure.png, figure.svg, index.html, run-0/, run-0-minis/ ...

`run-K` are runs of the benchmark: killed at any point, the same call goes on with what is not done. The small networks
have runs of their own, so that all else stands when they are trained anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.models.minis import PREFIX
from unsample.studies import get_study
from unsample.studies.base import Asked, Row, Study
from unsample.studies.claimed import claims_of
from unsample.studies.verdicts import Verdict, judge

if TYPE_CHECKING:
    from unsample.bench.plan import Plan
    from unsample.bench.run import How, Summary


@dataclass(frozen=True)
class StudyResult:
    """What a study gave: `rows` (a list of dicts, as pandas takes them) and `verdicts`, one a claim."""

    name: str
    asked: Asked
    rows: list[Row]
    verdicts: list[Verdict]
    about: dict[str, Any] = field(default_factory=dict)  # versions, hashes of models, command: what study.json holds

    def figure(self) -> Any:
        """Its figure by matplotlib; None where the study has none."""
        draw = get_study(self.name).figure
        return None if draw is None else draw(self.rows)


def asked_of(
    study: Study, models: Sequence[str] = (), num_samples: int | None = None, steps: int | None = None, seed: int = 0,
    quick: bool = False,
) -> Asked:  # fmt: skip
    """What is asked, with the study's own defaults.

    Raises:
        BadOption: no samples, steps that cannot be.
    """
    from unsample.errors import BadOption
    from unsample.numbers.grid import check_steps

    count = study.num_samples if num_samples is None else num_samples
    if count < 1:
        raise BadOption(f"num_samples must be at least 1; got {count}")
    if seed < 0:
        raise BadOption(f"seed must be at least 0; got {seed}")
    return Asked(
        models=tuple(models) or study.default_models,
        num_samples=count,
        steps=check_steps(study.steps if steps is None else steps) or study.steps,
        seed=seed,
        quick=quick,
    )


def plans_of(study: Study, asked: Asked) -> dict[str, Plan]:
    """Its plans, checked, by the name of their folder."""
    from unsample.bench.plan import make_plan

    found: dict[str, Plan] = {}
    for k, given in enumerate(study.plans(asked)):
        models = [str(model) for model in given["models"]]
        parts = {f"run-{k}": [m for m in models if not m.startswith(PREFIX)]}
        parts[f"run-{k}-minis"] = [m for m in models if m.startswith(PREFIX)]
        found |= {place: make_plan({**given, "models": some}) for place, some in parts.items() if some}
    return found


def run_study(
    name: str, asked: Asked, folder: Path, how: How, observe: Callable[[str, Summary], None] = lambda run, summary: None
) -> StudyResult:
    """Run what is not done of a study's plans and conclude; `observe` is called after every batch, with the run's name.

    Raises:
        what `unsample.bench.run.run_plan` raises.
    """
    from unsample.bench.ledger import read_run
    from unsample.bench.run import run_plan, versions

    study = get_study(name)
    cells: list[Mapping[str, Any]] = []
    for run, plan in plans_of(study, asked).items():
        run_plan(plan, folder / run, how, partial(observe, run))
        cells += [row | {"plan": int(run.split("-")[1])} for row in read_run(folder / run).rows]
    place = {model: k for k, model in enumerate(dict.fromkeys([*asked.models, *(c["model"] for c in cells)]))}
    cells.sort(key=lambda cell: (cell["plan"], place[cell["model"]]))
    rows = [_plain(row) for row in study.rows(cells, asked)]
    about = {"study": name, "num_samples": asked.num_samples, "steps": asked.steps, "seed": asked.seed}
    about |= {"quick": asked.quick}
    about |= {"models": list(asked.models), "versions": versions(), "command": list(how.command)}
    return StudyResult(name, asked, rows, judge(claims_of(name), rows), about)


def write_rows(found: StudyResult, folder: Path) -> list[Path]:
    """`rows.csv`, `rows.json`, `verdicts.json`, `study.json`, each in one step."""
    from unsample.media.files import as_csv, atomic_write, check_writable_folder

    check_writable_folder(folder)
    columns = list(dict.fromkeys(key for row in found.rows for key in row))
    texts = {
        "rows.csv": as_csv(columns, [{key: row.get(key) for key in columns} for row in found.rows], False),
        "rows.json": _json(found.rows),
        "verdicts.json": _json([verdict.plain() for verdict in found.verdicts]),
        "study.json": _json(found.about),
    }
    for name, text in texts.items():
        atomic_write(folder / name, _writing(text))
    return [folder / name for name in texts]


def _writing(text: str) -> Callable[[Path], Any]:
    return lambda temporary: temporary.write_text(text, encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _plain(row: Mapping[str, Any]) -> Row:
    """Plain numbers; one that is not finite is none."""
    import math

    def of(value: Any) -> Any:
        value = value.item() if hasattr(value, "item") else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: of(value) for key, value in row.items()}


def cells_by(
    cells: Sequence[Mapping[str, Any]], *keys: str
) -> Iterator[tuple[tuple[Any, ...], list[Mapping[str, Any]]]]:
    """Cells in groups of the same values of some columns, in the order in which they first come."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[key] for key in keys), []).append(cell)
    yield from groups.items()
