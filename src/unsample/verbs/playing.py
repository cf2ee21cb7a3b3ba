"""Playing an inversion back, as it was made or under another condition: what `reconstruct` and `edit` share."""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsample.errors import BadInput, BadOption, Incompatible, UnsampleWarning
from unsample.methods import Method
from unsample.models.base import Model
from unsample.models.guidance import Predict, Schedule, check_guidance, guidance_scales, schedule_name
from unsample.models.pixel import UNKNOWN
from unsample.numbers.grid import FLOW, Grid, prediction_type_of
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.preflight import rules
from unsample.verbs.prompts import Prompts, of_embeds
from unsample.verbs.recording import changes_of, played
from unsample.verbs.results import Images, Inversion
from unsample.verbs.running import Run, Watching, quiet, state_dtype
from unsample.verbs.saved import check_whole
from unsample.wording import argument

NOTHING = hashlib.sha256().hexdigest()  # stood for a plain function's weights in earlier inversions


@dataclass(frozen=True)
class PlayGuidance:
    """The guidance of a playback: scale, schedule, and the scales that are recorded, where they hold."""

    scale: float
    schedule: Schedule
    recorded: tuple[float, ...] | None = None

    def at(self, grid: Grid) -> tuple[float, ...]:
        """The scale at every grid point."""
        return guidance_scales(self.scale, self.schedule, grid) if self.recorded is None else self.recorded


def play(
    model: Model,
    inversion: Inversion,
    prompts: Prompts,
    guidance: PlayGuidance,
    use: str,
    allow_other_model: bool,
    asked: Watching,
) -> Images:
    """Walk an inversion down; `asked.verb` tells an edit from a reconstruction."""
    check_model(model, inversion, allow_other_model)
    model = bound_to(model, inversion)
    method, grid, again = method_of(inversion), grid_of(inversion, model), asked.verb == "reconstruct"
    scales, inverted_at = guidance.at(grid), inversion.meta.guidance_scale
    check_bound(method, inversion, scales, use, asked.verb)
    if again and list(scales) != fitted_scales(inversion, scales) and method.drifts(inverted_at, scales):
        text = drift(method, inverted_at, scales)  # else it was said at inversion
        warnings.warn(UnsampleWarning("drift", text), stacklevel=3)
    x = inversion.noise.to(model.device, state_dtype(model, inversion.noise))
    with quiet(model):
        try:
            run = Run(model, grid, inversion.meta.stop_index, prompts, len(x), [scales], asked)
        except BadOption as error:
            if not again or isinstance(error, Incompatible):
                raise
            raise BadInput(f"what this inversion is conditioned on does not fit {model.id}: {error}") from error
        if use == "noise":
            made = run.sample(x, ddim_sample)
        else:
            check_state(method, inversion, run.predict)
            state = {name: value.to(model.device) for name, value in inversion.state.items()}
            if method.playback is not None:
                source = run.predict if again else _source(run.predict, inversion)
                run.predict = method.playback(run.predict, source)
            made = run.sample(x, method.sample_step if again or not method.edit_step else method.edit_step, state)
    warn_constant(made, inversion, asked.verb)
    return played(made, run, inversion, (guidance.scale, schedule_name(guidance.schedule)), use)


def _source(edit: Predict, inversion: Inversion) -> Predict:
    """What the inversion was conditioned on, under the guidance that it walked up; the edit counts its cost."""
    w = float(inversion.meta.guidance_scale)
    own, free = prompts_of(inversion).conditions(edit.model, len(inversion), w)
    return Predict(edit.model, edit.grid, own, free, w, len(inversion), edit.cost)


def opened(inversion: Inversion | str | os.PathLike[str]) -> Inversion:
    """An inversion, or the file that one was saved in."""
    if isinstance(inversion, Inversion):
        return check_whole(inversion)
    if isinstance(inversion, str | os.PathLike):
        return Inversion.load(Path(inversion))
    raise BadInput(f"an inversion, or the path of a saved one, is needed; got {type(inversion).__name__}")


