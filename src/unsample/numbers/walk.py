"""The only loop. Ascending points invert, descending points sample; everything that watches hangs on `observe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

State = Mapping[str, Any]
"""What a step carries beside x: tensors whose first axis is the picture."""

Step = Callable[..., "tuple[Tensor, State]"]
"""`step(predict, x, grid, i, j, state) -> (x_next, state)`, carrying x from grid point i to j."""

Observe = Callable[[int, int, "Tensor", State], "Tensor"]
"""`observe(step_index, j, x, state) -> x`, called after each step with the point that was reached."""


def walk(
    step: Step,
    predict: Any,
    x: Tensor,
    grid: Grid,
    points: Sequence[int],
    state: State | None = None,
    observe: Observe | None = None,
) -> tuple[Tensor, State]:
    """Carry `x` through grid points with one step rule.

    Args:
        step: the rule; a sampling rule goes with descending points, an inversion rule with ascending ones.
        predict: `predict(x, i, rows=None) -> Prediction`: model, condition and guidance joined.
        x: (B, C, H, W), at `points[0]`.
        grid: the noise levels.
        points: indices into the grid.
        state: what the rule carries, from an earlier walk.
        observe: called after each step; what it returns goes on.
    """
    state = state or {}
    for k, (i, j) in enumerate(pairwise(points)):
        x, state = step(predict, x, grid, i, j, state)
        if observe is not None:
            x = observe(k, j, x, state)
    return x, state
