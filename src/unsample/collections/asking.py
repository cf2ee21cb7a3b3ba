"""A job from checked options, and what can be refused beforehand: by the first pictures, before any work."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unsample.collections.jobs import Job
from unsample.collections.making import as_item
from unsample.collections.opened import Collection
from unsample.datasets.item import Dataset, Item
from unsample.errors import BadInput, BadOption, Incompatible
from unsample.models.domain import drawn, reasons_of_picture, reasons_of_prompts
from unsample.preflight import rules
from unsample.preflight.known import DEFAULT_MODEL, KnownModel, known_model, named_by_file
from unsample.preflight.walk import Walk

PEEKED = 8  # pictures that are looked at before any work
Found = list[tuple[KnownModel, str, str]]  # model, what, and why it is outside of what the model knows


def resolved(metrics: Sequence[str]) -> list[str]:
    """Metrics of single pictures by their names in the table.

    Raises:
        UnknownName: no such metric. BadOption: one of whole sets, of which a row can hold nothing.
    """
    from unsample.metrics import METRICS, Settings
    from unsample.metrics.facts import resolve

    asked = [resolve(name, METRICS, Settings()) for name in metrics]
    for one in asked:
        if one.facts.compute is None:
            raise BadOption(f"{one.key} is of whole sets, and a collection has a value a picture; leave it out")
    return [one.key for one in asked]


def walked(walk: Walk, prompts: tuple[str | None, str | None]) -> dict[str, Any]:
    """What of a walk a result depends on, as JSON."""
    labels = {name: value and value[0] for name, value in walk.labels.taken([0]).items()}
    same = ("guidance_scale", "sampling_guidance_scale", "guidance_schedule", "strength", "seed", "fit", "clip")
    return {
        "method": walk.method.name,
        "settings": json.loads(json.dumps(walk.method.settings)),
        "num_inference_steps": walk.steps,
        **{name: getattr(walk, name) for name in same},
        "first_step_radius": walk.first_step_radius,
        **labels,
        "prompt": prompts[0],
        "negative_prompt": prompts[1],
    }


def peeked(data: Dataset) -> list[Item]:
    """The first items that can be opened.

    Raises:
        BadInput: of the first ones none can.
    """
    found: list[Item] = []
    reasons: list[str] = []
    for k in range(min(len(data), 8 * PEEKED)):
        try:
            found.append(data[k])
        except BadInput as error:
            reasons.append(str(error))
        if len(found) == PEEKED:
            break
    if not found:
        raise BadInput(f"none of the first {len(reasons)} pictures of {data.spec} can be read: {reasons[0]}")
    return found


def chosen_model(named: KnownModel | None, first: Sequence[Item]) -> KnownModel:
    """The model that was named, else the one that the first picture's own metadata name, else the default."""
    own = next((item.extra["metadata"].get("model") for item in first if "metadata" in item.extra), None)
    return named or named_by_file(own) or known_model(DEFAULT_MODEL)


def check(job: Job, walk: Walk, known: KnownModel, first: Sequence[Item]) -> Found:
    """Refuse what cannot be, as far as options and the first pictures tell.

    Returns:
        What of them is outside of what the model knows.

    Raises:
        BadOption, Incompatible, BadInput: with the reason.
    """
    asked, labels = job.asked, walk.labels
    known.check(walk.steps, asked["prompt"], walk.scales, labels.negative is not None)
    known.check_labels(labels.classes, labels.negative)
    rules.check_needs_trajectory(walk.method, False)
    found: Found = []
    lacking: list[BadInput] = []
    for item in first:
        if "inversion" in item.extra:
            raise Incompatible("these are inversions already; reconstruct or edit them, or give the pictures")
        if item.image is None:
            raise Incompatible("these pictures are yet to be sampled by a model; 'unsample sample' makes pictures")
        try:
            opened = as_item(item, job, item.id)
        except BadInput as error:  # its row says so
            lacking.append(error)
            continue
        prompt = None if known.takes_prompt is False else opened.prompt
        known.check_method(walk.method, prompt)
        if known.only_size is not None:
            from unsample.media.pictures import fit_size

            own, size = known.only_size, opened.image.pixels.size
            rules.check_size(known.name, own, fit_size(size[0], size[1], own[0] * own[1], 1, walk.fit), item.id)
        if drawn(known.name):
            picture = opened.image
            reasons = reasons_of_picture(known.name, picture.pixels, walk.fit, picture.metadata)
            words = (prompt, asked["negative_prompt"], opened.target_prompt if job.verb == "edit" else None)
            found += [(known, item.id, why) for why in [*reasons, *reasons_of_prompts(known.name, words)]]
    if len(lacking) == len(first):
        raise BadInput(f"none of the first {len(first)} pictures can be used: {lacking[0]}")
    return found


def of_saved(collection: Collection) -> dict[str, Any]:
    """What was asked of a collection of inversions."""
    return {name: value for name, value in collection.about["asked"].items() if name not in ("verb", "model")}


def placed(placement: Mapping[str, Any]) -> dict[str, Any]:
    """How a model is loaded, without where and in which type, and without what is not asked for."""
    return {name: value for name, value in placement.items() if name not in ("device", "dtype")}


def devices(device: str | None, workers: int | None) -> tuple[str | None, int]:
    """The devices of the workers, joined by commas, and how many workers there are: of several GPUs one each."""
    if device is not None:
        return device, workers or len(device.split(","))
    import torch

    count = torch.cuda.device_count()
    if count < 2 or workers == 1:
        return None, workers or 1
    return ",".join(f"cuda:{k}" for k in range(min(count, workers or count))), workers or count
