"""Small problems whose answers are known, or whose networks fail where they are told to."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

import unsample
from unsample.models.gaussian import GaussianModel
from unsample.models.pixel import CallableModel

KINDS = ("vp", "flow")  # of noise levels: they preserve the variance, or are those of a flow
PROMPTS = ("left", "right")
STEPS = 10


def seeded(seed: int) -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def scheduler(kind: str) -> Any:
    """Of one of `KINDS`."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0) if kind == "flow" else DDIMScheduler(clip_sample=False)


def mixture(
    shape: tuple[int, int, int] = (3, 8, 8), components: int = 6, scheduler: Any = None, prompts: bool = True
) -> GaussianModel:
    """A mixture of separate components; "left" names the first half of them, "right" the other, "" all."""
    means = normal(components, *shape, seed=1).clamp(-1, 1) * 0.8
    variances = 0.01 + 0.04 * torch.rand(components, *shape, generator=seeded(2), dtype=torch.float64)
    half = components // 2

    def fits(prompt: str) -> Tensor:
        weights = torch.zeros(components)
        if prompt in PROMPTS:
            weights[half:] = -1e4 if prompt == "left" else 0
            weights[:half] = -1e4 if prompt == "right" else 0
        return weights

    scheduler = scheduler or DDIMScheduler(clip_sample=False)
    return GaussianModel(means, variances, scheduler, "mixture", fits if prompts else None)


def smooth_network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
    """A nonlinear function of x and t, picture by picture; the embedding shifts it."""
    shift = (
        0.0 if encoder_hidden_states is None else encoder_hidden_states.to(x.dtype).mean((1, 2))[:, None, None, None]
    )
    return torch.tanh(0.8 * x + 0.3 * x.roll(1, -1) + shift) + 0.2 * math.sin(int(t) / 100)


@cache
def known(kind: str) -> GaussianModel:
    """The mixture on noise levels of a kind."""
    return mixture(scheduler=scheduler(kind))


class Source:
    """Two pictures that the mixture made, each of another prompt, with the run that made them."""

    def __init__(self, model: Any, steps: int = STEPS) -> None:
        noise = normal(2, *model.sample_shape, seed=11)
        self.made = unsample.sample(
            model, list(PROMPTS), num_inference_steps=steps, noise=noise, keep_trajectory=True, progress=False
        )

    def given(self, method: Any, row: int | None = None) -> dict[str, Any]:
        """The arguments of `invert` for both pictures or one of them."""
        rows = slice(None) if row is None else slice(row, row + 1)
        kept: dict[str, Any] = {"latents": self.made.latents[rows], "prompt": list(PROMPTS)[rows], "method": method}
        run: Any = self.made.trajectory
        return kept | ({"trajectory": run[:, rows]} if method.needs_trajectory else {})


@cache
def source(kind: str, steps: int = STEPS) -> Source:
    """Of `known`."""
    return Source(known(kind), steps)


def wrapped(network: Any, kind: str) -> CallableModel:
    """A function as a model of 8 x 8 pixels."""
    return CallableModel(network, scheduler(kind), sample_shape=(3, 8, 8))


def embeddings(count: int = 1) -> dict[str, Any]:
    """What `wrapped` networks are conditioned on."""
    return {"prompt_embeds": torch.ones(count, 2, 4), "negative_prompt_embeds": torch.zeros(count, 2, 4)}


def starts() -> dict[str, Tensor]:
    """Pictures at the ends of what is possible."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    return {
        "black": -torch.ones(3, 8, 8),
        "white": torch.ones(3, 8, 8),
        "checkerboard": (2.0 * board - 1).expand(3, 8, 8),
        "noise": normal(3, 8, 8, seed=5).clamp(-1, 1).float(),
        "ends": torch.where(normal(3, 8, 8, seed=6) > 0, 1.0, -1.0),
    }


def losing(kind: str) -> CallableModel:
    """A network whose answer to a picture of mean over 2 is nan above timestep 100."""

    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        shift = 0.1 * encoder_hidden_states.to(x.dtype).mean((1, 2))[:, None, None, None]
        output = torch.tanh(0.5 * x + shift)  # keeps the mean of another one near zero
        lost = (x.detach().flatten(1).mean(1) > 2) & (int(t) > 100)
        return torch.where(lost[:, None, None, None], torch.nan, output)

    return wrapped(network, kind)


def failing(kind: str, at_call: int, value: float, calls: list[float]) -> CallableModel:
    """A network whose answer to a picture marked in its embeddings is `value` at the `at_call`-th call (0: any)."""

    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        calls.append(float(t))
        shift = 0.1 * encoder_hidden_states[..., 1:].to(x.dtype).mean((1, 2))[:, None, None, None]
        marked = (encoder_hidden_states[:, 0, 0] > 50) & (at_call in (0, len(calls)))
        return torch.where(marked[:, None, None, None], value, torch.tanh(0.5 * x + shift))

    return wrapped(network, kind)
