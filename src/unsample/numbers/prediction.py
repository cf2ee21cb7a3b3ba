"""A prediction is the pair (x0, eps) at a noise level, made from whatever the network outputs.

A sampling step is then `alpha_j * x0 + sigma_j * eps`: no division, so a noisiest point with alpha = 0 (zero terminal
SNR) is no special case of sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unsample.errors import Incompatible
from unsample.numbers.grid import PREDICTION_TYPES, Grid, says_nothing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """What the network says of `x` at a level: `x = alpha * x0 + sigma * eps` (before any clamp of x0)."""

    x0: Tensor
    eps: Tensor


def prediction_from_output(output: Tensor, x: Tensor, grid: Grid, i: int) -> Prediction:
    """Convert a network output at grid point i.

    Raises:
        Incompatible: an output that says nothing at this level (epsilon where alpha is 0, sample where sigma is 0),
            or an unknown `prediction_type`.
    """
    alpha, sigma = grid.eval_alpha[i], grid.eval_sigma[i]
    if grid.prediction_type == "epsilon":
        if alpha == 0:
            raise Incompatible(says_nothing(grid.timesteps[i]))
        x0, eps = (x - sigma * output) / alpha, output
    elif grid.prediction_type == "v_prediction":
        x0, eps = alpha * x - sigma * output, alpha * output + sigma * x
    elif grid.prediction_type == "sample":
        if sigma == 0:
            raise Incompatible("a sample-predicting network fixes no eps at sigma = 0; start at a noisier timestep")
        x0, eps = output, (x - alpha * output) / sigma
    else:
        raise Incompatible(f"prediction_type {grid.prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")
    return Prediction(x0.clamp(-grid.clip, grid.clip) if grid.clip is not None else x0, eps)
