"""A study run: its plans by the benchmark, its rows of their cells, its verdicts of the rows; written in one folder.

    DIR/rows.csv, rows.json, verdicts.json, study.json, figure.png, figure.svg, index.html, run-0/, run-0-minis/ ...

`run-K` are runs of the benchmark: killed at any point, the same call goes on with what is not done. The small networks
have runs of their own, so that all else stands when they are trained anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.models.minis import is_mini
from unsample.models.variants import parted
from unsample.studies import get_study
from unsample.studies.base import Asked, Row, Study, is_cheap

if TYPE_CHECKING:
    from unsample.bench.local import Crew
    from unsample.bench.plan import Plan
    from unsample.bench.run import How, Summary
    from unsample.studies.verdicts import Verdict

FILES = ("rows.csv", "rows.json", "verdicts.json", "study.json")
BATCH, SMALLEST = 16, 4  # pictures at once, at most and where there are so many at least
WORTH = 15.0  # seconds of work, above which processes are started


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
    from unsample.studies.base import SEEDS
    from unsample.wording import argument, of

    count = study.num_samples if num_samples is None else num_samples
    if not _whole(count) or count < 1:
        raise BadOption(f"{argument('num_samples')} must be a whole number of at least 1; got {count!r}")
    if not _whole(seed) or not 0 <= seed < SEEDS:
        raise BadOption(f"{argument('seed')} must be a whole number of at least 0 and below {SEEDS}; got {seed!r}")
    with of("steps"):
        walked = check_steps(study.steps if steps is None else steps)
    return Asked(
        models=tuple(models) or study.default_models,
        num_samples=count,
        steps=walked,
        seed=seed,
        quick=quick,
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def plans_of(study: Study, asked: Asked) -> dict[str, Plan]:
    """Its plans, checked, by the name of their folder."""
    from unsample.bench.plan import make_plan

    found: dict[str, Plan] = {}
    for k, given in enumerate(study.plans(asked)):
        models = [str(model) for model in given["models"]]
        parts = {f"run-{k}": [m for m in models if not is_mini(m)]}
        parts[f"run-{k}-minis"] = [m for m in models if is_mini(m)]
        found |= {place: make_plan({**given, "models": some}) for place, some in parts.items() if some}
    return found


def check_study(
    study: Study,
    asked: Asked,
    folder: Path | None = None,
    loaded: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        Incompatible: a model that lacks what the study needs. BadOption: steps that a model does not take, or a device
            that is not here.
        WeightsMissing: no such model. BadInput: the folder cannot be written to, or holds another run.
    """
    from unsample.bench.parts import examine
    from unsample.bench.run import check_folder
    from unsample.media.files import check_writable_folder
    from unsample.models.loading import resolve_device
    from unsample.studies.needing import check_needs

    check_needs(study, asked, loaded)
    for each in device.split(",") if device else ():
        resolve_device(each)
    plans = plans_of(study, asked)
    for plan in plans.values():
        examine(plan, loaded)
    _check_types(study, plans.values(), loaded or {})
    if folder is not None:
        check_writable_folder(folder)
        _check_about(study, asked, folder)
        for run, plan in plans.items():
            check_folder(plan, folder / run)


def _check_types(study: Study, plans: Iterable[Plan], loaded: Iterable[str]) -> None:
    """Refuse a lent model, which is of one type, where a study compares types."""
    from unsample.errors import Incompatible

    for name in loaded:
        types = dict.fromkeys(plan.dtype for plan in plans if name in plan.models)
        if len(types) > 1:
            raise Incompatible(f"the study {study.name} loads {name} as {', '.join(types)}; give its name")


def _check_about(study: Study, asked: Asked, folder: Path) -> None:
    """Refuse a folder whose study.json tells of another study, or of another run of it."""
    from unsample.errors import BadInput
    from unsample.models.families import read_json

    there = read_json(folder / FILES[3])
    wanted = {"study": study.name, **asked_told(asked)}
    if what := [f"{key} {there[key]!r} there, {v!r} asked" for key, v in wanted.items() if there.get(key, v) != v]:
        raise BadInput(f"{str(folder)!r} holds another study, or other pictures ({'; '.join(what)}); choose another -o")


