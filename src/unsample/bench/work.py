"""One batch of cells done: its items opened, its pictures made, measured and kept, a row a cell.

Every picture has a generator of its own, seeded by the plan's seed and the item's content, so that a result does not
depend on what else is in the batch, on who does it or on when.
"""

from __future__ import annotations

import datetime
import resource
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.bench.artefacts import CannotKeep, cell_folder, item_folder, write_inversion, write_picture
from unsample.bench.cells import BatchTask, base_row
from unsample.bench.plan import FORMAT, Plan, digest
from unsample.errors import BadInput, UnsampleError, first_line, out_of_memory
from unsample.experiment.setup import Setup
from unsample.experiment.shared import Shared
from unsample.models.variants import parted

if TYPE_CHECKING:
    from unsample.datasets.item import Dataset
    from unsample.experiment.findings import Findings


class NoModel(Exception):
    """A model cannot be loaded."""


@dataclass
class Worker:
    """What does batches: plan, folder and device; models and data sets are opened once, when first needed."""

    plan: Plan
    folder: Path
    artefacts: str = "pictures"
    device: str | None = None
    threads: int | None = None
    running: Mapping[str, Any] = field(default_factory=dict)  # how it runs: engine, workers
    shared: Shared = field(default_factory=Shared)  # what its batches have in common
    _models: dict[str, Any] = field(default_factory=dict)
    _data: dict[tuple[str, int], Dataset] = field(default_factory=dict)

    def lend(self, models: Mapping[str, Any]) -> None:
        """Models that are in memory already, by name."""
        self._models |= models

    def after(self, other: Worker) -> Worker:
        """This worker, with the models, the data and the memory of one that did another plan on the same device."""
        self._data, self.shared = other._data, other.shared
        if (self.device, self.plan.dtype) == (other.device, other.plan.dtype):
            self._models = other._models
        return self

    def model(self, name: str) -> Any:
        """A loaded model.

        Raises:
            NoModel: it cannot be had, or not with this device or type: no other cell of it would fare better.
        """
        return taken(self._models, name, self.threads, device=self.device, dtype=self.plan.dtype)

    def data(self, spec: str, model: Any) -> Dataset:
        """A data set at a model's size."""
        from unsample.datasets import open_dataset

        key = spec, int(model.picture_size[0])
        if key not in self._data:
            self._data[key] = open_dataset(spec, size=key[1])
        return self._data[key]

    def do(self, task: BatchTask) -> dict[str, Any]:
        """Rows and broken items of a batch; or what went wrong: `error`, `traceback`, `kind`."""
        try:
            return _done(self, task)
        except Exception as error:
            self.shared.clear()  # room for the next attempt
            return failure(error)


def taken(models: dict[str, Any], name: str, threads: int | None, **placed: Any) -> Any:
    """A worker's model, from those that it has, or loaded now, with so many threads of the CPU.

    Raises:
        NoModel: it cannot be had.
    """
    if name not in models:
        import torch

        import unsample

        if threads:
            torch.set_num_threads(threads)
        try:
            models[name] = unsample.load(name, **placed)
        except UnsampleError as error:
            raise NoModel(str(error)) from error
    return models[name]


def failure(error: Exception) -> dict[str, Any]:
    """What a worker says of what it could not do, while the error is being handled: `kind`, `error`, `traceback`."""
    said: dict[str, Any] = {"error": str(error), "traceback": traceback.format_exc()}
    if isinstance(error, CannotKeep):
        return said | {"kind": "fatal"}
    if isinstance(error, NoModel):
        return said | {"kind": "model", "error": str(error.__cause__), "raised": error.__cause__}
    kind = "memory" if out_of_memory(error) else "error"
    return said | {"kind": kind, "error": f"{type(error).__name__}: {first_line(error, 'no message')}"}


def setup_of(plan: Plan, task: BatchTask) -> Setup:
    """What a task asks of the experiment: all that is said of plans there is said here."""
    from unsample.edits import get_editor
    from unsample.edits.choose import AUTO
    from unsample.methods import get_method

    named, chosen = task.named, task.edited.name == AUTO
    return Setup(
        method=named.name if named.baseline else get_method(named.name, dict(named.settings)),
        metrics=tuple(name for name in plan.metrics if name not in plan.set_metrics),
        guidance=task.part.guidance,
        guidance_schedule=plan.guidance_schedule,
        inversion_guidance=named.inversion_guidance,
        steps=task.part.steps,
        strength=named.strength,
        stages=task.stages,
        edit_guidance=None if chosen and not task.edited.guidance else task.part.edited_at,
        editor=AUTO if chosen else get_editor(task.edited.name, dict(task.edited.settings)),
        mask=task.part.mask,
        seed=plan.seed,
        fit=plan.fit,
        clip_model=plan.clip_model,
        keep_trajectory=plan.keep_trajectory,
        probe=plan.probe,
        probe_settings=plan.probe_settings,
    )


