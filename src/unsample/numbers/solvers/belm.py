"""O-BELM: the explicit two-point step of the highest local order, in x / alpha over the variable h = sigma / alpha.

With h_i the length of the step i -> i-1 in sigma / alpha:
`x_(i-1) = (h_i / h_(i+1))^2 (alpha_(i-1) / alpha_(i+1)) x_(i+1) + (1 - (h_i / h_(i+1))^2) (alpha_(i-1) / alpha_i) x_i
- h_i (h_i + h_(i+1)) / h_(i+1) alpha_(i-1) eps(x_i, t_i)` (Wang et al., 2024, arXiv:2410.07273, O-BELM).
It is what the quadratic through x_(i+1) and x_i with slope eps at x_i gives; of a flow through x itself over
sigma, with the velocity as slope. Up, the first weight is divided by: a first step far shorter than the second
(h_1 << h_2) magnifies what the bootstrap got wrong by (h_2 / h_1)^2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unsample.numbers.grid import Grid


def belm_weights(grid: Grid, k: int, i: int, j: int) -> tuple[float, float, float]:
    """The weights of x_(i+1), x_i and eps."""
    scale = [1.0 if grid.is_flow else grid.alpha[n] for n in (k, i, j)]
    level = [grid.sigma[n] / s for n, s in zip((k, i, j), scale, strict=True)]
    above, below = level[0] - level[1], level[1] - level[2]  # h_(i+1), h_i
    share = (below / above) ** 2
    return (
        share * scale[2] / scale[0],
        (1 - share) * scale[2] / scale[1],
        -below * (below + above) / above * scale[2],
    )


def first_step_stays(grid: Grid) -> bool:
    """Whether point 1 is timestep 0 itself, as `linspace` makes it: the step from the clean end has no length.

    Where the scheduler puts the clean end at alpha = 1 it has a length of sqrt(beta_0), and the network is asked at
    timestep 0 on both sides of it all the same. The picture is then taken to be at point 1, as `set_alpha_to_one=False`
    (the authors' scheduler) does; that short step would otherwise be magnified by (h_2 / h_1)^2.
    """
    return grid.timesteps[1] == 0
