"""Which pictures are done already, so that `unsample invert` goes on where the same command was killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.cli import places, talk
from unsample.cli.checks import Walk
from unsample.cli.jobs import InvertJob
from unsample.errors import BadInput

if TYPE_CHECKING:
    from unsample.cli.session import Figures
    from unsample.models.base import Model


@dataclass(frozen=True)
class Found:
    """What stands where a command would write, by the index of the job."""

    whole: frozenset[int] = frozenset()  # an inversion and its picture, of the same source and settings
    half: frozenset[int] = frozenset()  # such an inversion whose picture was not written any more: made again


def find(jobs: Sequence[InvertJob], walk: Walk) -> Found:
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
    return Found(whole, frozenset(job.index for job in there) - whole)


def _difference(job: InvertJob, walk: Walk) -> str | None:
    """Why a file is not what the command would make, as far as it is known before the model is loaded."""
    try:
        recorded = places.open_one_inversion(str(job.inversion))
        picture = places.open_pictures([str(job.picture)])[0] if job.picture.exists() else None
    except BadInput as error:
        return str(error)
    meta = recorded.meta
    if picture is not None and picture.metadata.get("model_sha256") != meta["model"]["sha256"]:
        return f"{job.picture} is not the picture of that inversion"
    asked, found = _asked(job, walk), _recorded(meta)
    for name, value in asked.items():
        if found[name] != value:
            return "its source is another picture" if name == "source" else f"{name} {found[name]!r}, not {value!r}"
    return None


def _asked(job: InvertJob, walk: Walk) -> dict[str, Any]:
    guided = job.model.takes_prompt is not False or walk.labels.negative is not None
    classes = {name: None if v is None else v[0] for name, v in walk.labels.taken([job.index]).items()}
    inverted_at = walk.method.inverts_at(walk.guidance_scale, guided)
    own = walk.method.sampling_guidance_scale if guided else None
    sampling = inverted_at if own is None else own
    return {
        "source": job.source.open().sha256,
        "method": walk.method.name,
        "settings": json.loads(json.dumps(walk.method.settings)),
        "steps": walk.steps,
        "guidance scale": inverted_at,
        "sampling guidance scale": sampling if walk.sampling_guidance_scale is None else walk.sampling_guidance_scale,
        "guidance schedule": walk.guidance_schedule,
        "strength": walk.strength,
        "seed": walk.seed,
        "fit": walk.fit,
        "clip": walk.clip,
        "prompt": (job.prompt if guided else None) or "",
        "negative prompt": (job.negative_prompt if guided else None) or "",
        "class": classes["class_labels"],
        "negative class": classes["negative_class_labels"],
    }


def _recorded(meta: dict[str, Any]) -> dict[str, Any]:
    def own(name: str) -> Any:
        return (meta.get(name) or [None])[0]

    return {
        "source": own("source_sha256"),
        "method": meta["method"]["name"],
        "settings": meta["method"]["settings"],
        "steps": meta["num_inference_steps"],
        "guidance scale": meta["guidance_scale"],
        "sampling guidance scale": meta["sampling_guidance_scale"],
        "guidance schedule": meta.get("guidance_schedule"),
        "strength": meta.get("strength"),
        "seed": own("seeds"),
        "fit": meta.get("fit"),
        "clip": meta["grid"]["meta"].get("clip"),
        "prompt": own("prompt") or "",
        "negative prompt": own("negative_prompt") or "",
        "class": own("class_labels"),
        "negative class": own("negative_class_labels"),
    }


# ---------------------------------------------------------------- with torch


def check_model(model: Model, jobs: Sequence[InvertJob], found: Found) -> None:
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


def skipped(model: Model, job: InvertJob) -> tuple[dict[str, Any], Figures]:
    """The row of a picture that was done before, measured from its files."""
    import numpy as np
    import torch

    from unsample.cli import record, session
    from unsample.media.pictures import open_picture
    from unsample.verbs.results import Inversion

    inversion = Inversion.load(job.inversion)
    pixels = torch.from_numpy(np.array(open_picture(job.picture).pixels))
    figures = session.measured(model, inversion, pixels.permute(2, 0, 1)[None].float() / 255)
    talk.say(f"{job.source.path}: done before, {figures.spoken()} -> {job.inversion}")
    return record.inverted(job.source.path, job.inversion, job.picture, inversion, figures, skipped=True), figures
