"""The first two steps out of the clean end together: an attempt at them, and a root of both at once.

There the picture hardly fixes eps, and a step solved by itself may end at a root that no trajectory passes. An attempt
of fixed cost says where solvers of each step lead and what they leave (`Attempt`); from a better guess of x_2 the root
of `x_0 = f_1(f_2(x_2))` is sought as one equation, by Levenberg-Marquardt in a Krylov space (`krylov`): a root of the
second step alone would be one for a wrong x_1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.numbers.grid import Grid
from unsample.numbers.prediction import direction
from unsample.numbers.solvers.anderson import anderson
from unsample.numbers.solvers.ddim import carry, ddim_sample
from unsample.numbers.solvers.fixed_point import fixed_point_invert
from unsample.numbers.solvers.krylov import FACTORS, krylov_solve
from unsample.numbers.solvers.leaving import RIDGE
from unsample.numbers.solvers.stochastic import joining, noisy_transfer

if TYPE_CHECKING:
    from torch import Tensor

VECTORS, DAMPING = 12, 0.1  # of the Krylov space
EARLY, LATE = 1, 2  # rounds to the first look at the first step, and on to the second
MIXED = 10  # evaluations of the second step
ROUNDS = 3  # of the polish
TIMES = 8.0  # what is left of an equation, so that it counts beside eps
PARTS = 7  # tensors of the shape of x_0 in the features


@dataclass(frozen=True)
class Attempt:
    """Where solvers of the first two steps lead in `ATTEMPT` evaluations."""

    x1: Tensor  # (B, C, H, W)
    features: Tensor  # (B, 7 C, H, W): x_0; direction and residual of step 1, early and late; the same of step 2

    @property
    def first(self) -> Tensor:
        """The direction of step 1, late: (B, C, H, W)."""
        return self.features.chunk(PARTS, 1)[3]

    @property
    def second(self) -> Tensor:
        """That of step 2."""
        return self.features.chunk(PARTS, 1)[5]


def attempted(predict: Any, x0: Tensor, grid: Grid) -> Attempt:
    """An attempt at x_1, from alpha_1 x_0 / alpha_0, and from there at x_2."""
    import torch

    rows = torch.arange(len(x0), device=x0.device)

    def first(y: Tensor, rows: Tensor) -> Tensor:
        return carry(x0[rows], predict(y, 1, rows), grid, 0, 1) - y

    def told(x: Tensor, y: Tensor, left: Tensor, i: int, j: int) -> list[Tensor]:
        return [going(x, y, grid, i, j), TIMES * left / grid.sigma[j]]

    at, seen = grid.alpha[1] / grid.alpha[0] * x0, [x0]
    for rounds in (EARLY, LATE):
        at, left = krylov_solve(
            first, at, rows, scale=grid.sigma[1], vectors=VECTORS, rounds=rounds, damping=DAMPING, tol=0.0
        )
        seen += told(x0, at, left, 0, 1)
    mixed = fixed_point_invert(MIXED - 1, None, anderson(RIDGE), MIXED)
    x2, _ = mixed(predict, at, grid, 1, 2, {})
    seen += told(at, x2, carry(at, predict(x2, 2), grid, 1, 2) - x2, 1, 2)
    return Attempt(at, torch.cat(seen, 1))


ATTEMPT = (1 + EARLY * (VECTORS + len(FACTORS))) + (1 + LATE * (VECTORS + len(FACTORS))) + MIXED


def going(x: Tensor, y: Tensor, grid: Grid, i: int, j: int) -> Tensor:
    """What the step from x at i to y at j went along: eps, or of a flow the velocity."""
    return direction(joining(x, y, grid, i, j), grid)


def led(x0: Tensor, first: Tensor, second: Tensor, grid: Grid) -> Tensor:
    """x_2, where steps along these directions lead."""
    x1 = noisy_transfer(x0, first, grid, 0, 1, 0.0, None)
    return noisy_transfer(x1, second, grid, 1, 2, 0.0, None)


def both_solved(
    predict: Any, x0: Tensor, x2: Tensor, grid: Grid, rows: Tensor, tol: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The root of both steps at once near x_2, for some pictures: x_1, x_2 and what is left of the equation.

    Args:
        predict: asked with `rows`.
        x0: (B, C, H, W), of all pictures.
        x2: (R, C, H, W), where to start.
        grid: the noise levels.
        rows: (R,) int64, which pictures these are.
        tol: a picture ends where the RMS of what is left is at most tol * sigma_2; None: all rounds run.

    Returns:
        x_1, x_2 (R, C, H, W), and the residual (R, C, H, W) on the scale of x_2. x_1 is the sampling step from x_2, so
        the second step holds to rounding.
    """

    def up(y: Tensor, some: Tensor) -> Tensor:
        second = predict(y, 2, some)
        x1 = grid.alpha[1] * second.x0 + grid.sigma[1] * second.eps
        raised = carry(x0[some], predict(x1, 1, some), grid, 0, 1)
        return carry(raised, second, grid, 1, 2) - y

    stop = (tol or 0.0) * grid.sigma[2]
    found, left = krylov_solve(
        up, x2, rows, scale=grid.sigma[2], vectors=VECTORS, rounds=ROUNDS, damping=DAMPING, tol=stop
    )
    x1, _ = ddim_sample(lambda y, i: predict(y, i, rows), found, grid, 2, 1, {})
    return x1, found, left


BOTH = 2 * (1 + ROUNDS * (VECTORS + len(FACTORS))) + 1
"""Evaluations of `both_solved`."""
