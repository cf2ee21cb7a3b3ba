"""The first step, out of the clean end: Anderson's mixing from where the picture alone leads, and a second try.

There sigma_i is almost 0 and the picture hardly fixes eps: `y = alpha_j x_i / alpha_i + (sigma_j - alpha_j sigma_i /
alpha_i) eps(y, t_j)` may have several roots, and the plain iteration, started at x_i, runs away from the one that is
near. A root whose eps is longer than noise is (`shell`) is one of those that lie outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.numbers.grid import Grid
from unsample.numbers.solvers.anderson import anderson
from unsample.numbers.solvers.ddim import carry
from unsample.numbers.solvers.fixed_point import LOOSE, fixed_point_invert, rms
from unsample.numbers.solvers.krylov import FACTORS, krylov_solve
from unsample.numbers.solvers.stochastic import joining
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1e-10  # of the least squares
OUTER = 1.1  # the RMS of eps above which a root lies outside
VECTORS, ROUNDS, DAMPING = 24, 5, 0.1  # of the second try


def leave(num_iters: int, memory: int, tol: float | None, restart: bool) -> Step:
    """The step. Its state holds `residual` and `converged`, as that of `fixed_point_invert`.

    Args:
        num_iters: evaluations at most of the first try.
        memory: of Anderson's mixing.
        tol: a picture ends where the RMS of its residual is at most tol * sigma_j; None: none does.
        restart: whether pictures that end outside begin again, by `krylov_solve`; kept is what then ends inside.
    """
    mixed = fixed_point_invert(num_iters, tol, anderson(RIDGE), memory, of_noise=True)

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        guess = grid.alpha[j] / grid.alpha[i] * x
        found, told = mixed(predict, x, grid, i, j, state, guess)
        outer = (shell(x, found, grid, i, j) > OUTER).nonzero()[:, 0]
        if not restart or len(outer) == 0:
            return found, told

        def evaluate(y: Tensor, rows: Tensor) -> Tensor:
            return carry(x[rows], predict(y, j, rows), grid, i, j) - y

        again, left = krylov_solve(
            evaluate,
            guess[outer],
            outer,
            scale=grid.sigma[j],
            vectors=VECTORS,
            rounds=ROUNDS,
            damping=DAMPING,
            tol=(tol or 0.0) * grid.sigma[j],
        )
        inside = shell(x[outer], again, grid, i, j) <= OUTER
        rows, again, left = outer[inside], again[inside], rms(left[inside])
        residual = told["residual"].index_copy(0, rows, left / rms(again))
        converged = told["converged"].index_copy(0, rows, left <= LOOSE * grid.sigma[j])
        return found.index_copy(0, rows, again), {**told, "residual": residual, "converged": converged}

    return step


def restarted() -> int:
    """Evaluations of a second try at most."""
    return 1 + ROUNDS * (VECTORS + len(FACTORS))


def shell(x: Tensor, y: Tensor, grid: Grid, i: int, j: int) -> Tensor:
    """The RMS of the eps along which the step went from x at i to y at j, (B,): of noise itself it is 1."""
    return rms(joining(x, y, grid, i, j).eps)
