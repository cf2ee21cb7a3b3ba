"""BDIA: the integral over the step just made, taken again from its other end, corrects the next one.

`x_(i-1) = gamma x_(i+1) - gamma DDIM(x_i, i -> i+1) + DDIM(x_i, i -> i-1)`, both DDIM steps with eps(x_i, t_i)
(Zhang, Lewis and Kleijn, 2023, arXiv:2307.10829). Solved for x_(i+1) it divides by gamma, once a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unsample.numbers.solvers.reversible import Weights, line

if TYPE_CHECKING:
    from unsample.numbers.grid import Grid


def bdia_weights(gamma: float) -> Weights:
    """The weights of x_(i+1), x_i and eps."""

    def weights(grid: Grid, k: int, i: int, j: int) -> tuple[float, float, float]:
        (a_up, b_up), (a_down, b_down) = line(grid, i, k), line(grid, i, j)
        return gamma, a_down - gamma * a_up, b_down - gamma * b_up

    return weights