def guidance_of(inversion: Inversion, guidance_scale: float | None, schedule: Schedule | None) -> PlayGuidance:
    """The guidance of a playback; what is not given is as recorded."""
    meta = inversion.meta
    recorded, kept = meta.sampling_guidance_scale, meta.guidance_schedule or "constant"
    w = check_guidance(recorded if guidance_scale is None else guidance_scale)
    same = w == recorded and schedule in (None, kept)
    if schedule is None and kept == "callable" and not same:
        raise Incompatible(
            "the inversion was made under a guidance_schedule that is a function, and those cannot be saved; give "
            "guidance_schedule again"
        )
    scales = tuple(meta.sampling_scales) if same and meta.sampling_scales is not None else None
    return PlayGuidance(w, kept if schedule is None else schedule, scales)


def edit_guidance(
    model: Model, inversion: Inversion, guidance_scale: float | None, negative_class_labels: Any = None
) -> float:
    """The guidance of an edit: what was given, else the method's own for edits, else 5.

    1 by a model without guidance, and under class labels where none was said to stand for no class, at inversion or
    now.
    """
    method = method_of(inversion)
    if guidance_scale is not None:
        return check_guidance(guidance_scale)
    if model.guidance == "none":
        return 1.0
    if inversion.class_labels is not None and inversion.negative_class_labels is None and negative_class_labels is None:
        return 1.0
    if method.edits_as_fitted:
        return float(inversion.meta.sampling_guidance_scale)
    return 5.0 if method.edit_guidance_scale is None else method.edit_guidance_scale


def check_bound(method: Method, inversion: Inversion, scales: tuple[float, ...], use: str, verb: str) -> None:
    """A record that was fitted under one guidance is played back under that guidance, or refused."""
    bound = method.edits_as_fitted if verb == "edit" else method.guidance_bound
    meta = inversion.meta
    if use == "record" and bound and list(scales) != fitted_scales(inversion, scales):
        raise Incompatible(
            f"{method.name}'s record was fitted under guidance {meta.sampling_guidance_scale:g} "
            f"({meta.guidance_schedule or 'constant'}) and holds under no other; leave guidance_scale and "
            "guidance_schedule out, or invert again with that sampling_guidance_scale"
        )


def fitted_scales(inversion: Inversion, scales: tuple[float, ...]) -> list[float]:
    """The sampling guidance that the inversion was made for, a scale a grid point."""
    meta = inversion.meta
    return [meta.sampling_guidance_scale] * len(scales) if meta.sampling_scales is None else meta.sampling_scales


def drift(method: Method, inverted_at: float, scales: tuple[float, ...]) -> str:
    """What is said where a reconstruction cannot but drift (`Method.drifts`)."""
    told = f"(inverting {inverted_at:g}, sampling up to {max(scales):g}): expect the reconstruction to drift; "
    if method.handles_guidance:
        return (
            f"{method.name} accounts for guidance only if it is the same both ways {told}invert at that guidance, or "
            "by a method that fits the difference, such as null_text"
        )
    return (
        f"{method.name} does not account for guidance above 1 {told}null_text does, and so do fixed_point and edict "
        "that are inverted at the guidance of sampling"
    )


def check_state(method: Method, inversion: Inversion, predict: Predict) -> None:
    """A record that lacks what its method plays back, or holds embeddings of another shape, is corrupt.

    Embeddings stand for those of a half of `predict`, by its name; prompts of other lengths make other shapes of it.
    """
    missing = [name for name in method.keeps if name not in inversion.state]
    if missing:
        raise BadInput(
            f"{method.name} plays back {', '.join(method.keeps)}, and this inversion holds no {', '.join(missing)}: it "
            "is corrupt; invert the picture again, or play the noise alone (use='noise')"
        )
    for name in (n for n, kept in method.keeps.items() if kept.embedding):
        half = getattr(predict, name, None) or predict.condition
        given = None if half.prompt_embeds is None else tuple(half.prompt_embeds.shape[1:])
        if given is not None and tuple(inversion.state[name].shape[2:]) != given:
            raise BadInput(
                f"{method.name} plays back embeddings of {tuple(inversion.state[name].shape[2:])} ({name}), and those "
                f"of this prompt and model are {given}; use the model and embeddings that inverted"
            )


def method_of(inversion: Inversion) -> Method:
    return rules.recorded_method(inversion.meta["method"])


