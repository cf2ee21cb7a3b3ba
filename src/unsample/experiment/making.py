"""What a method makes of pictures: invert, reconstruct from the record and from the noise alone, edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.errors import Diverged, Incompatible
from unsample.experiment.findings import Findings, every, fitted, item_seeds, seeded
from unsample.experiment.setup import STAGES, Setup

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.item import Item
    from unsample.methods import Method
    from unsample.verbs.results import Images, Inversion


def make(model: Any, items: Sequence[Item], setup: Setup, progress: bool | None) -> Findings:
    """Everything that metrics look at; `values` are left empty."""
    sampled = None
    if items[0].image is None:
        sampled = _sampled(model, items, setup, progress)
        source = sampled.images.cpu()
    else:
        source = fitted(model, [item.image for item in items], setup.fit)
    found = Findings(model, items, setup, source, status=["ok"] * len(items))
    if sampled is not None:
        found.true_noise, found.start = sampled.noise, sampled.latents
    truths = every(items, "truth") if setup.edit else None
    found.truth = None if truths is None else fitted(model, truths, setup.fit)
    if isinstance(setup.method, str):
        _baseline(found, progress)
        return found
    try:
        found.inversion = _inverted(found, setup.method, sampled, progress)
    except Diverged as error:
        found.status, found.nonfinite_at = ["diverged"] * len(items), error.nonfinite_at
        found.failures = dict.fromkeys(STAGES, error)
        return found
    found.status, found.nonfinite_at = list(found.inversion.status), found.inversion.nonfinite_at
    found.noise = found.inversion.noise
    _play(found, found.inversion, setup.method, progress)
    return found


def _prompts(found: Findings, name: str = "prompt") -> list[str] | None:
    return _texts(found.model, found.items, name)


def _texts(model: Any, items: Sequence[Item], name: str = "prompt") -> list[str] | None:
    """What the pictures show, or shall show; None for a model without text."""
    return [getattr(item, name) or "" for item in items] if model.takes_prompt else None


def _generators(found: Findings) -> Any:
    """What `unsample.invert` and `sample` take."""
    setup = found.setup
    if setup.seeding == "picture":
        return setup.seed
    return seeded(item_seeds(setup.seed, [item.digest() for item in found.items]))


def _sampled(model: Any, items: Sequence[Item], setup: Setup, progress: bool | None) -> Images:
    """The pictures of a data set that the model makes itself, each from its item's seed."""
    import unsample

    keep = not isinstance(setup.method, str) and setup.method.needs_trajectory
    return unsample.sample(
        model,
        _texts(model, items),
        num_inference_steps=setup.steps,
        guidance_scale=1.0 if setup.guidance is None else setup.guidance,
        generator=seeded(every(items, "seed") or []),
        keep_trajectory=keep,
        progress=progress,
    )


def _inverted(found: Findings, method: Method, sampled: Images | None, progress: bool | None) -> Inversion:
    import unsample

    setup, items = found.setup, found.items
    given: dict[str, Any] = {"images": found.source}
    if sampled is not None:
        given = {"latents": sampled.latents, "trajectory": sampled.trajectory}
    elif hasattr(items[0].image, "pixels"):  # opened files: the record says what they were
        given = {"images": [item.image for item in items]}
    if setup.negative_prompt is not None:
        given["negative_prompt"] = [setup.negative_prompt] * len(items)
    return unsample.invert(
        found.model,
        prompt=_prompts(found),
        method=method,
        num_inference_steps=setup.steps,
        guidance_scale=setup.inversion_guidance,
        sampling_guidance_scale=setup.guidance,
        strength=setup.strength,
        guidance_schedule=setup.guidance_schedule,
        generator=_generators(found),
        fit=setup.fit,
        progress=progress,
        **given,
    )


