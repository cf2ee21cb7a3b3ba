"""A prediction is the pair (x0, eps) at a noise level, made from whatever the network outputs.

A sampling step is then `alpha_j * x0 + sigma_j * eps`: no division, so a noisiest point with alpha = 0 (zero terminal
SNR) is no special case of sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unsample.errors import Incompatible
from unsample.numbers.grid import FLOW, PREDICTION_TYPES, Grid, says_nothing

if TYPE_CHECKING:
    from torch import Tensor


class Prediction:
    """What the network says of `x` at a level: `x = alpha * x0 + sigma * eps` (before any clamp of x0).

    Args:
        x0: the picture, or a function that gives it, called once if it is asked for: inversion by eps never does.
        eps: the noise.
    """

    __slots__ = ("_x0", "eps")

    def __init__(self, x0: Tensor | Callable[[], Tensor], eps: Tensor) -> None:
        self._x0, self.eps = x0, eps

    @property
    def x0(self) -> Tensor:
        """The predicted picture."""
        if callable(self._x0):
            self._x0 = self._x0()
        return self._x0


def direction(p: Prediction, grid: Grid) -> Tensor:
    """What a first-order step holds fixed: eps, or of a flow the velocity eps - x0.

    Along an exact prediction at the step's own start the two are one line. At another point they are not: eps made at
    the step's end j would move a flow by `alpha_j / alpha_i` of what the velocity does.
    """
    return p.eps - p.x0 if grid.is_flow else p.eps


def output_from_prediction(p: Prediction, grid: Grid, i: int) -> Tensor:
    """What the network answered: the inverse of `prediction_from_output`, where x0 was not clamped."""
    if grid.prediction_type == "v_prediction":
        return grid.eval_alpha[i] * p.eps - grid.eval_sigma[i] * p.x0
    if grid.prediction_type == FLOW:
        return p.eps - p.x0
    return p.eps if grid.prediction_type == "epsilon" else p.x0


def prediction_from_output(output: Tensor, x: Tensor, grid: Grid, i: int) -> Prediction:
    """Convert a network output at grid point i.

    Raises:
        Incompatible: an output that says nothing at this level (epsilon where alpha is 0, sample where sigma is 0),
            or an unknown `prediction_type`.
    """
    alpha, sigma, clip = grid.eval_alpha[i], grid.eval_sigma[i], grid.clip

    def clamped(x0: Tensor) -> Tensor:
        return x0 if clip is None else x0.clamp(-clip, clip)

    if grid.prediction_type == "epsilon":
        if alpha == 0:
            raise Incompatible(says_nothing(grid.timesteps[i]))
        return Prediction(lambda: clamped((x - sigma * output) / alpha), output)
    if grid.prediction_type == "v_prediction":
        return Prediction(lambda: clamped(alpha * x - sigma * output), alpha * output + sigma * x)
    if grid.prediction_type == FLOW:  # the velocity eps - x0
        return Prediction(lambda: clamped(x - sigma * output), x + alpha * output)
    if grid.prediction_type == "sample":
        if sigma == 0:
            raise Incompatible("a sample-predicting network fixes no eps at sigma = 0; start at a noisier timestep")
        return Prediction(clamped(output), (x - alpha * output) / sigma)
    raise Incompatible(f"prediction_type {grid.prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")