def asked_told(asked: Asked) -> dict[str, Any]:
    """What was asked, as study.json tells it."""
    about: dict[str, Any] = {"num_samples": asked.num_samples, "steps": asked.steps, "seed": asked.seed}
    return about | {"quick": asked.quick, "models": list(asked.models)}


def run_study(
    name: str,
    asked: Asked,
    folder: Path,
    how: How,
    observe: Callable[[str, Summary], None] = lambda run, summary: None,
    loaded: Mapping[str, Any] | None = None,
    crew: Crew | None = None,
) -> StudyResult:
    """Run what is not done of a study's plans and conclude.

    Args:
        name: of the study.
        asked: models, pictures, steps.
        folder: of its runs; what is there already is gone on with.
        how: engine, device; 0 workers: as many as suit the work (`fitting`).
        observe: called after every batch, with the run's name.
        loaded: models in memory, by name.
        crew: worker processes that other studies have too, used from the first plan on; None: of this one alone.

    Raises:
        what `unsample.bench.run.run_plan` raises. BadInput: the folder holds rows of other weights.
    """
    from unsample.bench.ledger import read_run
    from unsample.bench.local import Crew
    from unsample.bench.parts import Several
    from unsample.bench.run import run_plan, versions
    from unsample.experiment.cell import plain
    from unsample.media.files import atomic_write
    from unsample.studies.claimed import claims_of
    from unsample.studies.needing import check_needs
    from unsample.studies.passes import pictures_of, probed_seconds
    from unsample.studies.verdicts import judge

    study = get_study(name)
    cells: list[Mapping[str, Any]] = []
    apart: list[dict[str, str]] = []
    plans = plans_of(study, asked)
    weights = hashes({model for plan in plans.values() for model in plan.models}, loaded)
    check_needs(study, asked, loaded)  # of what was fetched just now more is known
    _check_weights(folder, weights)
    about: dict[str, Any] = {"study": name, **asked_told(asked), "weights_sha256": weights}
    if not (folder / FILES[3]).exists():  # so that a run which goes on knows what was begun
        atomic_write(folder / FILES[3], _writing(_json(about)))
    probed = probed_seconds(study, asked) / len(plans)
    how = replace(how, batch_size=1) if study.one_by_one and not how.batch_size else how
    with nullcontext(crew) if crew else Crew() as workers:
        for run, plan in plans.items():
            fitted = fitting(plan, how, loaded, probed, crew is not None or workers.started)
            ended = run_plan(plan, folder / run, fitted, partial(observe, run), loaded=loaded, crew=workers)
            apart += [{"kind": each.kind, "reason": each.told(Several.of(plan))} for each in ended.apart]
            cells += [row | {"plan": int(run.split("-")[1])} for row in read_run(folder / run).rows]
    place = {model: k for k, model in enumerate(dict.fromkeys([*asked.models, *(c["model"] for c in cells)]))}
    cells.sort(key=lambda cell: (cell["plan"], place[cell["model"]]))
    rows = [plain(row) for row in study.rows(cells, asked)]
    about |= {"pictures": pictures_of(plans.values()), "cells": len(cells)}
    about["apart"] = apart
    about |= {f"{kind}_cells": sum(cell["status"] == kind for cell in cells) for kind in ("failed", "diverged")}
    about |= {"versions": versions(), "command": list(how.command) or command_of(name, asked)}
    about |= {"worker_seconds": round(sum(cell["seconds"] or 0.0 for cell in cells), 1)}  # without metrics and probes
    return StudyResult(name, asked, rows, judge(claims_of(name), rows), about)


