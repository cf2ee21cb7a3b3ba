"""One batch of cells done: invert, play back from the record and from the noise alone, edit, measure, keep pictures.

Every picture has a generator of its own, seeded by the plan's seed and the item's content, so that a result does not
depend on what else is in the batch, on who does it or on when.
"""

from __future__ import annotations

import datetime
import hashlib
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.bench.artefacts import CannotKeep, cell_folder, item_folder, write_inversion, write_picture
from unsample.bench.cells import Task
from unsample.bench.plan import FORMAT, Named, Plan, digest, methods_of
from unsample.errors import BadInput, Diverged, Incompatible

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.datasets.item import Dataset, Item
    from unsample.results import Images, Inversion

STAGES = {
    "record": ("pair",),
    "noise": ("pair",),
    "recovered": ("recovery", "noise"),
    "edit": ("pair", "edit", "text", "masked"),
}


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
        """A loaded model."""
        if name not in self._models:
            import torch

            import unsample

            if self.threads:
                torch.set_num_threads(self.threads)
            self._models[name] = unsample.load(name, device=self.device, dtype=self.plan.dtype)
        return self._models[name]

    def data(self, model: Any) -> Dataset:
        """The data set at a model's size."""
        from unsample.datasets import open_dataset

        size = int(model.picture_size[0])
        if size not in self._data:
            self._data[size] = open_dataset(self.plan.dataset, size=size)
        return self._data[size]

    def do(self, task: Task) -> dict[str, Any]:
        """Rows and broken items of a batch; or what went wrong: `error`, `traceback`, `kind`."""
        try:
            return _done(self, task)
        except CannotKeep as error:
            return {"kind": "fatal", "error": str(error), "traceback": traceback.format_exc()}
        except (Exception, MemoryError) as error:
            texts = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
            short = isinstance(error, MemoryError) or any(t in str(error).lower() for t in texts)
            kind = "memory" if short else "error"
            said = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
            return {"kind": kind, "error": said, "traceback": traceback.format_exc()}


@dataclass
class Made:
    """What a batch's method made of its pictures; None where it made nothing."""

    source: Tensor | None = None  # (B, 3, H, W) in [0, 1], as the model saw it
    inversion: Inversion | None = None
    pictures: dict[str, Tensor] = field(default_factory=dict)  # stage to (B, 3, H, W)
    reasons: dict[str, str] = field(default_factory=dict)  # stage to why it has no pictures
    true_noise: Tensor | None = None
    played: Tensor | None = None  # latents that the noise alone led to
    between: Tensor | None = None
    status: list[str] = field(default_factory=list)


def _done(worker: Worker, task: Task) -> dict[str, Any]:
    model = worker.model(task.model)
    data, items, broken = worker.data(model), [], []
    for k, id in zip(task.items, task.ids, strict=True):
        try:
            items.append((k, data[k]))
        except BadInput as error:
            broken.append((id, str(error)))
    if not items:
        return {"rows": [], "broken": broken}
    named = next(m for m in methods_of(worker.plan) if m.label == task.method)
    begin, started = time.perf_counter(), _now()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a cell has to say stands in its row
        made = _made(worker, model, named, task, [item for _, item in items])
    seconds = (time.perf_counter() - begin) / len(items)
    values = _measured(worker, model, made, [item for _, item in items])
    rows = []
    for n, (place, item) in enumerate(items):
        about = _facts(made, n) | {"seconds": seconds, "started": started, "finished": _now()}
        row = _identity(worker, model, named, task, item, place) | about
        row |= {"values": {name: column[n] for name, column in values.items()}, "peak_memory_mb": _peak(model)}
        rows.append(row | {"artefacts": _kept(worker, made, task, item, n)})
    return {"rows": rows, "broken": broken}


# ---------------------------------------------------------------- pictures


