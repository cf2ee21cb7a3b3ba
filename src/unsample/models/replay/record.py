"""A pipeline's own call, recorded: what its denoiser was asked and what its scheduler was told, at every step."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.numbers.grid import as_ddim

if TYPE_CHECKING:
    from torch import Tensor

DENOISERS = ("transformer", "unet")
TIMES = ("timestep", "timesteps", "t")  # what denoisers call the time
SEED = 20_000  # of answers: no latents of a pipeline are seeded so
CALLS_A_STEP = 10  # more passes than any rule joins


class Stop(BaseException):
    """Leaves a pipeline's call; no pipeline catches it."""


@dataclass
class Call:
    """What the denoiser was asked once: its arguments by their names, and what it was made to answer."""

    kwargs: dict[str, Any]
    answer: Any


@dataclass
class Step:
    """One step of the scheduler: when, from which sample, with which output, after which calls."""

    timestep: float
    sample: Tensor
    output: Tensor
    calls: list[Call]


@dataclass
class Tape:
    """A call, step by step; and the scheduler as the pipeline had set it."""

    scheduler: Any
    steps: list[Step] = field(default_factory=list)


class Stepped(tuple[Any, ...]):
    """What a scheduler's step returns, in every form that pipelines read."""

    prev_sample = property(lambda self: self[0])
    pred_original_sample = property(lambda self: self[0])
    denoised = property(lambda self: self[0])


def denoiser_name(pipeline: Any) -> str:
    """Which of its parts is the denoiser."""
    return next(name for name in DENOISERS if getattr(pipeline, name, None) is not None)


def denoiser_of(pipeline: Any) -> Any:
    """The denoiser, as the pipeline calls it."""
    return getattr(pipeline, denoiser_name(pipeline))


def sample_name(network: Any) -> str:
    """What a denoiser calls the sample: its first argument."""
    return next(name for name in _signature(network).parameters if name != "self")


def time_name(kwargs: Mapping[str, Any]) -> str:
    """What it calls the time."""
    return next(name for name in TIMES if name in kwargs)