def _play(found: Findings, inversion: Inversion, method: Method, progress: bool | None) -> None:
    """Reconstruct from the noise alone and from the record; edit."""
    import unsample
    from unsample.verbs.playing import edit_guidance

    model, setup = found.model, found.setup

    def played(stage: str, call: Callable[[], Images]) -> None:
        try:
            found.made[stage] = call()
        except (Diverged, Incompatible) as error:
            found.failures[stage] = error
        else:
            found.pictures[stage] = found.made[stage].images.cpu()

    stop, steps = inversion.meta["stop_index"], inversion.meta["num_inference_steps"]
    if stop < steps and not setup.play_noised:  # its point still holds the picture, and would win every comparison
        found.failures["noise"] = f"the method stops at step {stop} of {steps}: it recovers a noised picture, not noise"
    else:
        played("noise", lambda: unsample.reconstruct(model, inversion, use="noise", progress=progress))
        _halfway(found, progress)
    if method.stepwise and "noise" in found.made:  # then the record is the noise, and both ways are one
        found.made["record"], found.pictures["record"] = found.made["noise"], found.pictures["noise"]
    else:
        played("record", lambda: unsample.reconstruct(model, inversion, progress=progress))
    if setup.edit:
        targets = every(found.items, "target_prompt")
        if targets is None:
            found.failures["edit"] = "the data set has no target prompt for every picture of the batch"
        else:
            scale = found.edit_guidance = edit_guidance(inversion, setup.edit_guidance)
            played("edit", lambda: unsample.edit(model, inversion, targets, guidance_scale=scale, progress=progress))


def _halfway(found: Findings, progress: bool | None) -> None:
    """Sample from halfway between the true noise and the estimate, where `e_interp` asks for it."""
    from unsample.numbers.slerp import slerp

    setup, noise = found.setup, found.noise
    asked = any(name.partition("[")[0] == "e_interp" for name in setup.metrics)
    if found.true_noise is None or noise is None or not asked:
        return
    try:
        found.between = _sample(found, slerp(found.true_noise.to(noise), noise, 0.5), progress).latents
    except Diverged:
        return


def _sample(found: Findings, noise: Tensor, progress: bool | None) -> Images:
    """Plain sampling of the source prompts."""
    import unsample

    scale = 1.0 if found.setup.guidance is None else found.setup.guidance
    given: dict[str, Any] = {"noise": noise, "guidance_scale": scale, "num_inference_steps": found.setup.steps}
    return unsample.sample(found.model, _prompts(found), progress=progress, **given)


def _baseline(found: Findings, progress: bool | None) -> None:
    """What methods are read against; nothing is inverted."""
    import torch

    import unsample
    from unsample.metrics.pixels import encoded_alone

    setup, model, name = found.setup, found.model, found.setup.method
    if name == "zero":
        if found.true_noise is None:
            found.failures["recovered"] = "the pictures were not made by the model, so their noise is not known"
            return
        found.noise = torch.zeros_like(found.true_noise)
        try:
            found.made["noise"] = _sample(found, found.noise, progress)
        except Diverged as error:
            found.failures["noise"] = error
        _halfway(found, progress)
    elif name == "identity":
        found.pictures["edit"] = found.source
    elif name == "fresh":
        if not model.takes_prompt:
            found.failures["edit"] = f"{model.id} takes no prompt"
            return
        scale = setup.guidance if setup.edit_guidance is None else setup.edit_guidance
        found.edit_guidance = 5.0 if scale is None else scale
        given: dict[str, Any] = {"guidance_scale": found.edit_guidance, "num_inference_steps": setup.steps}
        given |= {"generator": _generators(found), "progress": progress}
        found.pictures["edit"] = unsample.sample(model, _prompts(found, "target_prompt"), **given).images.cpu()
    else:
        through = found.source if name == "vae(source)" else found.truth
        if through is None:
            found.failures["edit"] = "the true edit is not known"
        else:
            found.pictures["edit"] = encoded_alone(model, through).float()
