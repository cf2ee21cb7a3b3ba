"""Pictures and prompts that a drawn-scenes model does not know: refused before it is loaded, or warned of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from unsample.cli import talk
from unsample.cli.jobs import InvertJob
from unsample.cli.places import Recorded
from unsample.models.domain import drawn, reasons_of_picture, reasons_of_prompts, refusal, spoken
from unsample.preflight.known import KnownModel

if TYPE_CHECKING:
    from unsample.media.pictures import Fit

Found = list[tuple[KnownModel, str, str]]  # model, what, why


def of_jobs(jobs: Sequence[InvertJob], fit: Fit, more_prompts: Sequence[str | None] = ()) -> Found:
    """Each picture with its prompts, and with prompts that are not the job's own."""
    found: Found = []
    for job in jobs:
        name = job.model.name
        if drawn(name):
            picture = job.source.open()
            reasons = reasons_of_picture(name, picture.pixels, fit, picture.metadata)
            reasons += reasons_of_prompts(name, (job.prompt, job.negative_prompt, *more_prompts))
            found += [(job.model, job.source.path, reason) for reason in reasons]
    return found


def of_prompts(model: KnownModel, prompts: Iterable[str | None], what: str = "the prompt") -> Found:
    """Words alone."""
    return [(model, what, reason) for reason in reasons_of_prompts(model.name, prompts)]


def of_inversion(model: KnownModel, recorded: Recorded, more_prompts: Sequence[str | None] = ()) -> Found:
    """What a saved inversion records of itself, its prompts, and others that are given with it."""
    kept = [reason for reasons in recorded.meta.get("out_of_domain") or [] for reason in reasons]
    prompts = [*recorded.meta["prompt"], *recorded.meta["negative_prompt"], *more_prompts]
    reasons = dict.fromkeys([*kept, *reasons_of_prompts(model.name, prompts)])
    return [(model, recorded.path, reason) for reason in reasons] if drawn(model.name) else []


def check(found: Found, force: bool) -> None:
    """Refuse what was found, all of the first model's at once; with `force` warn of it.

    Raises:
        OutOfDomain: something was found.
    """
    for model in dict.fromkeys(model for model, _, _ in found):
        own = list(dict.fromkeys((what, why) for known, what, why in found if known == model))
        if not force:
            raise refusal(model.name, own)
        talk.warn(f"{spoken(model.name, own)}; it goes on because of --force")
