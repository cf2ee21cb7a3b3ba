"""An inversion for a pipeline of diffusers: latents, scheduler, and the arguments of the call that plays it back.

The call makes what `unsample.reconstruct` makes, and with another prompt what plain `unsample.edit` makes, where the
record is the noise alone and its sampler is DDIM's (of a flow Euler's) step.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.numbers import levels
from unsample.numbers.as_scheduler import GridScheduler
from unsample.numbers.grid import Grid
from unsample.numbers.solvers.ddim import ddim_sample

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.verbs.results import Inversion

LOOP = """\
x = there.latents
there.scheduler.set_timesteps(len(there.scheduler.timesteps))
with torch.no_grad():
    for t in there.scheduler.timesteps:
        x = there.scheduler.step(pipe.unet(x, t).sample, t, x).prev_sample
images = x / 2 + 0.5"""
CALL = """\
pipe.scheduler = there.scheduler
images = pipe(latents=there.latents, **there.arguments).images"""
NEAR = 1e-4  # of the tables of schedulers, which are float32


@dataclass(frozen=True)
class Continuation:
    """What a pipeline is given.

    `latents` as its call takes them (its own packing, scale and dtype); `scheduler` to be put into it; `arguments` of
    the call beside `latents`; `code` the lines that do it, `there` being this and `pipe` the pipeline.
    """

    latents: Tensor
    scheduler: Any
    arguments: dict[str, Any] = field(default_factory=dict)
    code: str = CALL


def continuation(inversion: Inversion, model: Any = None, scheduler: Any = None) -> Continuation:
    """See `Inversion.to_diffusers`."""
    from unsample.verbs.playing import check_model, grid_of, method_of, opened

    inversion = opened(inversion)
    meta, method = inversion.meta, method_of(inversion)
    family = meta.model.family
    if method.keeps or method.playback is not None or method.sample_step is not ddim_sample:
        more = f"keeps {', '.join(method.keeps)} beside the noise" if method.keeps else "plays back by steps of its own"
        raise Incompatible(
            f"{method.name} {more}, which no pipeline of diffusers takes: unsample.reconstruct plays it back; the "
            "noise alone, which leads to another picture, is .noise"
        )
    if family not in ("latent", "pixel", "pipeline"):
        raise Incompatible(
            f"{meta.model.id} ({family}) is no pipeline of diffusers; unsample.reconstruct plays it back"
        )
    if family == "pipeline" and model is None:
        raise Incompatible(
            f"how the pipeline of {meta.model.id} packs its latents and counts guidance is known by the model: "
            "to_diffusers(unsample.load(...))"
        )
    if model is not None:
        check_model(model, inversion, False)
    w = _guidance(inversion)
    grid = meta.grid.grid(meta.grid.prediction_type) if model is None else grid_of(inversion, model)
    stop = meta.stop_index
    own = GridScheduler(grid, stop) if scheduler is None else _own(scheduler, grid, stop)
    x = inversion.noise * _start(own, grid, stop)
    if family == "pixel":
        return Continuation(_cast(x, inversion), own, code=f"import torch\n\n{LOOP}")
    if family == "pipeline":
        arguments, x = _of_replayed(model, inversion, x, w)
    else:
        arguments = _of_stable_diffusion(inversion, w)
    return Continuation(_cast(x, inversion), own, {**arguments, "num_inference_steps": stop})


def _cast(x: Tensor, inversion: Inversion) -> Tensor:
    """In the network's dtype."""
    import torch

    name = str(inversion.meta.model.dtype).removeprefix("torch.")
    return x.to(getattr(torch, name)) if hasattr(torch, name) else x


def _guidance(inversion: Inversion) -> float:
    """The one number that a pipeline's call takes, as our w.

    Raises:
        Incompatible: there is no such number.
    """
    meta = inversion.meta
    w, scales = float(meta.sampling_guidance_scale), meta.sampling_scales or []
    if {*scales[1:]} - {w}:
        raise Incompatible(
            f"its guidance follows a schedule ({meta.guidance_schedule}), and a pipeline's call takes one number; "
            "unsample.reconstruct plays it back, or invert without guidance_schedule"
        )
    if 0 < w < 1:
        raise Incompatible(
            f"diffusers leaves guidance out for w <= 1, and this is {w:g}; unsample.reconstruct plays it back"
        )
    return w