def record(pipeline: Any, call: Mapping[str, Any], steps: int | None = None, spacing: str | None = None) -> Tape:
    """Run a pipeline's call up to `steps` of its steps (None: to the last), its denoiser answering noise.

    The pipeline is as it was afterwards, whatever happens, and no global random number is drawn.

    Args:
        pipeline: of diffusers, live.
        call: the arguments of its call.
        steps: after how many it is left.
        spacing: a `timestep_spacing` in place of its scheduler's.
    """
    import torch

    noise, calls = torch.Generator().manual_seed(SEED), list[Call]()

    def forward(kwargs: dict[str, Any]) -> Any:
        if len(calls) > CALLS_A_STEP:
            raise Incompatible(f"{type(pipeline).__name__} asks its denoiser without end, and steps no scheduler")
        answer = answer_like(network, kwargs, noise, len(tape.steps), len(calls))
        calls.append(Call(kwargs, answer))
        return _as_answered(answer, kwargs)

    def step(output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
        tape.steps.append(Step(float(timestep), sample.clone(), output.clone(), [*calls]))
        calls.clear()
        if len(tape.steps) >= (steps or len(tape.scheduler.timesteps)):
            raise Stop
        return torch.randn(sample.shape[1:], generator=noise).to(sample).expand_as(sample).clone()

    network = denoiser_of(pipeline)
    with in_hand(pipeline, forward, step, spacing) as scheduler, suppress(Stop):
        tape = Tape(scheduler)
        called(pipeline, call)
    return tape


def called(pipeline: Any, call: Mapping[str, Any]) -> Any:
    """Its own call; lists are copied, since a pipeline may write into them."""
    import torch

    with torch.no_grad():
        return pipeline(**{name: list(v) if isinstance(v, list) else v for name, v in call.items()})


@contextmanager
def in_hand(
    pipeline: Any,
    forward: Callable[[dict[str, Any]], Any],
    step: Callable[[Tensor, Any, Tensor], Tensor],
    spacing: str | None = None,
) -> Iterator[Any]:
    """While it lasts, denoiser and scheduler of a pipeline are answered for by us.

    Gives the scheduler: a copy, so that the pipeline's own keeps its state.
    """
    import torch

    network, scheduler = denoiser_of(pipeline), scheduler_of(pipeline, spacing)
    signature, original, own_step = _signature(network), network.forward, scheduler.step
    kept, inner = dict(vars(pipeline)), vars(network).get("forward")

    @functools.wraps(original)
    def asked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(None, *args, **kwargs).arguments
        named = {name: value for name, value in bound.items() if name not in ("self", "kwargs")}
        return forward(named | bound.get("kwargs", {}))

    @functools.wraps(own_step)
    def stepped(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Stepped:
        after = step(model_output, timestep, sample)
        if hasattr(scheduler, "_step_index"):
            if scheduler._step_index is None:
                scheduler._init_step_index(timestep)
            scheduler._step_index += 1
        return Stepped((after, after))

    vars(asked)["recording"] = True  # for hooks that wait for the network to be run
    vars(scheduler)["step"], vars(network)["forward"] = stepped, asked
    vars(pipeline)["scheduler"] = scheduler
    vars(pipeline)["_progress_bar_config"] = {"disable": True}
    try:
        with torch.random.fork_rng(devices=[]):
            yield scheduler
    finally:
        vars(scheduler).pop("step")
        vars(network).pop("forward")
        if inner is not None:
            vars(network)["forward"] = inner
        vars(pipeline).clear()
        vars(pipeline).update(kept)
        if getattr(pipeline, "_all_hooks", None):
            pipeline.maybe_free_model_hooks()  # of offload, which waits for the end of a call


def scheduler_of(pipeline: Any, spacing: str | None = None) -> Any:
    """A copy of its scheduler; PNDM, which asks twice at a timestep, and any other where a spacing is asked for, gives
    way to DDIM of the same table."""
    scheduler = pipeline.scheduler
    if spacing is not None or type(scheduler).__name__ == "PNDMScheduler":
        return as_ddim(scheduler, spacing)
    return copy.deepcopy(scheduler)


def answer_like(network: Any, kwargs: Mapping[str, Any], noise: Any, step: int, before: int) -> Any:
    """Noise of the shape of a denoiser's answer, float32: a tensor, or a list of them where it was given one.

    Passes are the rows of a batch and the calls of a step. At some steps they are far from each other, at others nearly
    alike and of other lengths, so that rules which renormalise only what grows show themselves.
    """
    import torch

    given = kwargs[sample_name(network)]
    rows = list(given) if isinstance(given, list | tuple) else list(given.unbind(0))
    shape = _answered(network, tuple(rows[0].shape), isinstance(given, list | tuple))
    common = torch.randn(shape, generator=torch.Generator().manual_seed(SEED + 1 + step))
    mixed = [
        (1 + (0.1, -0.1)[step % 2] * (before + k)) * common + 0.03 * torch.randn(shape, generator=noise)
        if step % 3
        else torch.randn(shape, generator=noise)
        for k in range(len(rows))
    ]
    mixed = [row.to(rows[0].device) for row in mixed]
    return mixed if isinstance(given, list | tuple) else torch.stack(mixed)


def answering(network: Any) -> Callable[[dict[str, Any]], Any]:
    """What stands for a denoiser whose answers do not matter."""
    import torch

    def forward(kwargs: dict[str, Any]) -> Any:
        return _as_answered(answer_like(network, kwargs, torch.Generator().manual_seed(0), 0, 0), kwargs)

    return forward


def _answered(network: Any, row: tuple[int, ...], listed: bool) -> tuple[int, ...]:
    """The shape of an answer's row: that of the sample, with as many channels as the config says."""
    config = getattr(network, "config", {})
    known = config.get("in_channels") or config.get("in_visual_dim")
    many = config.get("out_channels") or config.get("out_visual_dim")
    many = 2 * row[0] if many is None and config.get("learn_sigma") else many
    if not isinstance(many, int) or listed or len(row) == 2:  # tokens: what they hold is not told by the config
        return row
    first = row[0] == known or (row[-1] != known and len(row) == 3)
    return (many, *row[1:]) if first else (*row[:-1], many)


def _as_answered(answer: Any, kwargs: Mapping[str, Any]) -> Any:
    """In the form that the pipeline reads."""
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return (answer,) if kwargs.get("return_dict") is False else Transformer2DModelOutput(sample=answer)


def _signature(network: Any) -> inspect.Signature:
    return inspect.signature(type(getattr(network, "_orig_mod", network)).forward)
