"""DDIM: the sampling step, and the explicit inversion step with the network asked at either level.

`x_j = alpha_j x0 + sigma_j eps` (Song, Meng and Ermon, 2021, arXiv:2010.02502, Eq. 12). On a flow grid that is Euler's
step `x_j = x_i + (sigma_j - sigma_i) v`, in both directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.numbers.grid import Grid, transfer
from unsample.numbers.prediction import direction
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.prediction import Prediction


def ddim_sample(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """From noisier i to cleaner j; no division."""
    p = predict(x, i)
    return grid.alpha[j] * p.x0 + grid.sigma[j] * p.eps, state


def carry(x: Tensor, p: Prediction, grid: Grid, i: int, j: int) -> Tensor:
    """From cleaner i to noisier j along a prediction made at j (or i).

    Into a point with alpha = 0 every eps equals x_j, so the eps form would return its own guess; there the x0 form
    `x_j = (x_i - alpha_i x0) / sigma_i` is used. The velocity of a flow says as much there as anywhere.
    """
    if grid.is_flow or grid.alpha[j] > 0:
        return transfer(x, direction(p, grid), grid, i, j)
    if grid.sigma[i] == 0:
        raise Incompatible("a single step from the clean end to alpha = 0 keeps nothing of the noise; use more steps")
    return (x - grid.alpha[i] * p.x0) / grid.sigma[i]


def ddim_invert_at_target(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """eps(x_i, t_j): the field's DDIM inversion, one fixed-point iteration."""
    return carry(x, predict(x, j), grid, i, j), state


def ddim_invert_at_source(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """eps(x_i, t_i): explicit Euler in (x / alpha, sigma / alpha)."""
    return carry(x, predict(x, i), grid, i, j), state


INVERT_AT: dict[str, Step] = {"target": ddim_invert_at_target, "source": ddim_invert_at_source}