def _of_stable_diffusion(inversion: Inversion, w: float) -> dict[str, Any]:
    """The arguments of `StableDiffusionPipeline`."""
    meta = inversion.meta
    halves = {"prompt": "prompt_embeds", "negative_prompt": "negative_prompt_embeds"}
    found: dict[str, Any] = {}
    for (name, embeds), texts in zip(halves.items(), (meta.prompt, meta.negative_prompt), strict=True):
        given = getattr(inversion, embeds)
        found |= {name: [text or "" for text in texts]} if given is None else {embeds: _cast(given, inversion)}
    if w == 0:  # without a condition, which is one pass of the other half
        found = {n: found[o] for n, o in zip(("prompt", "prompt_embeds"), ("negative_prompt", "negative_prompt_embeds"),
                                             strict=True) if o in found}  # fmt: skip
    elif w == 1:
        found = {name: value for name, value in found.items() if not name.startswith("negative")}
    size = {}
    if inversion.source is not None:
        height, width = inversion.source.shape[1:3]
        size = {"height": int(height), "width": int(width)}
    return {**found, "guidance_scale": max(w, 1.0), **size}


def _of_replayed(model: Any, inversion: Inversion, x: Tensor, w: float) -> tuple[dict[str, Any], Tensor]:
    """The arguments of a pipeline that was recorded, and the latents as it packs them."""
    meta = inversion.meta
    if inversion.prompt_embeds is not None:
        raise Incompatible(
            f"it was inverted with embeddings, and {model.id} makes its rows of prompts; invert with prompt=, or play "
            "it back by unsample.reconstruct"
        )
    bound = model.at(tuple(x.shape[1:]), meta.num_inference_steps)
    if w == 0:
        raise Incompatible(f"{model.id}: its pipeline's call has no guidance 0; unsample.reconstruct plays it back")
    arguments = {**bound.call_arguments, **bound.own_guidance(w)}
    if inversion.class_labels is not None:
        arguments["class_labels"] = inversion.class_labels.tolist()
    elif bound.takes_prompt:
        arguments["prompt"] = [text or "" for text in meta.prompt]
        if any(meta.negative_prompt):
            arguments["negative_prompt"] = [text or "" for text in meta.negative_prompt]
    return arguments, bound.session.tail.packed(x)


def _start(scheduler: Any, grid: Grid, stop: int) -> float:
    """What the noise is multiplied by, so that the pipeline, which multiplies by init_noise_sigma, begins at it."""
    exploding = levels.name_of(scheduler) == "EulerDiscreteScheduler" and not grid.is_flow
    return (1 / grid.alpha[stop] if exploding else 1.0) / _multiplies(scheduler)


def _multiplies(scheduler: Any) -> float:
    """By what pipelines multiply their latents; those of flows ask no scheduler."""
    return float(getattr(scheduler, "init_noise_sigma", 1.0))


def _own(scheduler: Any, grid: Grid, stop: int) -> Any:
    """A copy of a scheduler of the caller's, that was seen to walk the grid.

    Raises:
        Incompatible: it does not.
    """
    import torch

    own, name = copy.deepcopy(scheduler), type(scheduler).__name__
    levels.check_served(own)
    own.set_timesteps(stop)
    ours = GridScheduler(grid, stop)
    advice = "leave scheduler out: a scheduler of this very grid is made"
    if len(own.timesteps) != stop or not torch.allclose(own.timesteps.double(), ours.timesteps.double(), atol=1e-3):
        raise Incompatible(f"{name} lists other timesteps than the {stop} of this inversion's grid; {advice}")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 1, 64, generator=generator, dtype=torch.float64)
    exploding = name == "EulerDiscreteScheduler" and not grid.is_flow
    y = x * _start(own, grid, stop) * _multiplies(own)
    for k, t in enumerate(own.timesteps):
        output = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        if hasattr(own, "scale_model_input"):
            own.scale_model_input(y, t)  # Euler's counts the steps
        x = ours.step(output, t, x).prev_sample
        y = own.step(output, t, y, return_dict=False)[0]
        reached = x / grid.alpha[stop - k - 1] if exploding else x
        if not torch.allclose(y.double(), reached, atol=NEAR * float(reached.abs().max()), rtol=NEAR):
            raise Incompatible(
                f"{name} takes another step from timestep {float(t):g} than this inversion's grid; {advice}"
            )
    own.set_timesteps(stop)
    return own
