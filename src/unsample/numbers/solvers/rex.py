"""Rex: any explicit Runge-Kutta step made reversible by two coupled latents (Blasingame and Liu, arXiv:2502.08834).

In the frame z = x / scale over level (`midway.frame`: sigma / alpha, or a flow's sigma), where the ODE is
`dz = direction dlevel` and nothing stiff is left, the coupling of McCallum and Foster (2024, arXiv:2410.11648). Down
from i to j, Psi the increment of the Runge-Kutta step: `y_j = zeta y_i + (1 - zeta) z_i + Psi(z_i, i -> j)`,
`z_j = z_i - Psi(y_j, j -> i)`. Up, the two lines are undone, last first, which magnifies the difference of the two by
1 / zeta a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.numbers.prediction import direction
from unsample.numbers.solvers.midway import MIDDLE, frame, with_middle
from unsample.numbers.solvers.reversible import carried_wide
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

STAGES = {"euler": 1, "midpoint": 2, "rk4": 4}
"""Evaluations of a Runge-Kutta step; its order is the same number."""


def rex_steps(solver: str, zeta: float) -> tuple[Step, Step]:
    """The pair (up, down). The state holds `second`, the latent z; both in the frame only within a step."""

    def up(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        (low, _), (high, _) = frame(grid, i), frame(grid, j)
        y, z = x / low, state["second"] / low
        z = z + increment(predict, y, grid, i, j, solver)
        y = (y - (1 - zeta) * z - increment(predict, z, grid, j, i, solver)) / zeta
        return y * high, {**state, "second": z * high}

    def down(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        (high, _), (low, _) = frame(grid, i), frame(grid, j)
        y, z = x / high, state["second"] / high
        y = zeta * y + (1 - zeta) * z + increment(predict, z, grid, i, j, solver)
        z = z - increment(predict, y, grid, j, i, solver)
        return y * low, {**state, "second": z * low}

    return carried_wide(up), carried_wide(down)


def increment(predict: Any, z: Tensor, grid: Grid, i: int, j: int, solver: str) -> Tensor:
    """Psi: by how much the Runge-Kutta step from i to j, either way, moves z."""
    h = frame(grid, j)[1] - frame(grid, i)[1]
    near = predict if solver == "euler" else with_middle(predict, grid, i, j)
    start, end = (i, j) if solver == "euler" else (0, 2) if i < j else (2, 0)
    points = grid if solver == "euler" else near.grid

    def slope(z: Tensor, k: int) -> Tensor:
        return direction(near(z * frame(points, k)[0], k), points)

    first = slope(z, start)
    if solver == "euler":
        return h * first
    second = slope(z + h / 2 * first, MIDDLE)
    if solver == "midpoint":
        return h * second
    third = slope(z + h / 2 * second, MIDDLE)
    fourth = slope(z + h * third, end)
    return h / 6 * (first + 2 * second + 2 * third + fourth)
