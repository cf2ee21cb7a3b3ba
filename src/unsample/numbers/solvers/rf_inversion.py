"""The controlled ODEs of RF-Inversion, one Euler step each (Rout et al., 2024, arXiv:2410.10792).

Up, towards a given noise y: `x_j = x_i + h (v + gamma ((y - x_i) / (1 - sigma_i) - v))`, h = sigma_j - sigma_i: the
second velocity alone ends in y. Down, towards the picture x_0: `x_j = x_i + h (v + eta ((x_i - x_0) / sigma_i -
v))`, whose second velocity alone ends in x_0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unsample.numbers.grid import Grid
from unsample.numbers.prediction import direction
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

STOP = "controlled_from"  # the grid point that a walk down started from


def towards_noise(gamma: float) -> Step:
    """The step up. The state must hold `drawn_noise`."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        v = direction(predict(x, i), grid)
        pull = (state["drawn_noise"] - x) / grid.alpha[i]
        return x + (grid.sigma[j] - grid.sigma[i]) * (v + gamma * (pull - v)), state

    return step


def towards_picture(eta: Callable[[int, int], float]) -> Step:
    """The step down. The state must hold `picture`; `eta(k, steps)` of the k-th of so many steps."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        state = {STOP: i, **state}
        v, weight = direction(predict(x, i), grid), eta(state[STOP] - i, state[STOP])
        if weight > 0:
            v = v + weight * ((x - state["picture"]) / grid.sigma[i] - v)
        return x + (grid.sigma[j] - grid.sigma[i]) * v, state

    return step
