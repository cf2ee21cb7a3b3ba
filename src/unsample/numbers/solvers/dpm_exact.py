"""Exact inversion of DPM-Solver++ (Hong et al., 2024, arXiv:2311.18387, Algorithms 1 and 2): backward Euler.

The sampling step from j to i is `x_i = a x_j + b (m_j + c (m_j - m_(j+1)))`. Order 1 solves it for x_j. Of order 2 the
term with c needs x_j and the point after it, which the walk has not reached: it is fixed at two anchors, run ahead by
naive DDIM inversion in steps of `fine_step` timesteps, and the rest is solved. The iteration is the forward step method
`x_j <- x_j - rho (f(x_j) - x_i)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.numbers.grid import Grid
from unsample.numbers.solvers.best import Best, relative_size
from unsample.numbers.solvers.ddim import ddim_invert_at_target
from unsample.numbers.solvers.dpm_solver import weights
from unsample.numbers.solvers.fixed_point import rms
from unsample.numbers.walk import State, Step, walk

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = 0.5  # what rho is reduced by on a plateau
THRESHOLD = 1e-4  # an error that falls by less than this part of it is on a plateau


@dataclass(frozen=True)
class Correction:
    """How the equation is iterated. Defaults: the authors' code."""

    max_iters: int = 500
    tol: float | None = 6e-8  # mean squared residual an element: 1e-3 over 16,384 of them
    step_size: float | None = 0.5  # rho; None: 0.5 for order 1, else 10 / timestep of the cleaner end, 0.5 at most
    warmup: int = 20  # iterations over which rho grows to its value
    patience: int = 20  # iterations without progress before rho is halved


def dpm_exact(order: int, how: Correction, fine_step: int = 10) -> Step:
    """The step, from cleaner i to noisier j. The state must hold `stop` (B,), the noisiest point that is reached.

    The steps out of the clean end and into the noisiest point are of order 1, as they are when sampling.
    """

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if order == 1 or i == 0 or j == int(state["stop"][0]):
            a, b, _ = weights(grid, j, i, None)
            start, _ = ddim_invert_at_target(predict, x, grid, i, j, {})
            problem = Problem(predict, x, j, (a, b), 0 * x)
        else:
            a, b, c = weights(grid, j, i, j + 1)
            start = run_ahead(predict, x, grid, i, j, fine_step)
            after = run_ahead(predict, start, grid, j, j + 1, fine_step)
            now = predict(start, j).x0
            problem = Problem(predict, x, j, (a, b), b * c * (now - predict(after, j + 1).x0), now)
        found = solve(problem, start, how, _step_size(how, order, grid, i))
        within = None if how.tol is None else found.smallest <= how.tol
        return found.iterate, found.judged(state, within, j)

    return step


def _step_size(how: Correction, order: int, grid: Grid, i: int) -> float:
    if order == 2 and i == 0 and how.step_size in (None, Correction.step_size):
        return 1.0
    if how.step_size is not None:
        return how.step_size
    return 0.5 if order == 1 else min(0.5, 10 / max(grid.timesteps[i], 1))


@dataclass(frozen=True)
class Problem:
    """`x = a y + b x0(y, t_j) + high`, to be solved for y."""

    predict: Any
    x: Tensor
    j: int
    linear: tuple[float, float]
    high: Tensor  # the high-order term, fixed
    first: Tensor | None = None  # x0(y) at the start, where it is known

    def error(self, y: Tensor, rows: Tensor | None, k: int) -> Tensor:
        """f(y) - x of some pictures."""
        a, b = self.linear
        x0 = self.first if k == 0 and self.first is not None else self.predict(y, self.j, rows).x0
        x, high = (self.x, self.high) if rows is None else (self.x[rows], self.high[rows])
        return a * y + b * x0 + high - x


def solve(problem: Problem, start: Tensor, how: Correction, step_size: float) -> Best:
    """Iterate, each picture with its own rho and its own end."""
    import torch

    found, guess = Best(start), start
    rho = torch.full((len(start),), step_size, dtype=start.dtype, device=start.device)
    lowest, bad = torch.full_like(rho, torch.inf), torch.zeros_like(rho)
    for k in range(how.max_iters):
        error = problem.error(guess, found.rows, k)
        loss = error.flatten(1).square().mean(1)
        found.see(guess, loss, relative_size(loss.sqrt(), rms(guess)))
        grown = rho if k >= how.warmup else torch.full_like(rho, step_size * (k + 1) / how.warmup)
        guess = guess - grown[:, None, None, None] * error
        progress = loss < lowest * (1 - THRESHOLD)
        lowest, bad = torch.where(progress, loss, lowest), torch.where(progress, 0.0, bad + 1)
        rho, bad = torch.where(bad > how.patience, rho * FACTOR, rho), torch.where(bad > how.patience, 0.0, bad)
        going = loss.isfinite()
        if how.tol is not None:
            going &= loss > how.tol
        guess, rho, lowest, bad = guess[going], rho[going], lowest[going], bad[going]
        if not found.go_on(going):
            break
    return found


def fine_steps(earlier: float, later: float, fine_step: int) -> int:
    """Into how many steps of about `fine_step` timesteps a step is cut."""
    return max(1, math.ceil((later - earlier) / fine_step))


def run_ahead(predict: Any, x: Tensor, grid: Grid, i: int, j: int, fine_step: int) -> Tensor:
    """Naive DDIM inversion from i to j on a finer grid, under the guidance of j."""
    fine = finer(grid, getattr(predict.model.scheduler, "alphas_cumprod", None), i, j, fine_step)
    at, _ = walk(ddim_invert_at_target, predict.on(fine, predict.scales[j]), x, fine, range(fine.num_steps + 1))
    return at


def finer(grid: Grid, alphas_cumprod: Tensor | None, i: int, j: int, fine_step: int) -> Grid:
    """The grid from i to j through the levels of the timesteps between them: rows of the table, a line of a flow.

    Raises:
        Incompatible: levels that are neither.
    """
    earlier, later = grid.timesteps[i], grid.timesteps[j]
    count = fine_steps(earlier, later, fine_step)
    inner = range(1, count)
    between: list[float]
    if grid.is_flow:
        between = [earlier + (later - earlier) * k / count for k in inner]
        noise = [grid.sigma[i] + (grid.sigma[j] - grid.sigma[i]) * k / count for k in inner]
        picture = [1 - s for s in noise]
    elif alphas_cumprod is not None:
        rows = [math.floor(earlier) + round((later - earlier) * k / count) for k in inner]
        abar, between = [float(alphas_cumprod[t].double()) for t in rows], [*rows]
        picture, noise = [math.sqrt(a) for a in abar], [math.sqrt(1 - a) for a in abar]
    else:
        raise Incompatible(
            "dpm_solver of order 2 runs ahead between the points of the grid, and this scheduler has no levels there; "
            "use order=1"
        )
    alpha, sigma = ((own[i], *fine, own[j]) for own, fine in ((grid.alpha, picture), (grid.sigma, noise)))
    return replace(
        grid, alpha=alpha, sigma=sigma, timesteps=(earlier, *between, later), eval_alpha=alpha, eval_sigma=sigma
    )
