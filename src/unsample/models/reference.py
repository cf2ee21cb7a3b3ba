"""A model's own pipeline of diffusers, run as it is and watched where it hands a sample to its scheduler.

What an adapter says of a model is checked against this (`verbs.checking`): nothing here knows how the adapter asks
the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol

from unsample.errors import Incompatible
from unsample.models.replay.study import OPTIONS
from unsample.numbers.grid import as_ddim

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.numbers.grid import Grid


@dataclass(frozen=True)
class Asked:
    """One picture of a pipeline: `prompt` or `label` where the model takes one; `height` and `width` in pixels."""

    prompt: str | None
    label: int | None
    guidance_scale: float
    num_inference_steps: int
    height: int
    width: int
    seed: int


@dataclass(frozen=True)
class Ran:
    """What a pipeline did: its states (N + 1, B, C, H, W), noisiest first, and its pictures (B, 3, H, W) in [0, 1]."""

    trajectory: Tensor
    images: Tensor
    arguments: Mapping[str, Any]  # of its call that carry guidance


class Reference(Protocol):
    """A pipeline that can be compared with."""

    pipeline: Any
    changes: list[str]  # what was changed in it, in words
    only_guidance: float | None  # the one w that it can be run at, where its call takes no number

    def run(self, asked: Asked, grid: Grid) -> Ran:
        """Its own call, on its own (first-order) grid."""


@contextmanager
def watched(scheduler: Any, see: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    """While it lasts, `see(timestep, sample, next sample)` is called after each step of the scheduler."""
    step = scheduler.step

    @wraps(step)  # pipelines look at the signature
    def seen(model_output: Any, timestep: Any, sample: Any, *args: Any, **more: Any) -> Any:
        with _to_the_next(scheduler, int(timestep)):
            answer = step(model_output, timestep, sample, *args, **more)
        see(timestep, sample, answer[0] if isinstance(answer, tuple) else answer.prev_sample)
        return answer

    scheduler.step = seen
    try:
        yield
    finally:
        del scheduler.step


class _Apart(int):
    """In place of N: `T // N` is this number."""

    def __rfloordiv__(self, other: int) -> int:
        return int(self)


@contextmanager
def _to_the_next(scheduler: Any, timestep: int) -> Iterator[None]:
    """While it lasts, diffusers' DDIM steps to the next timestep of its own list.

    It steps to `t - T // N`, which under "trailing" and "linspace" is another one where N does not divide T.
    """
    if type(scheduler).__name__ not in DDIMS:
        yield
        return
    listed, steps = [int(t) for t in scheduler.timesteps], scheduler.num_inference_steps
    later = listed[listed.index(timestep) + 1 :]
    apart = timestep - (later[0] if later else -1)
    scheduler.num_inference_steps = _Apart(apart)
    try:
        yield
    finally:
        scheduler.num_inference_steps = steps


def reference_of(model: Model) -> Reference:
    """The pipeline that stands behind an adapter.

    Raises:
        Incompatible: there is none (a closed form, a wrapped network, a model that draws classes in pixels).
    """
    found: Any = model
    if model.family == "latent":
        return _StableDiffusion(found)
    if model.family == "pixel" and not model.num_classes:
        return _Pixels(found)
    if model.family == "pipeline":
        return _Replayed(found)
    raise Incompatible(
        f"{model.id} ({type(model).__name__}) has no pipeline of diffusers to be compared with; give a folder, a hub "
        "id or a loaded pipeline"
    )


DDIMS = ("DDIMScheduler", "CogVideoXDDIMScheduler")
FIRST_ORDER = (*DDIMS, "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler")
EULERS = (
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
)
ORDERED = (
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler"),
    "UniPCMultistepScheduler",
)
MOST_STEPS = 1000


def first_order(scheduler: Any) -> tuple[Any, list[str]]:
    """A deterministic scheduler of first order on the same levels, by diffusers, and what was changed, in words.

    The scheduler given is not touched. Nothing is clamped, since that cannot be inverted.
    """
    made, changes = _unordered(scheduler)
    clamping = ("clip_sample", "thresholding")
    made.register_to_config(**{name: False for name in clamping if made.config.get(name)})
    if its_own := [name for name in clamping if scheduler.config.get(name)]:
        changes.append(f"it does not clamp the predicted picture ({', '.join(its_own)}); sample(clip='config') does")
    return made, changes


def _unordered(scheduler: Any) -> tuple[Any, list[str]]:
    kind, config = type(scheduler).__name__, scheduler.config
    if kind in FIRST_ORDER:
        return copy.deepcopy(scheduler), []
    if kind in ("LCMScheduler", "TCDScheduler"):
        return _other("TCDScheduler", scheduler)
    if kind == "FlowMatchHeunDiscreteScheduler":
        return _other("FlowMatchEulerDiscreteScheduler", scheduler)
    if kind in EULERS:
        return _other("EulerDiscreteScheduler", scheduler)
    if kind not in ORDERED:
        return as_ddim(scheduler), [f"its sampler {kind} gives way to DDIM of the same table, which draws no noise"]
    algorithm = str(config.get("algorithm_type", ""))
    if config.solver_order == 1 and not algorithm.startswith("sde") and kind != "UniPCMultistepScheduler":
        return copy.deepcopy(scheduler), []
    changed: dict[str, Any] = {"solver_order": 1}
    if algorithm.startswith("sde"):
        changed["algorithm_type"] = algorithm.removeprefix("sde-")
    if kind == "UniPCMultistepScheduler":
        changed["disable_corrector"] = list(range(MOST_STEPS))
    said = f"its sampler {kind} is run at order 1 (its own is {config.solver_order}), without noise or corrector"
    return type(scheduler).from_config(config, **changed), [said]


def _other(kind: str, scheduler: Any) -> tuple[Any, list[str]]:
    """Another class of the same config."""
    import diffusers

    said = f"its sampler {type(scheduler).__name__} gives way to {kind}, of first order and without noise"
    return getattr(diffusers, kind).from_config(scheduler.config), [said]


def preserving(scheduler: Any, states: Sequence[Tensor], grid: Grid) -> list[Tensor]:
    """A run's states, noisiest first, such that they preserve the variance: those of Euler are x / alpha.

    Raises:
        Incompatible: the pipeline did not walk this grid.
    """
    levels = list(reversed(grid.alpha))
    if len(states) != len(levels):
        raise Incompatible(f"the pipeline took {len(states) - 1} steps, and the grid has {grid.num_steps}")
    if type(scheduler).__name__ != "EulerDiscreteScheduler" or grid.is_flow:
        return list(states)
    return [alpha * state for alpha, state in zip(levels, states, strict=True)]


class _Own:
    """What the references share: a scheduler in place of the pipeline's, and the states seen."""

    pipeline: Any
    only_guidance: float | None = None

    def __init__(self, model: Any) -> None:
        self.model = model
        self.scheduler, self.changes = first_order(model.scheduler)

    def _run(self, call: Mapping[str, Any], asked: Asked) -> tuple[list[Tensor], Tensor]:
        """The samples that the scheduler was handed, and the last; pictures (B, 3, H, W)."""
        import torch

        samples: list[Tensor] = []

        def see(_: Any, sample: Tensor, after: Tensor) -> None:
            samples.extend([after] if samples else [sample, after])

        generator = torch.Generator().manual_seed(asked.seed)  # on the CPU, as everywhere
        known = signature(type(self.pipeline).__call__).parameters
        given = {"num_inference_steps": asked.num_inference_steps, "generator": generator, "output_type": "np", **call}
        own, bars = self.pipeline.scheduler, dict(getattr(self.pipeline, "_progress_bar_config", {}))
        self.pipeline.scheduler = self.scheduler
        self.pipeline.set_progress_bar_config(disable=True)
        try:
            with torch.no_grad(), watched(self.scheduler, see):
                made = self.pipeline(**{name: value for name, value in given.items() if name in known})
        finally:
            self.pipeline.scheduler, self.pipeline._progress_bar_config = own, bars
        images = torch.as_tensor(made.images if hasattr(made, "images") else made.image).float()
        return samples, images.permute(0, 3, 1, 2) if images.shape[-1] in (1, 3) else images


