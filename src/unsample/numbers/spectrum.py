"""What the first step of a fixed-point inversion does to an error: the eigenvalues of its map's derivative.

The first step solves `y = F(y)`, `F(y) = alpha_1 (x0 - sigma_0 eps(y)) / alpha_0 + sigma_1 eps(y)`. The derivative of
F is `c d eps / d x`, `c = sigma_1 - alpha_1 sigma_0 / alpha_0`. With an eigenvalue above 1 in size the root repels
the plain iteration, which ends elsewhere, or nowhere; with all well below 1 the root is alone around there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unsample.numbers.solvers.ddim import carry
from unsample.numbers.solvers.fixed_point import each, rms
from unsample.numbers.solvers.krylov import arnoldi

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

PRODUCTS = 8  # of the derivative with a vector, one evaluation each, and one at the point itself
POWER = 12  # iterations of `dominant`, two evaluations each


def factor(grid: Grid, i: int) -> float:
    """By how much the fixed point's map from level i - 1 to i carries eps."""
    return grid.sigma[i] - grid.alpha[i] * grid.sigma[i - 1] / grid.alpha[i - 1]


def first_step_radius(predict: Any, x0: Tensor, x1: Tensor) -> Tensor:
    """The spectral radius of the first step's map at the point that it reached: (B,), nan where that is not finite.

    It costs `PRODUCTS` + 1 predictions a picture.

    Args:
        predict: the prediction of the walk.
        x0: (B, C, H, W), at the clean end.
        x1: (B, C, H, W), at grid point 1.
    """
    grid = predict.grid
    return spectral_radius(lambda y: carry(x0, predict(y, 1), grid, 0, 1), x1, grid.sigma[1])


def spectral_radius(evaluate: Callable[[Tensor], Tensor], at: Tensor, scale: float, products: int = PRODUCTS) -> Tensor:
    """The largest size of an eigenvalue of a map's derivative, picture by picture: (B,), by Arnoldi's iteration.

    From one start for all, so that a picture's radius is the same in any batch; with few products it comes out a few
    hundredths low at most where the spectrum is that of a smooth network.

    Args:
        evaluate: the map, (B, ...) to (B, ...).
        at: where, (B, ...).
        scale: the size of what is natural at `at`, such as the level's sigma.
        products: of the derivative, one evaluation each, beside the one at the point itself.
    """
    import torch

    start = torch.randn(at.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(at)
    _, projected = arnoldi(evaluate, at, evaluate(at), scale, products, start.expand_as(at))
    square = projected[:, : projected.shape[2]].cpu()
    sound = square.flatten(1).isfinite().all(1)
    found = torch.linalg.eigvals(torch.where(each(sound, square), square, 0.0)).abs().amax(1)
    return torch.where(sound, found, torch.nan).to(at)


def dominant(linear: Callable[[Tensor], Tensor], at: Tensor, scale: float, iterations: int = POWER) -> Tensor:
    """The eigenvalue of largest size of a map's derivative, with its sign: (B,), by power iteration.

    Derivatives are central differences of 2 % of `scale`; the size is the last growth, the sign that of v . J v.

    Args:
        linear: the map, (B, ...) to (B, ...).
        at: where, (B, ...).
        scale: the size of what is natural at `at`, such as the level's sigma.
        iterations: of two evaluations.
    """
    import torch

    generator, step = torch.Generator().manual_seed(0), 0.02 * scale
    v = torch.randn(at.shape[1:], generator=generator).to(at).expand_as(at)
    growth = sign = torch.zeros(len(at))
    for _ in range(iterations):
        v = v / each(rms(v), v)
        moved = (linear(at + step * v) - linear(at - step * v)) / (2 * step)
        growth, sign = rms(moved), (v * moved).flatten(1).sum(1).sign()
        v = moved + 1e-12 * v
    return growth * sign
