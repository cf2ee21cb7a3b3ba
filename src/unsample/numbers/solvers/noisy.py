"""A walk up from a picture that is known up to a noise: it begins at the level of that noise.

A picture with an error of std q is, but for its scale, a point of the noise level sigma / alpha = q. What the levels
below would add is in its error already, and to solve their steps exactly would make noise of that error. So the walk
passes over them, and its first step leads from a level of its own, `x_q = alpha_q x_0 / alpha_0`, to the next point of
the grid: `x_j = alpha_j (x_q - sigma_q eps) / alpha_q + sigma_j eps`. Were pictures and error Gaussian, that would be
the white noise nearest to the true one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from unsample.errors import Incompatible

if TYPE_CHECKING:
    from unsample.numbers.grid import Grid


def ratio(grid: Grid, i: int) -> float:
    """sigma / alpha at a grid point."""
    return grid.sigma[i] / grid.alpha[i] if grid.alpha[i] > 0 else math.inf


def joined(grid: Grid, noise: float) -> float:
    """sigma / alpha of the clean end with an error of std `noise` on it."""
    return math.hypot(grid.sigma[0], noise) / grid.alpha[0]


def drowned(grid: Grid, stop: int, noise: float) -> Incompatible:
    """What to raise where a noise leaves no step to invert."""
    return Incompatible(
        f"x0_noise={noise:.3g} is no less than the noise of the noisiest point reached (sigma / alpha = "
        f"{ratio(grid, stop):.3g}), so nothing of the picture is left to invert; give a smaller x0_noise"
    )


def passed(grid: Grid, stop: int, noise: float) -> int:
    """How many levels above the clean end lie at or below that of the noise.

    Raises:
        Incompatible: all of them do, up to `stop`: nothing would be inverted.
    """
    count = sum(ratio(grid, i) <= joined(grid, noise) for i in range(1, stop + 1))
    if count == stop:
        raise drowned(grid, stop, noise)
    return count


def with_noise(grid: Grid, i: int, noise: float) -> Grid:
    """The grid with point i at the level of the noise, of the grid's own kind."""
    q = joined(grid, noise)
    alpha = 1 / (1 + q) if grid.is_flow else 1 / math.hypot(1, q)

    def put(levels: tuple[float, ...], level: float) -> tuple[float, ...]:
        return (*levels[:i], level, *levels[i + 1 :])

    return replace(grid, alpha=put(grid.alpha, alpha), sigma=put(grid.sigma, q * alpha))
