"""Guided Newton-Raphson on a scalar: `F(y) = || y - f(y) ||_1 + weight G(y)`, f(y) = transfer(x_i, eps(y, t_j)).

`y <- y - F(y) / (D (dF/dy + eta))`, coordinate by coordinate, D coordinates. F is a sum over all of
them, so each coordinate moves by about the mean residual. `newton_invert` is the paper's (gradient through the
network), `sign_invert` what the authors' code comes to (no gradient through the network).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unsample.numbers.grid import Grid
from unsample.numbers.solvers.best import Best, relative_size
from unsample.numbers.solvers.ddim import carry
from unsample.numbers.solvers.fixed_point import each, rms
from unsample.numbers.solvers.gradient import gradient_of
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

Look = Callable[..., "tuple[Tensor, Tensor, Tensor]"]
"""`look(predict, sources, guess, grid, ends, rows) -> (f(y), F(y) / D, change)`."""


def newton_invert(num_iters: int, weight: float, eta: float) -> Step:
    """The paper's: G is the distance from the mean of q(x_j | x_i) over its variance, and dF/dy is exact."""

    def look(
        predict: Any, sources: tuple[Tensor, Tensor], guess: Tensor, grid: Grid, ends: tuple[int, int], rows: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        import torch

        (i, j), (x, _) = ends, sources
        keep = grid.alpha[j] / grid.alpha[i]  # q(x_j | x_i), several training steps in one, is normal around keep x_i
        variance = grid.sigma[j] ** 2 - (keep * grid.sigma[i]) ** 2  # 1 - keep^2 where alpha^2 + sigma^2 = 1
        with torch.enable_grad():
            at = guess.detach().requires_grad_(True)
            image = carry(x, predict(at, j, rows), grid, i, j)
            value = (at - image).flatten(1).abs().sum(1)
            if variance > 0:  # a step of zero length has nothing to be guided by
                value = value + weight * torch.linalg.vector_norm((at - keep * x).flatten(1), dim=1) / variance
            slope = gradient_of(value.sum(), at, predict, j, rows)
        score = value.detach() / x[0].numel()
        return image.detach(), score, -each(score, slope) / (slope + eta)

    return _iterate(look, num_iters)


def sign_invert(num_iters: int, weight: float) -> Step:
    """The code's: G is 1/2 ((f(y) - alpha_j x_0) / sigma_j)^2, and f counts as constant, so dF/dy = sign(y - f(y)).

    A coordinate with y = f(y) stays; the code divides by zero there.
    """

    def look(
        predict: Any, sources: tuple[Tensor, Tensor], guess: Tensor, grid: Grid, ends: tuple[int, int], rows: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        (i, j), (x, clean) = ends, sources
        image = carry(x, predict(guess, j, rows), grid, i, j)
        prior = 0.5 * ((image - grid.alpha[j] * clean) / grid.sigma[j]).square()
        score = ((image - guess).abs() + weight * prior).flatten(1).mean(1)
        return image, score, each(score, image) * (image - guess).sign()

    return _iterate(look, num_iters)


def _iterate(look: Look, num_iters: int) -> Step:
    """The step, from x or from `start`: f of the iterate with the smallest F, as the authors' code returns it.

    No pass is spent on residuals. The state must hold `clean`, the picture's own latent.
    """

    def step(
        predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State, start: Tensor | None = None
    ) -> tuple[Tensor, State]:
        found, clean = Best(x), state["clean"]
        guess = x if start is None else start
        for _ in range(num_iters):
            rows = found.rows
            sources = (x, clean) if rows is None else (x[rows], clean[rows])
            image, score, change = look(predict, sources, guess, grid, (i, j), rows)
            found.see(image, score, relative_size(rms(image - guess), rms(guess)))
            going = score.isfinite()
            guess = (guess + change)[going]
            if not found.go_on(going):
                break
        return found.iterate, found.judged(state, None, j)

    return step
