"""Implicit DDIM inversion: the next point solves the sampling step for its input, by fixed-point iteration.

`x_j = F(x_j)`, `F(y) = transfer(x_i, eps(y, t_j))`; one iteration from y = x_i is DDIM inversion. Each picture has its
own residual RMS(F(x_k) - x_k) and its own end. The next iterate is F(x_k) itself, or what an accelerator makes
of the last few images F(x_k) (AIDI, arXiv:2309.04907): a transfer is affine in eps, so an average of images is the
image of the averaged eps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from unsample.numbers.grid import Grid
from unsample.numbers.solvers.ddim import carry
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

DIVERGING = 10.0  # a residual this many times the best one is running away
LOOSE = 1e-2  # without a tolerance: a residual of more than 1 % of x is not called converged


Accelerator: TypeAlias = "Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]"
"""The next iterate, from the last images F(x_k) and the last residuals F(x_k) - x_k, newest last, row by row."""


def rms(x: Tensor) -> Tensor:
    """Root mean square of each picture: (B,)."""
    return x.flatten(1).square().mean(1).sqrt()


def each(value: Tensor, x: Tensor) -> Tensor:
    """A value a picture (B,), to be broadcast with x (B, ...)."""
    return value.reshape(-1, *[1] * (x.ndim - 1))


def latest(images: Sequence[Tensor], residuals: Sequence[Tensor]) -> Tensor:
    """The naive iteration: the image itself."""
    return images[-1]


def with_residual(state: State, relative: Tensor, converged: Tensor, j: int) -> State:
    """The state with the worst of the steps so far, and the grid point that it was reached at.

    Args:
        state: of the steps before.
        relative: (B,) the residual of this step over the size of what it is of.
        converged: (B,) bool.
        j: the grid point of this step.
    """
    import torch

    here = torch.full(relative.shape, j, dtype=torch.int64, device=relative.device)
    before = state.get("residual", torch.full_like(relative, -1))
    return {
        **state,
        "residual": torch.maximum(before, relative),
        "residual_step": torch.where(relative > before, here, state.get("residual_step", here)),
        "converged": state.get("converged", torch.ones_like(converged)) & converged,
    }


def fixed_point_invert(
    num_iters: int, tol: float | None, accelerate: Accelerator = latest, memory: int = 1, *, of_noise: bool = False
) -> Step:
    """The step, from x or from `start`. Its state holds `residual` (B,), the largest of any step over RMS(x),
    `residual_step` (B,), where that was, and `converged` (B,).

    Args:
        num_iters: iterations a step.
        tol: a picture stops when its residual is at most tol * RMS(x_k).
        of_noise: whether the tolerance is over the noise of the level reached, tol * sigma_j, in place of RMS(x_k); a
            picture that does not come so far has converged where its residual is at most 1 % of sigma_j.
        accelerate: makes the next iterate.
        memory: how many images and residuals it is given.
    """

    def step(
        predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State, start: Tensor | None = None
    ) -> tuple[Tensor, State]:
        import torch

        guess, best = (x if start is None else start), x
        images: list[Tensor] = []
        residuals: list[Tensor] = []
        smallest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        relative, first = smallest.clone(), smallest
        met = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        active = torch.arange(len(x), device=x.device)
        for k in range(num_iters):
            rows = None if len(active) == len(x) else active
            source, at = (x, guess) if rows is None else (x[rows], guess[rows])
            image = carry(source, predict(at, j, rows), grid, i, j)
            images, residuals = [*images, image][-memory:], [*residuals, image - at][-memory:]
            residual, scale = rms(residuals[-1]), rms(at)
            onward = accelerate(images, residuals)
            better = (residual < smallest[active]) | (k == 0)
            chosen = active[better]
            best, smallest = best.clone(), smallest.clone()
            best[chosen], smallest[chosen] = onward[better], residual[better]
            relative[chosen] = torch.where(residual > 0, residual / scale, 0.0)[better]
            first = smallest if k == 0 else first
            guess = guess.index_copy(0, active, onward)
            going = residual.isfinite()  # a picture that is lost keeps its best iterate and costs nothing more
            if tol is not None:
                enough = residual <= tol * (grid.sigma[j] if of_noise else scale)
                met = met.index_copy(0, active, met[active] | enough)
                going &= ~enough & (residual <= DIVERGING * smallest[active])
            active = active[going]
            images, residuals = ([past[going] for past in kept] for kept in (images, residuals))
            if len(active) == 0:
                break
        converged = (smallest < first) & (relative <= LOOSE) if tol is None else met
        if num_iters == 1 and tol is None:
            converged = torch.ones_like(converged)
        if of_noise:
            converged = met | (smallest <= LOOSE * grid.sigma[j])
        floor = 10 * torch.finfo(x.dtype).eps
        converged = converged | (relative <= floor)
        return best, with_residual(state, relative, converged, j)

    return step
