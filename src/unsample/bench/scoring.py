"""The metrics of a batch: which are asked of which stage, and what they are held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from unsample.bench.batch import STAGES, Batch, Made, fitted

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.metrics import Settings

Entries = dict[str, list[dict[str, Any]]]  # of each metric, one a picture
UNKNOWN = "the true edit is not known; see the masked metrics"


def score(batch: Batch, made: Made) -> Entries:
    """The entries of `stage.metric`."""
    from unsample.metrics import Settings
    from unsample.metrics.facts import resolve
    from unsample.metrics.table import METRICS

    plan, count, settings = batch.plan, len(batch.items), Settings(clip=batch.plan.clip)
    kinds = {name: resolve(name, METRICS, settings).facts.kind for name in plan.metrics}
    stages = ["edit"] if batch.method is None else [stage for stage in STAGES if plan.edit or stage != "edit"]
    found: Entries = {}
    for stage in stages:
        asked = {name: kind for name, kind in kinds.items() if kind in STAGES[stage]}
        reason = made.reasons.get(stage)
        entries = _null(asked, count, reason) if reason else _measured(batch, made, stage, asked, settings)
        found |= {f"{stage}.{name}": column for name, column in entries.items()}
    for n, status in enumerate(made.status):
        if status == "diverged":
            for column in found.values():
                column[n] = _entry(None, False, column[n]["reason"] or "diverged")
    return found


def _measured(batch: Batch, made: Made, stage: str, kinds: Mapping[str, str], settings: Settings) -> Entries:
    """The metrics of one stage; an edit's metrics of pairs hold it against the true edit, not against its source."""
    from unsample.metrics import Subject
    from unsample.metrics.pixels import eight_bit

    def measured(names: Iterable[str], subject: Subject) -> Entries:
        from unsample.metrics import measure

        scores = measure(list(names), subject, settings)
        columns = {name: zip(s.values, s.exact, s.reasons, strict=True) for name, s in scores.items()}
        return {name: [_entry(*entry) for entry in column] for name, column in columns.items()}

    if stage == "recovered":
        assert made.inversion is not None
        start = made.inversion.latents if made.true_noise is not None else None
        known: Any = {"true_noise": made.true_noise, "start": start, "played": made.played, "between": made.between}
        return measured(kinds, Subject(noise=made.inversion.noise, **known))
    images, source = eight_bit(made.pictures[stage]).float(), eight_bit(made.source).float()
    if stage != "edit":
        return measured(kinds, Subject(images=images, reference=source))
    truth = None if made.truth is None else eight_bit(made.truth).float()
    pairs = [name for name, kind in kinds.items() if kind == "pair"]
    others = [name for name in kinds if name not in pairs]
    subject = Subject(
        images=images,
        reference=source,
        truth=truth,
        mask=_masks(batch),
        prompts=[item.prompt or "" for item in batch.items],
        target_prompts=[item.target_prompt or "" for item in batch.items],
        targets=batch.all("target"),
        changed=batch.all("changed"),
    )
    if truth is None:
        return measured(others, subject) | _null(pairs, len(images), UNKNOWN)
    return measured(others, subject) | measured(pairs, Subject(images=images, reference=truth))


def _null(names: Iterable[str], count: int, reason: str) -> Entries:
    return {name: [_entry(None, False, reason)] * count for name in names}


def _entry(value: float | None, exact: bool, reason: str | None) -> dict[str, Any]:
    return {"value": value, "exact": exact, "reason": reason}


def _masks(batch: Batch) -> Tensor | None:
    """(B, 1, H, W): fitted as the pictures were, then cut at one half."""
    import torch
    from PIL import Image

    from unsample.media.masks import mask_of_array

    masks = batch.all("mask")
    if masks is None:
        return None
    size = (batch.model.picture_size[1], batch.model.picture_size[0])
    if all(tuple(m.shape[-2:]) == size for m in masks):
        return torch.stack(masks)
    grey = [Image.fromarray(mask_of_array(m[0]).where).convert("RGB") for m in masks]
    return (fitted(batch, grey)[:, :1] >= 0.5).float()
