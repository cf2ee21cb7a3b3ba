"""One batch of cells done: its items opened, its pictures made, measured and kept, a row a cell.

Every picture has a generator of its own, seeded by the plan's seed and the item's content, so that a result does not
depend on what else is in the batch, on who does it or on when.
"""

from __future__ import annotations

import datetime
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.bench.artefacts import CannotKeep, cell_folder, item_folder, write_inversion, write_picture
from unsample.bench.batch import Batch, Made
from unsample.bench.cells import BatchTask, base_row
from unsample.bench.making import make
from unsample.bench.plan import FORMAT, Plan, digest, methods_of
from unsample.bench.scoring import score
from unsample.errors import BadInput, UnsampleError, first_line, out_of_memory

if TYPE_CHECKING:
    from unsample.datasets.item import Dataset


class _NoModel(Exception):
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
    _models: dict[str, Any] = field(default_factory=dict)
    _data: dict[int, Dataset] = field(default_factory=dict)

    def model(self, name: str) -> Any:
        """A loaded model.

        Raises:
            _NoModel: it cannot be had, or not with this device or type: no other cell of it would fare better.
        """
        if name not in self._models:
            import torch

            import unsample

            if self.threads:
                torch.set_num_threads(self.threads)
            try:
                self._models[name] = unsample.load(name, device=self.device, dtype=self.plan.dtype)
            except UnsampleError as error:
                raise _NoModel(str(error)) from error
        return self._models[name]

    def data(self, model: Any) -> Dataset:
        """The data set at a model's size."""
        from unsample.datasets import open_dataset

        size = int(model.picture_size[0])
        if size not in self._data:
            self._data[size] = open_dataset(self.plan.dataset, size=size)
        return self._data[size]

    def do(self, task: BatchTask) -> dict[str, Any]:
        """Rows and broken items of a batch; or what went wrong: `error`, `traceback`, `kind`."""
        try:
            return _done(self, task)
        except CannotKeep as error:
            return {"kind": "fatal", "error": str(error), "traceback": traceback.format_exc()}
        except _NoModel as error:
            raised = error.__cause__
            return {"kind": "model", "error": str(raised), "traceback": traceback.format_exc(), "raised": raised}
        except Exception as error:
            kind = "memory" if out_of_memory(error) else "error"
            said = f"{type(error).__name__}: {first_line(error, 'no message')}"
            return {"kind": kind, "error": said, "traceback": traceback.format_exc()}


def _done(worker: Worker, task: BatchTask) -> dict[str, Any]:
    from unsample.methods import get_method

    model = worker.model(task.model)
    data, items, places, broken = worker.data(model), [], [], []
    for place, id in zip(task.items, task.ids, strict=True):
        try:
            items.append(data[place])
            places.append(place)
        except BadInput as error:
            broken.append((id, str(error)))
    if not items:
        return {"rows": [], "broken": broken}
    named = next(m for m in methods_of(worker.plan) if m.label == task.method)
    method = None if named.baseline else get_method(named.name, dict(named.settings))
    digests = [item.digest() for item in items]
    batch = Batch(worker.plan, task, named, method, model, items, places, digests)
    begin, started = time.perf_counter(), _now()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a cell has to say stands in its row
        made = make(batch)
    seconds = (time.perf_counter() - begin) / len(items)
    values = score(batch, made)
    rows = []
    for n in range(len(items)):
        row = _row(batch, made, n) | dict(worker.running) | {"seconds": seconds, "started": started, "finished": _now()}
        row["values"] = {name: column[n] for name, column in values.items()}
        row["artefacts"] = _kept(worker, batch, made, n)
        rows.append(row)
    return {"rows": rows, "broken": broken}


def _row(batch: Batch, made: Made, n: int) -> dict[str, Any]:
    """What a row is a result of, what it cost, and what is stored."""
    import torch

    plan, named, task = batch.plan, batch.named, batch.task
    of_plan = {k: getattr(plan, k) for k in ("steps", "edit", "seed", "dtype", "fit", "clip")}
    what = {
        "item": batch.digests[n],
        "model": batch.model.weights_sha256(),
        "method": named.name,
        "settings": dict(named.settings),
        "guidance": task.guidance,
        "plan": of_plan | {"inversion_guidance": named.inversion_guidance},
        "metrics": list(plan.metrics),
        "format": FORMAT,
    }
    row = base_row(plan, named, task, batch.places[n], batch.items[n].id)
    row |= {"key": digest(what), "seed": batch.seeds[n], "status": made.status[n]}
    row |= {"nonfinite_at": made.nonfinite_at[n] if made.nonfinite_at else None}
    row |= {"threads": torch.get_num_threads(), "peak_memory_mb": _peak(batch.model)}
    if made.inversion is None or batch.method is None:
        return row
    meta, method = made.inversion.meta, batch.method
    undone = meta["guidance_scale"] == meta["sampling_guidance_scale"]  # a reversible walk goes back as it came
    return row | {
        "nfe": made.inversion.nfe[n],
        "backward": made.inversion.backward[n],
        "stores": meta["stored"]["what"],
        "stored_ratio": meta["stored"]["size_over_noise"],
        "fitted": meta["stored"]["fitted_to_picture"],
        "out_of_domain": _outside(batch, n, meta),
        "exact_by_construction": method.exact and (undone or not method.reversible),
    }


def _outside(batch: Batch, n: int, meta: Mapping[str, Any]) -> bool:
    """Whether the model does not know the item: its picture as it was given, as it was fitted, or its prompt."""
    from PIL.Image import Image

    from unsample.models.domain import reasons_of_picture

    given = batch.items[n].image
    own = reasons_of_picture(batch.model.id, given, batch.plan.fit) if isinstance(given, Image) else []
    return bool(own or meta["out_of_domain"][n])


def _kept(worker: Worker, batch: Batch, made: Made, n: int) -> list[dict[str, str]]:
    """Write the artefacts of one cell, each under its own name in one step; what was written, with hashes."""
    if worker.artefacts == "none":
        return []
    task, item = batch.task, batch.items[n]
    home, own = item_folder(task.model, item.id), cell_folder(task.model, item.id, task.method, task.guidance)
    pictures = [("source", home / "source.png", made.source[n])]
    pictures += [] if made.truth is None else [("truth", home / "truth.png", made.truth[n])]
    inversion = made.inversion
    if made.status[n] == "diverged":
        inversion = None
    else:
        pictures += [(stage, own / f"{stage}.png", picture[n]) for stage, picture in sorted(made.pictures.items())]
    written = [(kind, path, write_picture(worker.folder, path, picture)) for kind, path, picture in pictures]
    if worker.artefacts == "all" and inversion is not None:
        path = own / "inversion.safetensors"
        written.append(("inversion", path, write_inversion(worker.folder, path, inversion[n])))
    return [{"kind": kind, "path": path.as_posix(), "sha256": sha256} for kind, path, sha256 in written]


def _peak(model: Any) -> float:
    """Of the device, or of this process so far."""
    import torch

    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
