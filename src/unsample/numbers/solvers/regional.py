"""Guidance from one prompt to another that is stronger where the two disagree (Uni-Edit, arXiv:2504.13109).

`v = v_s + (m + omega (1 + m)) (v_t - v_s)`: with m the size of the difference, averaged over channels and stretched to
[0, 1] a picture, `m v_t + (1 - m) v_s` fuses the velocities, and `omega (1 + m) (v_t - v_s)` is what going back one
step along v_s and forth along v_t adds. Both are asked at the same point, so that eps and x0 in the place of v give the
same step, and m is that of x0, which differs by a factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


def disagreement(difference: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 1]: how much is said at each place, the least 0 and the most 1; 0 where nothing differs."""
    size = difference.abs().mean(1, keepdim=True)
    low, high = size.amin((1, 2, 3), keepdim=True), size.amax((1, 2, 3), keepdim=True)
    return (size - low) / (high - low).where(high > low, 1.0)


def regional(omega: float) -> Step:
    """The sampling step from noisier i to cleaner j; its `predict` has two, `source` and `target`.

    Args:
        omega: strength of the correction; 0 leaves the fusion.
    """

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        source, target = predict.source(x, i), predict.target(x, i)
        x0, eps = target.x0 - source.x0, target.eps - source.eps
        mask = disagreement(x0)
        share = mask + omega * (1 + mask)
        return grid.alpha[j] * (source.x0 + share * x0) + grid.sigma[j] * (source.eps + share * eps), state

    return step