def _made(worker: Worker, model: Any, named: Named, task: Task, items: Sequence[Item]) -> Made:
    """Everything the metrics look at."""
    import torch

    import unsample
    from unsample.inputs import as_images
    from unsample.methods import get_method

    plan, w = worker.plan, task.guidance
    text = model.takes_prompt
    prompts = [item.prompt or "" for item in items] if text else None
    method = None if named.baseline else get_method(named.name, dict(named.settings))
    made = Made(status=["ok"] * len(items))
    common: dict[str, Any] = {"num_inference_steps": plan.steps, "progress": False}
    sampled = None
    if items[0].image is None:
        seeds = [torch.Generator().manual_seed(item.seed or 0) for item in items]
        keep = method is not None and method.needs_trajectory
        given: dict[str, Any] = {"guidance_scale": w, "generator": seeds, "keep_trajectory": keep}
        sampled = unsample.sample(model, prompts, **given, **common)
        made.source, made.true_noise = sampled.images.cpu(), sampled.noise
    else:
        made.source = as_images(model, _pictures([item.image for item in items]), plan.fit).images  # type: ignore[arg-type]
    if method is None:
        _baseline(worker, model, named.name, made, items, w, common)
        return made
    given = {"method": method, "guidance_scale": plan.inversion_guidance, "sampling_guidance_scale": w}
    given |= {"generator": _generators(plan, items)}
    if sampled is None:
        given["images"] = made.source
    else:
        given |= {"latents": sampled.latents, "trajectory": sampled.trajectory}
    try:
        made.inversion = unsample.invert(model, prompt=prompts, **given, **common)
    except Diverged as error:
        made.status = ["diverged"] * len(items)
        made.reasons = dict.fromkeys(STAGES, str(error))
        return made
    made.status = list(made.inversion.status)
    _play(model, made, items, w, plan, stepwise=method.stepwise)
    return made


def _play(model: Any, made: Made, items: Sequence[Item], w: float, plan: Plan, *, stepwise: bool) -> None:
    """Reconstruct from the noise alone and from the record; edit."""
    import unsample

    assert made.inversion is not None

    def played(stage: str, call: Any) -> Images | None:
        try:
            found: Images = call()
        except (Diverged, Incompatible) as error:
            made.reasons[stage] = str(error)
            return None
        made.pictures[stage] = found.images.cpu()
        return found

    again: dict[str, Any] = {"progress": False}
    stop, steps = made.inversion.meta["stop_index"], made.inversion.meta["num_inference_steps"]
    alone = None
    if stop < steps:  # its point still holds the picture, and would win every comparison of noises
        made.reasons["noise"] = f"the method stops at step {stop} of {steps}: it recovers a noised picture, not noise"
    else:
        alone = played("noise", lambda: unsample.reconstruct(model, made.inversion, use="noise", **again))
    made.played = None if alone is None else alone.latents
    if stepwise and alone is not None:  # then the record is the noise, and both ways are one
        made.pictures["record"] = made.pictures["noise"]
    else:
        played("record", lambda: unsample.reconstruct(model, made.inversion, **again))
    if plan.edit:
        targets: Any = [item.target_prompt for item in items]
        if None in targets:
            made.reasons["edit"] = "the data set has no target prompt for every picture of the batch"
        else:
            played("edit", lambda: unsample.edit(model, made.inversion, targets, guidance_scale=w, **again))
    wanted = any(name.partition("[")[0] == "e_interp" for name in plan.metrics)
    if wanted and made.true_noise is not None:
        made.between = _between(model, made, items, w, plan)


def _between(model: Any, made: Made, items: Sequence[Item], w: float, plan: Plan) -> Tensor | None:
    """Latents sampled from halfway between the true noise and the recovered one."""
    import unsample
    from unsample.slerp import slerp

    assert made.inversion is not None
    assert made.true_noise is not None
    noise = made.inversion.noise
    if noise.shape != made.true_noise.shape or made.inversion.meta["stop_index"] < plan.steps:
        return None
    halfway = slerp(made.true_noise.to(noise), noise, 0.5)
    prompts = [item.prompt or "" for item in items] if model.takes_prompt else None
    given: dict[str, Any] = {
        "noise": halfway,
        "guidance_scale": w,
        "num_inference_steps": plan.steps,
        "progress": False,
    }
    try:
        return unsample.sample(model, prompts, **given).latents  # type: ignore[arg-type]
    except Diverged:
        return None


def _baseline(
    worker: Worker, model: Any, name: str, made: Made, items: Sequence[Item], w: float, common: dict[str, Any]
) -> None:
    """What edits are read against: the source itself, the autoencoder's round trip, fresh noise with the target."""
    import torch

    import unsample

    assert made.source is not None
    truth = _truth(worker, model, items)
    if name == "vae(truth)" and truth is None:
        made.reasons["edit"] = "the true edit is not known"
    elif name == "fresh":
        targets = [item.target_prompt or "" for item in items]
        if not model.takes_prompt:
            made.reasons["edit"] = f"{model.id} takes no prompt"
            return
        given: dict[str, Any] = {"guidance_scale": w, "generator": _generators(worker.plan, items)}
        made.pictures["edit"] = unsample.sample(model, targets, **given, **common).images.cpu()
    elif name == "identity":
        made.pictures["edit"] = made.source
    else:
        through = made.source if name == "vae(source)" else truth
        assert through is not None
        with torch.no_grad():
            made.pictures["edit"] = model.decode(model.encode(through.to(model.device))).clamp(0, 1).float().cpu()


