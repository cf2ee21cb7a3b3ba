"""The metrics of an experiment: which are asked of which stage, and what they are held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from unsample.experiment.findings import Entries, Findings, entry, every, masks_of, null
from unsample.experiment.setup import STAGES

if TYPE_CHECKING:
    from unsample.metrics import Settings, Subject

UNKNOWN = "the true edit is not known; see the masked metrics"


def score(found: Findings) -> Entries:
    """The entries of `stage.metric`."""
    from unsample.metrics import Settings
    from unsample.metrics.facts import resolve
    from unsample.metrics.table import METRICS

    setup, count, settings = found.setup, len(found.items), Settings(clip=found.setup.clip_model)
    kinds = {name: resolve(name, METRICS, settings).facts.kind for name in setup.metrics}
    values: Entries = {}
    for stage in setup.measured:
        asked = {name: kind for name, kind in kinds.items() if kind in STAGES[stage]}
        reason = found.reason(stage)
        entries = null(asked, count, reason) if reason else _measured(found, stage, asked, settings)
        values |= {f"{stage}.{name}": column for name, column in entries.items()}
    for n, status in enumerate(found.status):
        if status == "diverged":
            for column in values.values():
                column[n] = entry(None, False, column[n]["reason"] or "diverged")
    return values


def _measured(found: Findings, stage: str, kinds: Mapping[str, str], settings: Settings) -> Entries:
    """The metrics of one stage; an edit's metrics of pairs hold it against the true edit, not against its source."""
    from unsample.metrics import Subject
    from unsample.metrics.pixels import eight_bit

    def measured(names: Iterable[str], subject: Subject) -> Entries:
        from unsample.metrics import measure

        scores = measure(list(names), subject, settings)
        columns = {name: zip(s.values, s.exact, s.reasons, strict=True) for name, s in scores.items()}
        return {name: [entry(*each) for each in column] for name, column in columns.items()}

    if stage == "recovered":
        return measured(kinds, _recovered(found))
    images, source = eight_bit(found.pictures[stage]).float(), eight_bit(found.source).float()
    if stage != "edit":
        unrounded = [name for name, kind in kinds.items() if kind == "ceiling"]
        held = Subject(images=found.pictures[stage], ceiling=found.ceiling) if unrounded else Subject()
        rounded = [name for name in kinds if name not in unrounded]
        return measured(unrounded, held) | measured(rounded, Subject(images=images, reference=source))
    truth = None if found.truth is None else eight_bit(found.truth).float()
    pairs = [name for name, kind in kinds.items() if kind == "pair"]
    others = [name for name in kinds if name not in pairs]
    subject = Subject(
        images=images,
        reference=source,
        truth=truth,
        mask=masks_of(found.model, found.items, found.setup.fit),
        prompts=[item.prompt or "" for item in found.items],
        target_prompts=[item.target_prompt or "" for item in found.items],
        targets=every(found.items, "target"),
        changed=every(found.items, "changed"),
    )
    if truth is None:
        return measured(others, subject) | null(pairs, len(images), UNKNOWN)
    return measured(others, subject) | measured(pairs, Subject(images=images, reference=truth))


def _recovered(found: Findings) -> Subject:
    """The estimate of the noise, beside the true one where the model made the picture itself."""
    from unsample.metrics import Subject

    return Subject(
        noise=found.noise,
        true_noise=found.true_noise,
        start=found.start,
        played=found.latents("noise"),
        replayed=found.latents("record"),
        between=found.between,
    )
