"""The middle of a step: what the midpoint rule and Runge-Kutta stages ask the network at, where the grid has no point.

The middle is that of the variable in which the probability-flow ODE is `dz = direction dlevel`: z = x over level =
sigma of a flow, z = x / alpha over level = sigma / alpha otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unsample.numbers.grid import Grid
from unsample.numbers.levels import preserving
from unsample.numbers.prediction import direction
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

MIDDLE = 1  # index into a grid of three points: cleaner end, middle, noisier end


def frame(grid: Grid, i: int) -> tuple[float, float]:
    """(scale, level) of grid point i: z = x / scale."""
    return (1.0, grid.sigma[i]) if grid.is_flow else (grid.alpha[i], grid.sigma[i] / grid.alpha[i])


def with_middle(predict: Any, grid: Grid, i: int, j: int) -> Any:
    """`predict` on the three points of the step between i and j, under the guidance of its noisier end."""
    low, high = min(i, j), max(i, j)
    if grid.is_flow:
        sigma = (grid.sigma[low] + grid.sigma[high]) / 2
        alpha, timestep = 1 - sigma, (grid.timesteps[low] + grid.timesteps[high]) / 2
        at = alpha, sigma
    else:
        level = (frame(grid, low)[1] + frame(grid, high)[1]) / 2
        alpha, sigma = preserving(level)
        timestep, asked = timestep_at(getattr(predict.model.scheduler, "alphas_cumprod", None), level, grid, low, high)
        at = preserving(asked)
    points = (low, high)
    three = Grid(
        _around(grid.alpha, points, alpha),
        _around(grid.sigma, points, sigma),
        _around(grid.timesteps, points, timestep),
        _around(grid.eval_alpha, points, at[0]),
        _around(grid.eval_sigma, points, at[1]),
        grid.prediction_type,
        grid.clip,
    )
    return predict.on(three, predict.scales[high])


def _around(values: tuple[float, ...], points: tuple[int, int], middle: float) -> tuple[float, float, float]:
    return values[points[0]], middle, values[points[1]]


def timestep_at(table: Tensor | None, level: float, grid: Grid, low: int, high: int) -> tuple[float, float]:
    """The timestep of a level sigma / alpha, and the level that it stands for, which is another below timestep 0 only.

    Between two rows of the table log(sigma / alpha) is a straight line. Schedulers without a table have angles for
    timesteps, or parts of them.
    """
    import torch

    if table is None:
        angles = [math.atan2(sigma, alpha) for sigma, alpha in ((grid.sigma[k], grid.alpha[k]) for k in (low, high))]
        share = (math.atan(level) - angles[0]) / (angles[1] - angles[0])
        return grid.timesteps[low] + share * (grid.timesteps[high] - grid.timesteps[low]), level
    abar = table.double()
    logs = ((1 - abar) / abar).log() / 2
    sought = math.log(level) if level > 0 else -math.inf
    if sought <= float(logs[0]):
        return 0.0, math.exp(float(logs[0]))
    row = min(int(torch.searchsorted(logs, sought)), len(logs) - 1)
    before, after = float(logs[row - 1]), float(logs[row])
    return row - 1 + min((sought - before) / (after - before), 1.0), level


def midpoint_step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """Of a flow, from i to j in either direction: `x_j = x_i + h v + h^2 / 2 (v_mid - v) / (h / 2)`, h = sigma_j -
    sigma_i, v_mid at `x_i + h v / 2`; that is `x_i + h v_mid`."""
    return _through_middle(predict, x, grid, i, j, direction(predict(x, i), grid))[0], state


def reusing_step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """The midpoint step whose way to the middle is along the velocity at the middle of the step before, `midway` in the
    state; the first step of a walk has none and asks at its own start."""
    v = state["midway"] if "midway" in state else direction(predict(x, i), grid)
    x, v = _through_middle(predict, x, grid, i, j, v)
    return x, {**state, "midway": v}


def _through_middle(predict: Any, x: Tensor, grid: Grid, i: int, j: int, v: Tensor) -> tuple[Tensor, Tensor]:
    """Where the velocity at the middle leads, and that velocity."""
    h, near = grid.sigma[j] - grid.sigma[i], with_middle(predict, grid, i, j)
    v = direction(near(x + h / 2 * v, MIDDLE), near.grid)
    return x + h * v, v