def _pictures(images: Sequence[Any]) -> Any:
    """One picture each, as `unsample.invert` takes a batch: a tensor of tensors, or a list of PIL images."""
    import torch

    return torch.stack(list(images)) if isinstance(images[0], torch.Tensor) else list(images)


def _truth(worker: Worker, model: Any, items: Sequence[Item]) -> Tensor | None:
    from unsample.inputs import as_images

    truths = [item.truth for item in items]
    if any(t is None for t in truths):
        return None
    return as_images(model, _pictures(truths), worker.plan.fit).images  # type: ignore[arg-type]


def _masks(worker: Worker, model: Any, items: Sequence[Item]) -> Tensor | None:
    """(B, 1, H, W): fitted as the pictures were, then cut at one half."""
    import torch
    from PIL import Image

    from unsample.inputs import as_images

    masks = [item.mask for item in items]
    if any(m is None for m in masks):
        return None
    size = (model.picture_size[1], model.picture_size[0])
    if all(tuple(m.shape[-2:]) == size for m in masks):  # type: ignore[union-attr]
        return torch.stack(masks)  # type: ignore[arg-type]
    grey = [Image.fromarray((m[0] * 255).byte().numpy()).convert("RGB") for m in masks]  # type: ignore[index]
    return (as_images(model, grey, worker.plan.fit).images[:, :1] >= 0.5).float()  # type: ignore[arg-type]


def _generators(plan: Plan, items: Sequence[Item]) -> list[torch.Generator]:
    import torch

    return [torch.Generator().manual_seed(item_seed(plan, item)) for item in items]


def item_seed(plan: Plan, item: Item) -> int:
    """The seed of an item: of the plan's and its content."""
    return int.from_bytes(hashlib.sha256(f"{plan.seed}:{item.digest()}".encode()).digest()[:4], "big")


# ---------------------------------------------------------------- figures


def _measured(worker: Worker, model: Any, made: Made, items: Sequence[Item]) -> dict[str, list[dict[str, Any]]]:
    """`stage.metric` to an entry a picture."""
    from unsample.metrics import Settings, Subject, measure
    from unsample.metrics.facts import resolve
    from unsample.metrics.pixels import eight_bit
    from unsample.metrics.table import METRICS

    plan = worker.plan
    settings = Settings(clip=plan.clip)
    kinds = {name: resolve(name, METRICS, settings).facts.kind for name in plan.metrics}
    baseline = made.inversion is None and not made.reasons.get("noise")
    found: dict[str, list[dict[str, Any]]] = {}
    for stage, allowed in STAGES.items():
        names = [name for name in plan.metrics if kinds[name] in allowed]
        if not names or (stage == "edit" and not plan.edit) or (stage != "edit" and baseline):
            continue
        if stage in made.reasons or (stage == "recovered" and made.inversion is None):
            reason = made.reasons.get(stage, "nothing was recovered")
            found |= {f"{stage}.{name}": [_entry(None, False, reason)] * len(items) for name in names}
            continue
        subject = Subject(noise=made.inversion.noise if made.inversion else None)
        if stage == "recovered":
            assert made.inversion is not None
            start = made.inversion.latents if made.true_noise is not None else None
            subject = Subject(
                noise=made.inversion.noise, true_noise=made.true_noise, start=start, played=made.played,
                between=made.between,
            )  # fmt: skip
        else:
            truth = _truth(worker, model, items) if stage == "edit" else None
            subject = Subject(
                images=eight_bit(made.pictures[stage]).float(),
                reference=None if made.source is None else eight_bit(made.source).float(),
                truth=None if truth is None else eight_bit(truth).float(),
                mask=_masks(worker, model, items) if stage == "edit" else None,
                prompts=[item.prompt or "" for item in items],
                target_prompts=[item.target_prompt or "" for item in items] if stage == "edit" else None,
                targets=_all(items, "target"), changed=_all(items, "changed"),
            )  # fmt: skip
        near = [name for name in names if kinds[name] == "pair"] if stage == "edit" else []
        others = [name for name in names if name not in near]
        scores = dict(measure(others, subject, settings)) if others else {}
        if near and subject.truth is None:
            reason = "the true edit is not known; see the masked metrics"
            found |= {f"edit.{name}": [_entry(None, False, reason)] * len(items) for name in near}
        elif near:  # an edit is held against the true edit, not against its source
            scores |= measure(near, Subject(images=subject.images, reference=subject.truth), settings)
        for name, score in scores.items():
            found[f"{stage}.{name}"] = [
                _entry(v, e, r) for v, e, r in zip(score.values, score.exact, score.reasons, strict=True)
            ]
    for n, status in enumerate(made.status):
        if status == "diverged":
            for column in found.values():
                column[n] = _entry(None, False, column[n]["reason"] or "diverged")
    return found