def warn_constant(made: Images, inversion: Inversion, verb: str) -> None:
    """A constant picture made of one that is not constant is said, never passed in silence."""
    if inversion.source is None:
        return
    flat = made.images.flatten(1).std(1) < 1 / 255
    varied = inversion.source.float().flatten(1).std(1) >= 1
    if found := (flat.cpu() & varied).nonzero().flatten().tolist():
        warning = UnsampleWarning(
            "constant",
            lambda name: f"{verb}: {', '.join(map(name, found))} came out constant although its source is not",
            found,
        )
        warnings.warn(warning, stacklevel=4)


def prompts_of(inversion: Inversion) -> Prompts:
    """What the inversion was conditioned on."""

    def text(values: list[str | None] | None) -> list[str] | None:
        return None if not values or all(v is None for v in values) else [v or "" for v in values]

    return Prompts(
        text(inversion.meta.prompt),
        text(inversion.meta.negative_prompt),
        of_embeds("prompt_embeds", inversion.prompt_embeds, inversion.more),
        of_embeds("negative_prompt_embeds", inversion.negative_prompt_embeds, inversion.more),
        inversion.class_labels,
        inversion.negative_class_labels,
    )


def with_negatives(prompts: Prompts, inversion: Inversion) -> Prompts:
    """The prompts of an edit; what it says nothing of is negative as it was at inversion."""
    kept = prompts_of(inversion)
    if prompts.negative_class_labels is None and prompts.class_labels is not None:
        prompts = replace(prompts, negative_class_labels=kept.negative_class_labels)
    if prompts.negative_prompt is not None or prompts.negative_prompt_embeds is not None:
        return prompts
    return replace(prompts, negative_prompt=kept.negative_prompt, negative_prompt_embeds=kept.negative_prompt_embeds)


def bound_to(model: Model, inversion: Inversion) -> Model:
    """The model for samples and steps as those of an inversion."""
    return model.at(tuple(inversion.noise.shape[1:]), inversion.meta.num_inference_steps)


def grid_of(inversion: Inversion, model: Model) -> Grid:
    """The very grid of the inversion; what the network's output means is the model's own affair."""
    stored, trained = inversion.meta.grid, int(model.scheduler.config.num_train_timesteps)
    last, highest = stored.timesteps[-1], trained if stored.prediction_type == FLOW else trained - 1
    if last > highest:
        raise BadInput(f"the inversion's noisiest timestep is {last}, and {model.id} was trained on 0 to {highest}")
    return stored.grid(prediction_type_of(model.scheduler))


def check_model(model: Model, inversion: Inversion, allow_other_model: bool) -> None:
    """Whether a model is the one that inverted.

    Raises:
        BadInput: it is another, where that is not allowed, or of another kind of grid.
    """
    made_by, was = inversion.meta.model, inversion.meta.grid.prediction_type
    means = prediction_type_of(model.scheduler)
    if was != means and (not allow_other_model or FLOW in (was, means)):
        way = "" if FLOW in (was, means) else f", or {argument('allow_other_model')}"
        raise BadInput(
            f"this inversion was made by a model that predicts {was}, and {model.id} predicts {means}; use that "
            f"model{way}"
        )
    sha256, unread = model.weights_sha256(), [*getattr(model, "unread", ()), *(made_by.unread or ())]
    unknown = sha256 == UNKNOWN or made_by.sha256 in (UNKNOWN, NOTHING)
    if allow_other_model or unknown or sha256 == made_by.sha256:
        if tuple(inversion.noise.shape[1:2]) != tuple(model.sample_shape[:1]):
            raise BadInput(f"the inversion has {inversion.noise.shape[1]} channels, {model.id} {model.sample_shape[0]}")
        if not allow_other_model and (unknown or unread):
            what = ", ".join(dict.fromkeys(unread)) or made_by.id
            text = (
                f"whether {model.id} is the network that inverted is not known: {what} cannot be read; give both "
                "unsample.wrap(..., id='a name of yours') to have it compared"
            )
            warnings.warn(UnsampleWarning("model", text), stacklevel=4)
        return
    this = f"{made_by.id} (weights {made_by.sha256[:12]}{_with(made_by.changes)})"
    raise rules.other_model(this, f"{model.id} (weights {sha256[:12]}{_with(changes_of(model))})")


def _with(changes: list[str] | None) -> str:
    return f", with {', '.join(changes)}" if changes else ""
