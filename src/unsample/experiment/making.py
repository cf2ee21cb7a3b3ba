"""What a method makes of pictures: invert, reconstruct from the record and from the noise alone, edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.datasets.rendered import SAVED
from unsample.edits import Editor
from unsample.errors import Diverged, Incompatible
from unsample.experiment.findings import Findings, every, fitted, item_seeds, masks_of, saved_of, seeded, seen, texts_of
from unsample.experiment.saving import damaged
from unsample.experiment.setup import GIVEN, NO_MASK, PASTED, STAGES, Setup
from unsample.experiment.shared import Shared, key_of, unshared, whose

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.item import Item
    from unsample.methods import Method
    from unsample.verbs.results import Images, Inversion


def make(model: Any, items: Sequence[Item], setup: Setup, shared: Shared | None, progress: bool | None) -> Findings:
    """Everything that metrics look at; `values` are left empty."""
    sampled, saved = None, saved_of(items)
    if saved is not None:
        source = seen(saved)
    elif items[0].image is None:
        sampled = _sampled(model, items, setup, progress)
        source = sampled.images.cpu()
        if items[0].saved is not None:
            source = damaged(source, SAVED[items[0].saved])
    else:
        source = fitted(model, [item.image for item in items], setup.fit)
    found = Findings(model, items, setup, source, shared, progress, status=["ok"] * len(items))
    if sampled is not None:
        found.true_noise, found.start, found.sampled = sampled.noise, sampled.latents, sampled
    truths = every(items, "truth") if setup.edit else None
    found.truth = None if truths is None else fitted(model, truths, setup.fit)
    if isinstance(setup.method, str):
        _baseline(found)
        return found
    try:
        found.inversion = saved or _inverted(found, setup.method, sampled)
    except Diverged as error:
        found.status, found.nonfinite_at = ["diverged"] * len(items), error.nonfinite_at
        found.failures = dict.fromkeys(STAGES, error)
        return found
    found.status, found.nonfinite_at = list(found.inversion.status), found.inversion.nonfinite_at
    found.noise = found.inversion.noise
    _play(found, found.inversion, setup.method)
    return found


def _generators(found: Findings) -> Any:
    """What `unsample.invert` and `sample` take."""
    setup = found.setup
    if setup.seeding == "picture":
        return setup.seed
    return seeded(item_seeds(setup.seed, [item.digest() for item in found.items]))


def _sampled(model: Any, items: Sequence[Item], setup: Setup, progress: bool | None) -> Images:
    """The pictures of a data set that the model makes itself, each from its item's seed."""
    import unsample

    keep = setup.keep_trajectory or (not isinstance(setup.method, str) and setup.method.needs_trajectory)
    return unsample.sample(
        model,
        texts_of(model, items),
        num_inference_steps=setup.steps,
        guidance_scale=1.0 if setup.guidance is None else setup.guidance,
        guidance_schedule=setup.guidance_schedule,
        generator=seeded(every(items, "seed") or []),
        keep_trajectory=keep,
        progress=progress,
    )


def _inverted(found: Findings, method: Method, sampled: Images | None) -> Inversion:
    import unsample

    setup, items = found.setup, found.items
    given: dict[str, Any] = {"images": found.source}
    if sampled is not None and items[0].saved is None:
        given = {"latents": sampled.latents, "trajectory": sampled.trajectory}
    elif hasattr(items[0].image, "pixels"):  # opened files: the record says what they were
        given = {"images": [item.image for item in items]}
    if setup.negative_prompt is not None:
        given["negative_prompt"] = [setup.negative_prompt] * len(items)
    given |= {"prompt": found.prompts(), "num_inference_steps": setup.steps, "strength": setup.strength}
    given |= {"guidance_scale": setup.inversion_guidance, "fit": setup.fit, "clip": setup.clip}
    given |= {"first_step_radius": setup.first_step_radius}
    for name in ("class_labels", "negative_class_labels"):
        if (label := getattr(setup, name)) is not None:
            given[name] = [label] * len(items)

    def invert() -> Inversion:
        return unsample.invert(
            found.model,
            method=method,
            sampling_guidance_scale=setup.guidance,
            guidance_schedule=setup.guidance_schedule,
            generator=_generators(found),
            keep_trajectory=setup.keep_trajectory,
            progress=found.progress,
            **given,
        )

    if found.shared is None or setup.guidance is None or callable(setup.guidance_schedule):
        return invert()
    # What is fitted may be fitted under the guidance of sampling; without a prompt some guidance is refused.
    apart = method.fit is None and not method.guidance_bound and (found.model.takes_prompt or setup.guidance == 1)
    guided = setup.guidance != 1 if apart else (setup.guidance, setup.guidance_schedule)  # a failure is told of halves
    asked = [
        *whose(found.model),
        found.model.id,
        setup.keep_trajectory,
        method,
        setup.seed,
        setup.seeding,
        [item.digest() for item in items],
    ]
    asked += [given[name] for name in given if name != "images"]  # which are the items'
    asked += [[item.id for item in items]] if isinstance(given.get("images"), list) else []
    inversion = found.shared.once(key_of("invert", guided, *asked, *given), invert)
    return _sampled_under(found, inversion, setup.guidance) if apart else inversion


def _sampled_under(found: Findings, inversion: Inversion, guidance: float) -> Inversion:
    """An inversion that does not depend on the guidance of sampling, as it would have been made under another."""
    from unsample.models.guidance import guidance_scales, schedule_name
    from unsample.verbs.playing import grid_of

    schedule = found.setup.guidance_schedule
    scales = guidance_scales(guidance, schedule, grid_of(inversion, found.model))
    about: dict[str, Any] = {"sampling_guidance_scale": float(guidance), "guidance_schedule": schedule_name(schedule)}
    return replace(inversion, meta=inversion.meta.model_copy(update=about | {"sampling_scales": list(scales)}))