def _all(items: Sequence[Item], name: str) -> list[Any] | None:
    values = [getattr(item, name) for item in items]
    return None if any(v is None for v in values) else values


def _entry(value: float | None, exact: bool, reason: str | None) -> dict[str, Any]:
    return {"value": value, "exact": exact, "reason": reason}


# ---------------------------------------------------------------- rows


def _identity(worker: Worker, model: Any, named: Named, task: Task, item: Item, place: int) -> dict[str, Any]:
    """What a row is a result of, and how it was run."""
    import torch

    plan = worker.plan
    what = {
        "item": item.digest(),
        "model": model.weights_sha256(),
        "method": named.name,
        "settings": dict(named.settings),
        "guidance": task.guidance,
        "plan": {k: getattr(plan, k) for k in ("inversion_guidance", "steps", "edit", "seed", "dtype", "fit", "clip")},
        "metrics": list(plan.metrics),
        "format": FORMAT,
    }
    return {
        "key": digest(what),
        "order": task.order + place - task.items[0],
        "item": item.id,
        "dataset": plan.dataset,
        "model": task.model,
        "method": named.label,
        "method_name": named.name,
        "settings": dict(named.settings),
        "baseline": named.baseline,
        "guidance": task.guidance,
        "inversion_guidance": plan.inversion_guidance,
        "steps": plan.steps,
        "edit": plan.edit,
        "seed": item_seed(plan, item),
        "error": None,
        "traceback": None,
        "attempts": task.attempt,
        "deaths": task.deaths,
        "batch_size": len(task.ids),
        "threads": torch.get_num_threads(),
        **worker.running,
    }


def _facts(made: Made, n: int) -> dict[str, Any]:
    """Status, cost, and what is stored."""
    found = made.inversion
    nothing: dict[str, Any] = {"nfe": None, "backward": None, "stores": None, "stored_ratio": None}
    nothing |= {"fitted": False, "exact_by_construction": False}
    if found is None:
        return nothing | {"status": made.status[n]}
    from unsample.methods import get_method

    method = get_method(found.meta["method"]["name"], found.meta["method"]["settings"])
    stored = found.meta["stored"]
    same = (
        found.meta["guidance_scale"] == found.meta["sampling_guidance_scale"]
    )  # a reversible walk is undone as it went
    return {
        "status": made.status[n],
        "nfe": found.nfe[n],
        "backward": found.backward[n],
        "stores": stored["what"],
        "stored_ratio": stored["size_over_noise"],
        "fitted": stored["fitted_to_picture"],
        "exact_by_construction": method.exact and (not method.reversible or same),
    }


def _kept(worker: Worker, made: Made, task: Task, item: Item, n: int) -> list[dict[str, str]]:
    """Write the artefacts of one cell, each under its own name in one step; what was written, with hashes."""
    if worker.artefacts == "none":
        return []
    root, kept = worker.folder, []
    home = item_folder(task.model, item.id)
    own = cell_folder(task.model, item.id, task.method, task.guidance)
    pictures = [] if made.source is None else [("source", home / "source.png", made.source[n])]
    model = worker.model(task.model)
    truth = _truth(worker, model, [item]) if worker.plan.edit else None
    pictures += [] if truth is None else [("truth", home / "truth.png", truth[0])]
    if made.status[n] != "diverged":
        pictures += [(stage, own / f"{stage}.png", picture[n]) for stage, picture in sorted(made.pictures.items())]
    for kind, path, picture in pictures:
        kept.append({"kind": kind, "path": path.as_posix(), "sha256": write_picture(root / path, picture)})
    if worker.artefacts == "all" and made.inversion is not None and made.status[n] != "diverged":
        path = own / "inversion.safetensors"
        sha256 = write_inversion(root / path, made.inversion[n])
        kept.append({"kind": "inversion", "path": path.as_posix(), "sha256": sha256})
    return kept


def _peak(model: Any) -> float:
    """Of the device, or of this process so far."""
    import torch

    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