class _StableDiffusion(_Own):
    """Of a `LatentModel`."""

    def __init__(self, model: Any) -> None:
        from diffusers import StableDiffusionPipeline

        super().__init__(model)
        parts = {name: getattr(model, name) for name in ("unet", "vae", "text_encoder", "tokenizer")}
        self.pipeline = StableDiffusionPipeline(
            **parts,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def run(self, asked: Asked, grid: Grid) -> Ran:
        """See `Reference`."""
        guided = {"guidance_scale": asked.guidance_scale}
        call = {"prompt": asked.prompt or "", "height": asked.height, "width": asked.width, **guided}
        samples, images = self._run(call, asked)
        return Ran(_stacked(preserving(self.scheduler, samples, grid)), images, guided)


class _Pixels(_Own):
    """Of a `PixelModel` without classes."""

    def __init__(self, model: Any) -> None:
        from diffusers import DDIMPipeline

        super().__init__(model)
        self.pipeline = DDIMPipeline(unet=model.unet, scheduler=self.scheduler)

    def run(self, asked: Asked, grid: Grid) -> Ran:
        """See `Reference`."""
        samples, images = self._run({}, asked)
        return Ran(_stacked(samples), images, {})


class _Replayed(_Own):
    """Of a `ReplayModel`: the pipeline that it was recorded from."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.pipeline = model.pipeline
        if model.guidance == "cfg" and model.study.number is None:
            self.only_guidance = round(model.study.rule.scale, 6)
        self.changes += [f"{name} is off" for name in OPTIONS if name in model.own.call]

    def run(self, asked: Asked, grid: Grid) -> Ran:
        """See `Reference`."""
        model = self.model.at(self.model.shape_of(asked.height, asked.width), asked.num_inference_steps)
        guided = {} if self.only_guidance else model.own_guidance(asked.guidance_scale)
        call = {**model.call_arguments, **guided}
        call |= {name: model.study.call[name] for name in ("negative_prompt",) if name in model.study.call}
        call |= {"prompt": asked.prompt} if asked.prompt is not None else {}
        call |= {"class_labels": [asked.label]} if asked.label is not None else {}
        samples, images = self._run(call, asked)
        halves = model.study.halves  # DiT's guidance steps two equal halves along, and without it one
        states = [
            model.to_state(each[:1].repeat_interleave(halves, 0), grid.num_steps - k) for k, each in enumerate(samples)
        ]
        return Ran(_stacked(states), images[:1], guided)


def _stacked(states: Sequence[Tensor]) -> Tensor:
    """(N + 1, B, C, H, W), float32."""
    import torch

    return torch.stack(list(states)).float()
