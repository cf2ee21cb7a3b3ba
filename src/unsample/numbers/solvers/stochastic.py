"""Stochastic DDIM and its inversion at known noises: a step pair for every eta from 0 to 1.

`x_i = alpha_i x0 + d eps + s n`, `s = eta sigma_i sqrt(1 - (h_i / h_j)^2)`, `d = sqrt(sigma_i^2 - s^2)`, h = sigma /
alpha, from noisier j to cleaner i (Song, Meng and Ermon, 2021, arXiv:2010.02502, Eq. 12 and 16). In the frame x / alpha
eta = 1 is the ancestral Euler sampler, `s = sigma_up`, `d = sigma_down`. Nothing here needs alpha^2 + sigma^2 = 1, so
of a flow eta = 1 is the posterior q(x_i | x_j, x0) of its own forward process too. Given n the step is inverted like
DDIM's; given both ends it fixes n instead.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.numbers.grid import transfer
from unsample.numbers.prediction import direction
from unsample.numbers.solvers.ddim import carry
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid
    from unsample.numbers.prediction import Prediction


def shares(grid: Grid, i: int, j: int, eta: float) -> tuple[float, float]:
    """(s, d): how much of the noise at cleaner i is fresh, and how much follows eps, coming from noisier j."""
    ratio = grid.sigma[i] * grid.alpha[j] / (grid.alpha[i] * grid.sigma[j])  # h_i / h_j, also where alpha_j = 0
    fresh = eta * grid.sigma[i] * math.sqrt(1 - ratio**2)
    return fresh, math.sqrt(max(grid.sigma[i] ** 2 - fresh**2, 0.0))


def weight(grid: Grid, i: int, j: int, eta: float) -> float:
    """Of a stored noise in the step from j to i: s, or 1 in a step that no fresh noise enters (an offset).

    Such a step ends at a clean end that holds no noise, or has no length (timestep 0 at the level of the clean end).
    """
    fresh = shares(grid, i, j, eta)[0]
    return 1.0 if eta > 0 and fresh == 0 else fresh


def mean_of(p: Prediction, grid: Grid, i: int, j: int, eta: float) -> Tensor:
    """The step from j to i without its fresh noise."""
    return grid.alpha[i] * p.x0 + shares(grid, i, j, eta)[1] * p.eps


def noisy_sample(eta: float) -> Step:
    """The sampling step; `noises` (B, T, C, H, W) in the state, the step's own at j - 1.

    In a step that no fresh noise enters the stored one is an offset of the mean.
    """

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        noise = weight(grid, j, i, eta) * state["noises"][:, i - 1]
        return mean_of(predict(x, i), grid, j, i, eta) + noise, state

    return step


def without_fresh(x: Tensor, grid: Grid, i: int, j: int, eta: float, noise: Tensor | None) -> tuple[Tensor, float]:
    """x at cleaner i without the fresh noise of the step from j, and the share of it that follows eps."""
    if noise is None:
        return x, grid.sigma[i]
    fresh, along = shares(grid, i, j, eta)
    return (x - fresh * noise if fresh else x), along


def noisy_carry(x: Tensor, p: Prediction, grid: Grid, i: int, j: int, eta: float, noise: Tensor | None) -> Tensor:
    """From cleaner i to noisier j along a prediction made at j: the input of the sampling step whose noise is known."""
    if noise is None:
        return carry(x, p, grid, i, j)
    if grid.is_flow or grid.alpha[j] > 0:
        return noisy_transfer(x, direction(p, grid), grid, i, j, eta, noise)
    rest, along = without_fresh(x, grid, i, j, eta, noise)
    if along == 0:
        raise Incompatible("a step from alpha = 0 with eta = 1 keeps nothing of the noise; use eta below 1")
    return grid.sigma[j] * (rest - grid.alpha[i] * p.x0) / along


def noisy_transfer(x: Tensor, along: Tensor, grid: Grid, i: int, j: int, eta: float, noise: Tensor | None) -> Tensor:
    """From cleaner i to noisier j along a direction that is known beforehand: eps (into alpha = 0: sigma_j eps), or of
    a flow the velocity v, with which `x_i - s n = (alpha_i + d) x0 + d v`."""
    if noise is None:
        return transfer(x, along, grid, i, j)
    rest, d = without_fresh(x, grid, i, j, eta, noise)
    if grid.is_flow:
        return (rest - d * along) / (grid.alpha[i] + d) + grid.sigma[j] * along
    x0 = (rest - d * along) / grid.alpha[i]
    x0 = x0 if grid.clip is None else x0.clamp(-grid.clip, grid.clip)
    return grid.alpha[j] * x0 + grid.sigma[j] * along


def joining(
    cleaner: Tensor, noisier: Tensor, grid: Grid, i: int, j: int, eta: float = 0.0, noise: Tensor | None = None
) -> Prediction:
    """The (x0, eps) of the sampling step from noisier j to cleaner i: both points are `alpha x0 + sigma eps`.

    No division by alpha, so alpha = 0 at the noisiest point is no special case. The step must have a length.
    """
    from unsample.numbers.prediction import Prediction

    rest, along = without_fresh(cleaner, grid, i, j, eta, noise)
    turn = grid.alpha[i] * grid.sigma[j] - grid.alpha[j] * along
    x0 = (grid.sigma[j] * rest - along * noisier) / turn
    return Prediction(x0, (grid.alpha[i] * noisier - grid.alpha[j] * rest) / turn)


def needed_noise(p: Prediction, cleaner: Tensor, grid: Grid, i: int, j: int, eta: float) -> Tensor:
    """The noise with which the step from j, where p was predicted, ends in `cleaner` at i; eta above 0."""
    return (cleaner - mean_of(p, grid, i, j, eta)) / weight(grid, i, j, eta)


def descended(noise: Tensor, needed: Tensor, steps: int, rate: float) -> Tensor:
    """`noise` after gradient steps on `|noise - needed|`: each goes `rate` towards it, in the norm of the whole noise.

    So it overshoots where it is nearer than that, as in the authors' code.
    """
    for _ in range(steps):
        apart = noise - needed
        length = apart.flatten(1).norm(dim=1)[(...,) + (None,) * (noise.dim() - 1)]
        noise = noise - rate * apart / length.where(length > 0, 1.0)
    return noise
