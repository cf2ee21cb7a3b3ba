"""What is recorded of a call: the walk that was made, as the fields of `Provenance` and `SamplingProvenance`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from unsample.methods import Method
from unsample.models.base import Model
from unsample.models.guidance import Schedule
from unsample.numbers.walk import State
from unsample.verbs.inputs import GivenImages
from unsample.verbs.outcome import judged, residuals
from unsample.verbs.results import Images, Inversion
from unsample.verbs.running import Run

if TYPE_CHECKING:
    from torch import Tensor


def inversion_of(
    run: Run,
    method: Method,
    x0: Tensor,
    given: GivenImages | None,
    found: tuple[Tensor, State, list[str]],
    radius: Tensor | None,
    asked: dict[str, Any],
) -> Inversion:
    """What `invert` returns.

    Args:
        run: the walk up that was made.
        method: by which.
        x0: where it began.
        given: the pictures; None where latents were given.
        found: the noise, the last state, and what came of each picture.
        radius: (B,) of the first step, where it was asked for.
        asked: fields of `Provenance` that only the call knows.
    """
    from unsample.verbs.provenance import Provenance

    (noise, state, status), count, seconds = found, run.count, run.seconds()
    kept = {name: state[name] for name in method.keeps}
    latents = [(x0.shape[3], x0.shape[2])] * count
    of_pictures = {
        "source_sizes": [list(size) for size in (given.sizes if given else latents)],
        "names": given.names if given else [f"latents-{k}" for k in range(count)],
        "notes": given.notes if given else [""] * count,
        "source_sha256": given.sha256 if given else [None] * count,
    }
    stored = {
        "what": method.stores,
        "size_over_noise": _bytes(noise, *kept.values()) / _bytes(noise),
        "fitted_to_picture": method.fitted,
    }
    cost: dict[str, Any] = {"nfe": run.cost.nfe, "backward": run.cost.backward, "seconds": seconds}
    notes = method.notes(run.grid, run.stop, state) if method.notes else {}
    made = {"method": of_method(method), "residual": residuals(state), "stored": stored} | of_pictures | cost
    pixels = None if given is None else (given.images * 255).round().byte().permute(0, 2, 3, 1).cpu()
    labels, embeds = run.prompts.all_labels(count), run.prompts.all_embeds(count)
    return Inversion(
        noise=noise,
        state=kept,
        status=status,
        health=judged(run, method, x0, found, radius, exact=given is None),
        meta=Provenance.model_validate(of_run(run) | made | asked | notes),
        source=pixels,
        **cost,
        prompt_embeds=embeds.get("prompt_embeds"),
        negative_prompt_embeds=embeds.get("negative_prompt_embeds"),
        more={name: rows for name, rows in embeds.items() if "." in name},
        class_labels=run.condition.class_labels,
        negative_class_labels=labels.get("negative_class_labels"),
        latents=x0,
        trajectory=run.watch.kept(),
    )


def sampled(made: Images, run: Run, method: Method, asked: dict[str, Any]) -> Images:
    """Fresh pictures, with how they were made; `asked` are fields that only the call knows."""
    from unsample.verbs.provenance import SamplingProvenance

    meta = of_run(run) | {"verb": "sample", "method": of_method(method)} | asked
    return replace(made, meta=SamplingProvenance.model_validate(meta))


def played(made: Images, run: Run, inversion: Inversion, guidance: tuple[float, Schedule], use: str) -> Images:
    """An inversion that was played back, with how it and the pictures were made."""
    from unsample.verbs.provenance import SamplingProvenance

    new = of_conditions(run) | of_walk(run) | {"nfe": made.nfe, "backward": made.backward}
    new |= {"verb": run.asked.verb, "use": use, "guidance_scale": guidance[0], "guidance_schedule": guidance[1]}
    old = inversion.meta
    new |= {"inversion_guidance_scale": old.guidance_scale, "source_prompt": old.prompt}
    return replace(made, meta=SamplingProvenance.model_validate(old | new))


def interpolated(made: Images, run: Run, ends: Sequence[Inversion], num_frames: int, guidance_scale: float) -> Images:
    """Frames between two inversions, with how the first of them was made: all is the same but the pictures."""
    from unsample.verbs.provenance import SamplingProvenance, per_picture

    first = ends[0].meta
    own = {key: value for key, value in first.items() if key not in per_picture(type(first))}
    new = of_walk(run) | {"verb": "interpolate", "num_frames": num_frames, "guidance_scale": guidance_scale}
    new |= {f"{name}s": [getattr(end.meta, name) for end in ends] for name in ("prompt", "negative_prompt")}
    new |= {"inversion_guidance_scale": first.guidance_scale}
    return replace(made, meta=SamplingProvenance.model_validate(own | new))


def of_run(run: Run) -> dict[str, Any]:
    """What every walk of ours records."""
    from unsample.verbs.provenance import GridRecord

    steps = {"num_inference_steps": run.grid.num_steps, "stop_index": run.stop, "grid": GridRecord.of(run.grid)}
    return {"model": of_model(run.model), **steps, **of_conditions(run), "versions": versions(), **of_walk(run)}


def of_conditions(run: Run) -> dict[str, Any]:
    """What the pictures were conditioned on."""
    texts = {"prompt": run.prompts.texts(run.count), "negative_prompt": run.prompts.negatives(run.count)}
    return texts | {name: labels.tolist() for name, labels in run.prompts.all_labels(run.count).items()}


def of_walk(run: Run) -> dict[str, Any]:
    """What went wrong on the way."""
    places = [None if at is None else asdict(at) for at in run.watch.places(run.count)]
    return {"nonfinite_at": run.cost.nonfinite, "lost_at": places}


def of_method(method: Method) -> dict[str, Any]:
    """A method, as `get_method` takes it."""
    return {"name": method.name, "settings": dict(method.settings)}


def of_model(model: Model) -> dict[str, Any]:
    """A model, and what it is told apart from others by."""
    about = {"id": model.id, "family": model.family, "sha256": model.weights_sha256(), "dtype": str(model.dtype)}
    weights = getattr(model, "weights", None)  # which have just been hashed
    told = {"changes": weights.seen if weights is not None else [], "unread": list(getattr(model, "unread", ()))}
    return about | {name: value for name, value in told.items() if value}


def changes_of(model: Model) -> list[str]:
    """What changes a model's predictions beside its weights, in words."""
    weights = getattr(model, "weights", None)
    return weights.changes() if weights is not None else []


@cache
def versions() -> dict[str, str]:
    """Of the packages that a result depends on."""
    from importlib.metadata import version

    from unsample import __version__

    return {p: version(p) for p in ("torch", "diffusers", "transformers")} | {"unsample": __version__}


def _bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
