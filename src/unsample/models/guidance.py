"""Guidance joins a model and its conditions into `predict`, and is the one place where cost is counted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unsample.errors import BadOption, Incompatible
from unsample.models.base import Condition, Model
from unsample.prediction import Prediction, prediction_from_output

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.grid import Grid


@dataclass
class Cost:
    """Network evaluations and backward passes, one count a picture."""

    nfe: list[int]
    backward: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.backward = self.backward or [0] * len(self.nfe)


class Predict:
    """Model, condition and guidance joined: `predict(x, i, rows=None) -> Prediction`.

    Guidance is `eps = eps_u + w (eps_c - eps_u)` for every w >= 0: one pass at w = 0 (unconditional) and at w = 1
    (conditional), two otherwise, run as one batched call. Below 1 this differs from diffusers, which then leaves
    guidance out. The network's gradient passes are counted where they happen, by a hook on its output.

    Args:
        model: the adapter.
        grid: the noise levels.
        condition: of the prompt, one row a picture.
        unconditional: of the negative prompt; needed unless `guidance_scale` is 1.
        guidance_scale: w.
        batch_size: number of pictures.
    """

    def __init__(
        self,
        model: Model,
        grid: Grid,
        condition: Condition,
        unconditional: Condition | None,
        guidance_scale: float,
        batch_size: int,
    ) -> None:
        self.model, self.grid, self.guidance_scale = model, grid, check_guidance(guidance_scale)
        if self.guidance_scale != 1 and unconditional is None:
            raise Incompatible(
                f"guidance_scale={guidance_scale} needs an unconditional prediction, and {model.id} was given none; "
                "use guidance_scale=1 or give negative_prompt_embeds"
            )
        self.condition, self.unconditional = condition, unconditional
        self.cost = Cost([0] * batch_size)

    def __call__(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """The prediction for `x` at grid point i.

        Args:
            x: (B, C, H, W), or only the pictures `rows` names.
            i: index into the grid; the level at which the network is asked and its answer converted.
            rows: int64 indices of the pictures in `x`, None for all.
        """
        import torch

        w = self.guidance_scale
        which = torch.arange(len(x)) if rows is None else rows
        if w == 1 or w == 0:
            chosen = self.condition if w == 1 else self.unconditional
            assert chosen is not None
            output = self._network(x, i, chosen if rows is None else chosen.rows(rows), which, 1)
        else:
            assert self.unconditional is not None
            pair = [c if rows is None else c.rows(rows) for c in (self.unconditional, self.condition)]
            both = self._network(torch.cat([x, x]), i, pair[0].joined(pair[1]), which, 2)
            free, bound = both.chunk(2)
            output = free + w * (bound - free)  # linear, so it may act on eps, v or x0 alike
        return prediction_from_output(output, x, self.grid, i)

    def _network(self, x: Tensor, i: int, condition: Condition, which: Tensor, passes: int) -> Tensor:
        pictures = which.tolist()
        for k in pictures:
            self.cost.nfe[k] += passes
        output = self.model.network(x, self.grid.timesteps[i], condition)
        if output.requires_grad:

            def count(_: Tensor) -> None:
                for k in pictures:
                    self.cost.backward[k] += passes

            output.register_hook(count)
        return output


def check_guidance(guidance_scale: object, name: str = "guidance_scale") -> float:
    """The scale as a float, or `BadOption`."""
    if isinstance(guidance_scale, bool) or not isinstance(guidance_scale, int | float):
        raise BadOption(f"{name} must be a number; got {guidance_scale!r}")
    if not math.isfinite(guidance_scale) or guidance_scale < 0:
        raise BadOption(f"{name} must be a finite number of at least 0; got {guidance_scale}")
    return float(guidance_scale)
