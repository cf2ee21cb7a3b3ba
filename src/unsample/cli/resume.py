"""Which pictures are done already, so that `unsample invert` goes on where the same command was killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.cli import places, record, session, talk
from unsample.cli.jobs import InvertJob
from unsample.errors import BadInput
from unsample.preflight.walk import Walk, recorded

if TYPE_CHECKING:
    from unsample.models.base import Model
    from unsample.verbs.fidelity import Fidelity


@dataclass(frozen=True)
class FoundFiles:
    """What stands where a command would write, by the index of the job."""

    whole: frozenset[int] = frozenset()  # an inversion and its picture, of the same source and settings
    half: frozenset[int] = frozenset()  # such an inversion whose picture was not written any more: made again


def find(jobs: Sequence[InvertJob], walk: Walk) -> FoundFiles:
    """What the same command wrote before.

    Raises:
        BadInput: an inversion there is of another source or of other settings.
    """
    there = [job for job in jobs if job.inversion.exists()]
    others = [(job, reason) for job in there if (reason := _difference(job, walk))]
    if others:
        job, reason = others[0]
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise BadInput(
            f"{job.inversion}{more} exists already and is not of this command: {reason}; give --overwrite, or another "
            "--output"
        )
    whole = frozenset(job.index for job in there if job.picture.exists())
    return FoundFiles(whole, frozenset(job.index for job in there) - whole)


def _difference(job: InvertJob, walk: Walk) -> str | None:
    """Why a file is not what the command would make, as far as it is known before the model is loaded."""
    try:
        meta = places.open_one_inversion(str(job.inversion)).meta
        picture = places.open_pictures([str(job.picture)])[0] if job.picture.exists() else None
    except BadInput as error:
        return str(error)
    if picture is not None and picture.metadata.get("model_sha256") != meta["model"]["sha256"]:
        return f"{job.picture} is not the picture of that inversion"
    guidable = job.model.takes_prompt is not False or walk.labels.negative is not None
    asked = {"source": job.source.open().sha256, **walk.recorded(guidable, job.index)}
    asked |= {"prompt": job.prompt, "negative_prompt": job.negative_prompt} if guidable else {}
    found = recorded(meta)
    for name in found:
        here, there = asked.get(name), found[name]
        if (here or None) != (there or None) if "prompt" in name else here != there:
            said = name.replace("_", " ")
            return "its source is another picture" if name == "source" else f"{said} {there!r}, not {here!r}"
    return None


# ---------------------------------------------------------------- with torch


def check_model(model: Model, jobs: Sequence[InvertJob], found: FoundFiles) -> None:
    """Refuse what another model wrote, before the first picture is inverted.

    Raises:
        BadInput: other weights, or another dtype.
    """
    for job in jobs:
        if job.index not in found.whole | found.half:
            continue
        recorded = places.open_one_inversion(str(job.inversion)).meta["model"]
        asked = {"sha256": model.weights_sha256(), "dtype": None if model.dtype is None else str(model.dtype)}
        if any(recorded.get(name) not in (value, f"torch.{value}") for name, value in asked.items()):
            raise BadInput(
                f"{job.inversion} exists already, by other weights or in another dtype than {model.id} has now; give "
                "--overwrite, or another --output"
            )


def skipped(model: Model, job: InvertJob) -> tuple[InvertJob, dict[str, Any], Fidelity]:
    """The row of a picture that was done before, measured from its files."""
    import numpy as np
    import torch

    from unsample.media.pictures import open_picture
    from unsample.verbs.results import Inversion

    inversion = Inversion.load(job.inversion)
    pixels = torch.from_numpy(np.array(open_picture(job.picture).pixels))
    figures = session.measured(model, inversion, pixels.permute(2, 0, 1)[None].float() / 255)
    talk.say(f"{job.source.path}: done before, {figures.spoken()} -> {job.inversion}")
    row = record.inverted(job.source.path, job.inversion, job.picture, inversion, figures, skipped=True)
    return job, row, figures
