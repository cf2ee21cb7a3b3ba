"""EDICT: two coupled latents, each moved by the eps of the other, then mixed; every part can be undone exactly.

Down, with `x_j = a x_i + b eps` the DDIM step: `x' = a x + b eps(y)`, `y' = a y + b eps(x')`, then
`x = p x' + (1 - p) y'`, `y = p y' + (1 - p) x` (Wallace, Gokul and Naik, 2023, arXiv:2211.12446). Up, the same four
lines backwards: the mixing then magnifies the difference of the two by 1 / p^2 a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.numbers.prediction import direction
from unsample.numbers.solvers.reversible import carried_wide, line
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


def edict_steps(p: float, leapfrog: bool) -> tuple[Step, Step]:
    """The pair (up, down). The state holds `second`, the latent y.

    Both steps between two points ask at the noisier one. With `leapfrog` the roles of the two (who moves first)
    alternate with the parity of the noisier index, which is the same in both directions.
    """

    def in_order(x: Tensor, y: Tensor, noisier: int) -> tuple[Tensor, Tensor]:
        return (y, x) if leapfrog and noisier % 2 else (x, y)  # its own inverse

    def up(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        a, b = line(grid, j, i)
        y = (state["second"] - (1 - p) * x) / p
        x = (x - (1 - p) * y) / p
        first, last = in_order(x, y, j)
        last = (last - b * direction(predict(first, j), grid)) / a
        first = (first - b * direction(predict(last, j), grid)) / a
        x, y = in_order(first, last, j)
        return x, {**state, "second": y}

    def down(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        a, b = line(grid, i, j)
        first, last = in_order(x, state["second"], i)
        first = a * first + b * direction(predict(last, i), grid)
        last = a * last + b * direction(predict(first, i), grid)
        x, y = in_order(first, last, i)
        x = p * x + (1 - p) * y
        return x, {**state, "second": p * y + (1 - p) * x}

    return carried_wide(up), carried_wide(down)