def _done(worker: Worker, task: BatchTask) -> dict[str, Any]:
    from unsample.experiment.cell import run_cells
    from unsample.experiment.findings import item_seeds

    plan, model = worker.plan, worker.model(task.model)
    data, items, places, broken = worker.data(task.part.dataset, model), [], [], []
    for place, id in zip(task.items, task.ids, strict=True):
        try:
            items.append(data[place])
            places.append(place)
        except BadInput as error:
            broken.append((id, str(error)))
    if not items:
        return {"rows": [], "broken": broken}
    started = _now()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a cell has to say stands in its row
        found = run_cells(model, items, setup_of(plan, task), worker.shared)
    digests = [item.digest() for item in items]
    seeds, rows = item_seeds(plan.seed, digests), []
    for n, (place, row) in enumerate(zip(places, found.rows, strict=True)):
        about = base_row(plan, task, place, items[n].id)
        about |= {"key": _key(worker, task, digests[n]), "seed": seeds[n]} | _machine(model)
        about["changed"] = items[n].changed or items[n].category
        about |= (
            row | dict(worker.running) | {"seconds": found.seconds / len(items), "started": started, "finished": _now()}
        )
        rows.append(about | {"artefacts": _kept(worker, task, found, n)})
    return {"rows": rows, "broken": broken}


def _key(worker: Worker, task: BatchTask, item: str) -> str:
    """What a row is a result of, as a hash; `item` is the item's own."""
    plan, named, part = worker.plan, task.named, task.part
    of_plan = {k: getattr(plan, k) for k in ("seed", "dtype", "fit", "clip_model")}
    of_plan |= {"stages": task.stages, "inversion_guidance": named.inversion_guidance}
    what = {
        "item": item,
        "model": worker.model(task.model).weights_sha256(),
        "method": named.name,
        "settings": dict(named.settings),
        "guidance": part.guidance,
        "steps": part.steps,
        "strength": named.strength,
        "plan": of_plan,
        "metrics": list(plan.metrics),
        "format": FORMAT,
    }
    if plan.guidance_schedule != "constant":
        what["guidance_schedule"] = plan.guidance_schedule
    if plan.probe:
        what["probe"] = [plan.probe, plan.probe_settings]
    if parted(part.model)[1]:  # a change of its scheduler, which is no part of the weights' hash
        what["model_name"] = part.model
    if part.edits:
        what["edit"] = [task.edited.name, dict(task.edited.settings), part.mask, part.edited_at]
    return digest(what)


def _kept(worker: Worker, task: BatchTask, found: Findings, n: int) -> list[dict[str, str]]:
    """Write the artefacts of one cell, each under its own name in one step; what was written, with hashes."""
    if worker.artefacts == "none":
        return []
    item = found.items[n]
    home, own = item_folder(task.part, item.id), cell_folder(task.part, item.id)
    pictures = [("source", home / "source.png", found.source[n])]
    pictures += [] if found.truth is None else [("truth", home / "truth.png", found.truth[n])]
    inversion = found.inversion
    if found.status[n] == "diverged":
        inversion = None
    else:
        pictures += [(stage, own / f"{stage}.png", picture[n]) for stage, picture in sorted(found.pictures.items())]
    written = [(kind, path, write_picture(worker.folder, path, picture)) for kind, path, picture in pictures]
    if worker.artefacts == "all" and inversion is not None:
        path = own / "inversion.safetensors"
        written.append(("inversion", path, write_inversion(worker.folder, path, inversion[n])))
    return [{"kind": kind, "path": path.as_posix(), "sha256": sha256} for kind, path, sha256 in written]


def _machine(model: Any) -> dict[str, Any]:
    """The accelerator by its name, or cpu; threads; and the peak memory of the device, or of this process so far."""
    import torch

    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else str(model.device.type)
    return {"device": device, "threads": torch.get_num_threads(), "peak_memory_mb": _peak(model)}


def _peak(model: Any) -> float:
    import torch

    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