def _play(found: Findings, inversion: Inversion, method: Method) -> None:
    """Reconstruct from the noise alone and from the record; edit."""
    import unsample
    from unsample.verbs.playing import edit_guidance

    model, setup = found.model, found.setup

    def played(stage: str, call: Callable[[], Images]) -> None:
        try:
            found.made[stage] = call()
        except (Diverged, Incompatible) as error:
            found.failures[stage] = error

    known = found.true_noise is not None
    wanted = {"noise": setup.asks("noise", "e_recon", known), "record": setup.asks("record", "e_recon_record", known)}
    stop, steps = inversion.meta["stop_index"], inversion.meta["num_inference_steps"]
    if stop < steps and not setup.play_noised:  # its point still holds the picture, and would win every comparison
        found.failures["noise"] = f"the method stops at step {stop} of {steps}: it recovers a noised picture, not noise"
    else:
        if wanted["noise"] or (method.stepwise and wanted["record"]):
            played("noise", lambda: unsample.reconstruct(model, inversion, use="noise", progress=found.progress))
        _halfway(found)
    if method.stepwise and "noise" in found.made:  # then the record is the noise, and both ways are one
        found.made["record"] = found.made["noise"]
    elif wanted["record"]:
        played("record", lambda: unsample.reconstruct(model, inversion, progress=found.progress))
    if setup.edit:
        targets = every(found.items, "target_prompt")
        if targets is None:
            found.failures["edit"] = "the data set has no target prompt for every picture of the batch"
        else:
            asked = setup.edit_guidance
            if isinstance(setup.editor, Editor):  # else it is chosen with the editor
                own = None if method.edits_as_fitted else setup.editor.edit_guidance_scale
                asked = edit_guidance(found.model, inversion, own if asked is None else asked)
            found.edit_guidance = asked
            played("edit", lambda: _edited(found, inversion, targets, asked))
            if "edit" in found.made:
                found.edit_guidance = found.made["edit"].meta["guidance_scale"]
    found.pictures = {stage: made.images.cpu() for stage, made in found.made.items() if stage in setup.stages}


def _edited(found: Findings, inversion: Inversion, targets: list[str], guidance: float | None) -> Images:
    import unsample

    setup, model = found.setup, found.model
    given: dict[str, Any] = {"editor": setup.editor, "guidance_scale": guidance, "progress": found.progress}
    kind, pasted, _ = setup.mask.partition(PASTED)
    given["paste"] = bool(pasted)
    if kind == GIVEN:
        if (masks := masks_of(model, found.items, setup.fit)) is None:
            raise Incompatible("the data set has no mask for every picture of the batch")
        given["mask"] = masks
    elif kind != NO_MASK:
        given["mask"] = kind
    if setup.looks_inside:
        model = unshared(model)
    return unsample.edit(model, inversion, targets, **given)


def _halfway(found: Findings) -> None:
    """Sample from halfway between the true noise and the estimate, where `e_interp` asks for it."""
    from unsample.numbers.slerp import slerp

    setup, noise = found.setup, found.noise
    asked = any(name.partition("[")[0] == "e_interp" for name in setup.metrics)
    if found.true_noise is None or noise is None or not asked or "recovered" not in setup.stages:
        return
    try:
        found.between = _sample(found, slerp(found.true_noise.to(noise), noise, 0.5)).latents
    except Diverged:
        return


def _sample(found: Findings, noise: Tensor) -> Images:
    """Plain sampling of the source prompts."""
    import unsample

    scale = 1.0 if found.setup.guidance is None else found.setup.guidance
    given: dict[str, Any] = {"noise": noise, "guidance_scale": scale, "num_inference_steps": found.setup.steps}
    given |= {"guidance_schedule": found.setup.guidance_schedule}
    return unsample.sample(found.model, found.prompts(), progress=found.progress, **given)


def _baseline(found: Findings) -> None:
    """What methods are read against; nothing is inverted."""
    import torch

    import unsample
    from unsample.metrics.pixels import encoded_alone

    setup, model, name = found.setup, found.model, found.setup.method
    if name == "zero":
        if found.true_noise is None:
            found.failures["recovered"] = "the pictures were not made by the model, so their noise is not known"
            return
        if "recovered" not in setup.stages:
            return
        found.noise = torch.zeros_like(found.true_noise)
        try:
            found.made["noise"] = _sample(found, found.noise)
        except Diverged as error:
            found.failures["noise"] = error
        _halfway(found)
    elif name == "identity":
        found.pictures["edit"] = found.source
    elif name == "fresh":
        if not model.takes_prompt:
            found.failures["edit"] = f"{model.id} takes no prompt"
            return
        scale = setup.guidance if setup.edit_guidance is None else setup.edit_guidance
        found.edit_guidance = 5.0 if scale is None else scale
        given: dict[str, Any] = {"guidance_scale": found.edit_guidance, "num_inference_steps": setup.steps}
        given |= {"generator": _generators(found), "progress": found.progress}
        given |= {"guidance_schedule": setup.guidance_schedule}
        found.pictures["edit"] = unsample.sample(model, found.prompts("target_prompt"), **given).images.cpu()
    else:
        through = found.source if name == "vae(source)" else found.truth
        if through is None:
            found.failures["edit"] = "the true edit is not known"
        else:
            found.pictures["edit"] = encoded_alone(model, through).float()
