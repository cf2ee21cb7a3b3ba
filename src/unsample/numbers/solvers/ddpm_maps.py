"""The stochastic sampling step with its noise given: `x_j = mu(x_i) + s_ij z`.

mu and s_ij are those of `stochastic` (Song, Meng and Ermon, 2021, arXiv:2010.02502, Eq. 12 and 16); eta = 1 is DDPM's
ancestral step. The z of a run are kept as `noise_maps` (B, steps, C, H, W): z of the step into point j at [:, j], and
at [:, 0] what is added to mu at the clean end, an offset in the units of x, since s_ij may be 0 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.numbers.solvers.stochastic import mean_of, shares
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


def ddpm_mean(predict: Any, x: Tensor, grid: Grid, i: int, j: int, eta: float) -> tuple[Tensor, float]:
    """mu and s of the step from noisier i to cleaner j; no division by alpha_i, so it may be 0."""
    return mean_of(predict(x, i), grid, j, i, eta), shares(grid, j, i, eta)[0]


def ddpm_sample(eta: float) -> Step:
    """The step that plays `noise_maps` back."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        mean, std = ddpm_mean(predict, x, grid, i, j, eta)
        return mean + (std if j else 1.0) * state["noise_maps"][:, j], state

    return step


def forward_noised(x0: Tensor, noise: Tensor, grid: Grid, j: int) -> Tensor:
    """x0 under noise at grid point j: a draw of q(x_j | x_0)."""
    return grid.alpha[j] * x0 + grid.sigma[j] * noise
