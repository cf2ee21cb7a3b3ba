"""What algebraically reversible samplers share: a DDIM step as a line, and the walk of a two-point recursion.

A DDIM step at fixed eps is `x_j = a x_i + b eps`; of a flow it is Euler's, `x_j = x_i + b v`, and the velocity v stands
wherever eps is written here. A two-point sampler goes down by
`x_(i-1) = p x_(i+1) + q x_i + r eps(x_i, t_i)`, and up by the same equation solved for x_(i+1): one set of weights, so
the two directions are inverses of each other by construction, whatever the network is.

An inverse magnifies what rounding left out (1e3 to 1e4 times over 50 steps), so these samplers are carried in float64,
as the authors of EDICT do, whatever the state's and the network's dtype; the record keeps what rounding takes off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.numbers.grid import Grid, transfer
from unsample.numbers.prediction import direction
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.numbers.prediction import Prediction

Weights = Callable[[Grid, int, int, int], tuple[float, float, float]]
"""`weights(grid, k, i, j) -> (p, q, r)` of the noisier neighbour k, of the point i and of eps, for the cleaner j."""


def line(grid: Grid, i: int, j: int) -> tuple[float, float]:
    """(a, b) of the DDIM step `x_j = a x_i + b eps` (a flow's velocity in place of eps), either way."""
    if grid.is_flow:
        return 1.0, grid.sigma[j] - grid.sigma[i]
    a = grid.alpha[j] / grid.alpha[i]
    return a, grid.sigma[j] - a * grid.sigma[i]


def check_reversible(name: str, grid: Grid, stop: int) -> None:
    """Refuse a grid on which the sampler has no inverse.

    Raises:
        Incompatible: alpha = 0 at the noisiest point, unless it is a flow's, or a clamp of the predicted x0.
    """
    if grid.alpha[stop] == 0 and not grid.is_flow:
        raise Incompatible(
            f"{name} divides by alpha, which is 0 at the noisiest point (zero terminal SNR, timestep "
            f"{grid.timesteps[stop]}); use strength below 1, or ddim or fixed_point"
        )
    if grid.clip is not None:
        raise Incompatible(f"{name} is exact because every step can be undone, and a clamp cannot; use clip='off'")


def nothing_passed(grid: Grid) -> bool:
    """Every step is a step."""
    return False


@dataclass(frozen=True)
class Rounded:
    """A `predict` that is asked at points rounded to the state's own dtype."""

    predict: Any
    dtype: torch.dtype

    def __call__(self, x: Tensor, i: int) -> Prediction:
        """As `Predict`."""
        found: Prediction = self.predict(x.to(self.dtype), i)
        return found

    def on(self, grid: Grid, scale: float) -> Rounded:
        """As `Predict.on`."""
        return Rounded(self.predict.on(grid, scale), self.dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.predict, name)


def carried_wide(step: Step) -> Step:
    """The step in float64, between points of the state's own dtype.

    The state gains `rest`, what rounding took off the point reached; the other state is float64 itself. The network is
    asked at the rounded point.
    """

    def wide(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        import torch

        exact = torch.float64 if x.device.type != "mps" else x.dtype  # mps has no float64
        carried = {name: value.to(exact) for name, value in state.items() if name != "rest"}
        start = x.to(exact) + state["rest"] if "rest" in state else x.to(exact)
        reached, after = step(Rounded(predict, x.dtype), start, grid, i, j, carried)
        rounded = reached.to(x.dtype)
        return rounded, {**after, "rest": (reached - rounded).to(torch.float32)}  # 24 + 24 bits are enough

    return wide


def two_point_steps(weights: Weights, passed: Callable[[Grid], bool] = nothing_passed) -> tuple[Step, Step]:
    """The pair (up, down) of a two-point recursion. Its state up is `cleaner`, the point before the one reached.

    Up, the first step has no point before it and is DDIM with eps at its own start. Down, the first step is the kept
    point and costs nothing; from fresh noise, where none is kept, it is DDIM. `passed` says whether the step between
    points 0 and 1 of a grid has no length: both directions then hand x on, and the recursion begins above it.
    """

    def up(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        below = {**state, "cleaner": x}
        if i == 0 and passed(grid):
            return x, below
        along = direction(predict(x, i), grid)
        if i == int(passed(grid)):
            return transfer(x, along, grid, i, j), below
        p, q, r = weights(grid, j, i, 2 * i - j)
        return (state["cleaner"] - q * x - r * along) / p, below

    def down(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        above = {**{name: value for name, value in state.items() if name != "cleaner"}, "noisier": x}
        if "cleaner" in state:
            return state["cleaner"], above
        if j == 0 and passed(grid):
            return x, above
        if "noisier" not in state:
            return transfer(x, direction(predict(x, i), grid), grid, i, j), above
        p, q, r = weights(grid, 2 * i - j, i, j)
        return p * state["noisier"] + q * x + r * direction(predict(x, i), grid), above

    return carried_wide(up), carried_wide(down)