def fitting(
    plan: Plan, how: How, loaded: Mapping[str, Any] | None = None, probed: float = 0.0, started: bool = False
) -> How:
    """How a plan is run where `how` leaves it open (0 workers): results are the same to the bit.

    With the models that we bundle, and the small ones, a worker a core where it is more than a quarter of a minute or
    where they have `started`, each with one thread; with any other model this process alone. Theirs are batches of at
    most 16, where a prediction is dear at least two of them; of others as many as memory takes. `probed` is what its
    probe takes, in seconds, beside.
    """
    from unsample.models.loading import BUNDLED
    from unsample.studies.passes import pictures_of, work_of_plan

    ours = not loaded and all(parted(m)[0] in BUNDLED or is_mini(m) for m in plan.models)
    most = BATCH if all(map(is_cheap, plan.models)) else -(-max(pictures_of([plan]).values()) // 2)
    size = how.batch_size or (min(BATCH, max(SMALLEST, most)) if ours else 0)
    if how.workers or not ours or how.device not in (None, "cpu"):
        return replace(how, workers=how.workers or 1, threads=how.threads or (1 if ours else None), batch_size=size)
    many = (started or work_of_plan(plan).seconds + probed > WORTH) and not _accelerated(how)
    return replace(how, workers=_cores() if many else 1, threads=how.threads or 1, batch_size=size)


def _accelerated(how: How) -> bool:
    """Whether models go to an accelerator by themselves."""
    import torch

    return how.device is None and torch.cuda.is_available()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command_of(name: str, asked: Asked) -> list[str]:
    """The command that makes the same rows."""
    command = ["unsample", "study", name, "--model", ",".join(asked.models)]
    command += ["--num-samples", str(asked.num_samples), "--steps", str(asked.steps), "--seed", str(asked.seed)]
    return command + (["--quick"] if asked.quick else [])


def hashes(models: Iterable[str], loaded: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The SHA-256 of each model's weights, by its name."""
    from unsample.preflight.known import known_model

    found = {}
    for name in sorted(models):
        if loaded and name in loaded:
            found[name] = str(loaded[name].weights_sha256())
            continue
        folder = known_model(name).folder
        files = sorted(folder.rglob("*.safetensors")) if folder and folder.is_dir() else [folder] if folder else []
        found[name] = _sha256(parted(name)[0], tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))
    return found


@cache
def _sha256(name: str, files: tuple[object, ...]) -> str:
    """Of a model as its `files` are: a scheduler is no part of it, so variants of one model share it."""
    import unsample

    return str(unsample.load(name, device="cpu").weights_sha256())


def _check_weights(folder: Path, weights: Mapping[str, str]) -> None:
    """Refuse to go on with rows of other weights under the same name.

    Raises:
        BadInput: which model.
    """
    from unsample.errors import BadInput
    from unsample.models.families import read_json

    there = read_json(folder / FILES[3]).get("weights_sha256")
    for name, sha256 in (there if isinstance(there, dict) else {}).items():
        if weights.get(name, sha256) != sha256:
            raise BadInput(
                f"{str(folder)!r} holds rows of {name} with other weights than it has now; "
                "choose another -o, or remove that folder"
            )


def write_rows(found: StudyResult, folder: Path) -> list[Path]:
    """`rows.csv`, `rows.json`, `verdicts.json`, `study.json`, each in one step."""
    from unsample.media.files import as_csv, atomic_write, check_writable_folder

    check_writable_folder(folder)
    columns = list(dict.fromkeys(key for row in found.rows for key in row))
    texts = (
        as_csv(columns, [{key: row.get(key) for key in columns} for row in found.rows], False),
        _json(found.rows),
        _json([verdict.plain() for verdict in found.verdicts]),
        _json(found.about),
    )
    for name, text in zip(FILES, texts, strict=True):
        atomic_write(folder / name, _writing(text))
    return [folder / name for name in FILES]


def _writing(text: str) -> Callable[[Path], Any]:
    return lambda temporary: temporary.write_text(text, encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def cells_by(
    cells: Sequence[Mapping[str, Any]], *keys: str
) -> Iterator[tuple[tuple[Any, ...], list[Mapping[str, Any]]]]:
    """Cells in groups of the same values of some columns, in the order in which they first come."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[key] for key in keys), []).append(cell)
    yield from groups.items()
