"""Implicit DDIM inversion: the next point solves the sampling step for its input, by fixed-point iteration.

`x_j = F(x_j)`, `F(y) = transfer(x_i, eps(y, t_j))`, started at y = x_i; one iteration is DDIM inversion. Each picture
has its own residual RMS(F(x_k) - x_k) and its own end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.grid import Grid
from unsample.solvers.ddim import carry
from unsample.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

DIVERGING = 10.0  # a residual this many times the best one is running away
LOOSE = 1e-2  # without a tolerance: a residual of more than 1 % of x is not called converged


def rms(x: Tensor) -> Tensor:
    """Root mean square of each picture: (B,)."""
    return x.flatten(1).square().mean(1).sqrt()


def fixed_point_invert(num_iters: int, tol: float | None) -> Step:
    """The step. Its state holds `residual` (B,), the largest of any step over RMS(x), and `converged` (B,)."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        import torch

        guess, best = x, x
        smallest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        relative, first = smallest.clone(), smallest
        active = torch.arange(len(x), device=x.device)
        for k in range(num_iters):
            rows = None if len(active) == len(x) else active
            source, at = (x, guess) if rows is None else (x[rows], guess[rows])
            image = carry(source, predict(at, j, rows), grid, i, j)
            residual, scale = rms(image - at), rms(at)
            better = (residual < smallest[active]) | (k == 0)
            chosen = active[better]
            best, smallest = best.clone(), smallest.clone()
            best[chosen], smallest[chosen] = image[better], residual[better]
            relative[chosen] = torch.where(residual > 0, residual / scale, 0.0)[better]
            first = smallest if k == 0 else first
            guess = guess.index_copy(0, active, image)
            going = residual.isfinite()  # a picture that is lost keeps its best iterate and costs nothing more
            if tol is not None:
                going &= (residual > tol * scale) & (residual <= DIVERGING * smallest[active])
            active = active[going]
            if len(active) == 0:
                break
        converged = (smallest < first) & (relative <= LOOSE) if tol is None else relative <= tol
        if num_iters == 1 and tol is None:
            converged = torch.ones_like(converged)
        floor = 10 * torch.finfo(x.dtype).eps
        converged = converged | (relative <= floor)
        return best, {
            **state,
            "residual": torch.maximum(state.get("residual", torch.zeros_like(relative)), relative),
            "converged": state.get("converged", torch.ones_like(converged)) & converged,
        }

    return step
