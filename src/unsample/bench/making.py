"""What a batch's method makes of its pictures: invert, play back from the record and from the noise alone, edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unsample.bench.batch import STAGES, Batch, Made, fitted, seeded
from unsample.errors import Diverged, Incompatible

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.methods import Method
    from unsample.verbs.results import Images, Inversion


def make(batch: Batch) -> Made:
    """Everything the metrics look at."""
    import unsample

    plan, model, method, w = batch.plan, batch.model, batch.method, batch.task.guidance
    common: dict[str, Any] = {"num_inference_steps": plan.steps, "progress": False}
    status, sampled = ["ok"] * len(batch.items), None
    if batch.items[0].image is None:
        keep = method is not None and method.needs_trajectory
        given: dict[str, Any] = {"guidance_scale": w, "generator": seeded(batch.all("seed") or [])}
        sampled = unsample.sample(model, batch.prompts, keep_trajectory=keep, **given, **common)
        made = Made(sampled.images.cpu(), status, true_noise=sampled.noise)
    else:
        made = Made(fitted(batch, [item.image for item in batch.items]), status)
    truths = batch.all("truth") if plan.edit else None
    made.truth = None if truths is None else fitted(batch, truths)
    if method is None:
        _baseline(batch, made, common)
        return made
    given = {"method": method, "guidance_scale": batch.named.inversion_guidance, "sampling_guidance_scale": w}
    given |= {"prompt": batch.prompts, "generator": batch.generators}
    if sampled is None:
        given["images"] = made.source
    else:
        given |= {"latents": sampled.latents, "trajectory": sampled.trajectory}
    try:
        made.inversion = unsample.invert(model, **given, **common)
    except Diverged as error:
        made.status, made.nonfinite_at = ["diverged"] * len(batch.items), error.nonfinite_at
        made.reasons = dict.fromkeys(STAGES, str(error))
        return made
    made.status, made.nonfinite_at = list(made.inversion.status), made.inversion.nonfinite_at
    _play(batch, made, made.inversion, method)
    return made


def _play(batch: Batch, made: Made, inversion: Inversion, method: Method) -> None:
    """Reconstruct from the noise alone and from the record; edit."""
    import unsample

    model, w = batch.model, batch.task.guidance

    def played(stage: str, call: Callable[[], Images]) -> Images | None:
        try:
            found = call()
        except (Diverged, Incompatible) as error:
            made.reasons[stage] = str(error)
            return None
        made.pictures[stage] = found.images.cpu()
        return found

    stop, steps = inversion.meta["stop_index"], inversion.meta["num_inference_steps"]
    if stop < steps:  # its point still holds the picture, and would win every comparison of noises
        made.reasons["noise"] = f"the method stops at step {stop} of {steps}: it recovers a noised picture, not noise"
    else:
        alone = played("noise", lambda: unsample.reconstruct(model, inversion, use="noise", progress=False))
        made.played = None if alone is None else alone.latents
        made.between = _between(batch, made.true_noise, inversion.noise)
    if method.stepwise and "noise" in made.pictures:  # then the record is the noise, and both ways are one
        made.pictures["record"] = made.pictures["noise"]
    else:
        played("record", lambda: unsample.reconstruct(model, inversion, progress=False))
    if batch.plan.edit:
        targets = batch.all("target_prompt")
        if targets is None:
            made.reasons["edit"] = "the data set has no target prompt for every picture of the batch"
        else:
            played("edit", lambda: unsample.edit(model, inversion, targets, guidance_scale=w, progress=False))


def _between(batch: Batch, true_noise: Tensor | None, noise: Tensor) -> Tensor | None:
    """Latents sampled from halfway between the true noise and the recovered one, where `e_interp` asks for them."""
    import unsample
    from unsample.numbers.slerp import slerp

    if true_noise is None or not any(name.partition("[")[0] == "e_interp" for name in batch.plan.metrics):
        return None
    given: dict[str, Any] = {"noise": slerp(true_noise.to(noise), noise, 0.5), "guidance_scale": batch.task.guidance}
    given |= {"num_inference_steps": batch.plan.steps, "progress": False}
    try:
        return unsample.sample(batch.model, batch.prompts, **given).latents
    except Diverged:
        return None


def _baseline(batch: Batch, made: Made, common: dict[str, Any]) -> None:
    """What edits are read against: the source itself, the autoencoder's round trip, fresh noise with the target."""
    import unsample
    from unsample.metrics.pixels import encoded_alone

    model, name = batch.model, batch.named.name
    if name == "identity":
        made.pictures["edit"] = made.source
    elif name == "fresh":
        if not model.takes_prompt:
            made.reasons["edit"] = f"{model.id} takes no prompt"
            return
        targets = [item.target_prompt or "" for item in batch.items]
        given: dict[str, Any] = {"guidance_scale": batch.task.guidance, "generator": batch.generators}
        made.pictures["edit"] = unsample.sample(model, targets, **given, **common).images.cpu()
    else:
        through = made.source if name == "vae(source)" else made.truth
        if through is None:
            made.reasons["edit"] = "the true edit is not known"
        else:
            made.pictures["edit"] = encoded_alone(model, through).float()
