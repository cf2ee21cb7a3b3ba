"""Levenberg-Marquardt in a Krylov space: a root of a map of whose derivative only products are known.

Arnoldi's vectors v_1 = r / |r|, v_2, ... with `J V_k = V_(k+1) H` come of the map alone, one evaluation each, as
`J v = (g(y + h v) - g(y)) / h`. In their span the step is `a = argmin || |r| e_1 + H a ||^2 + damping |a|^2`. Unlike a
fixed-point iteration it asks nothing of the sign of J: it goes on where the root repels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unsample.numbers.solvers.fixed_point import each

if TYPE_CHECKING:
    from torch import Tensor

FACTORS = (1.0, 0.25, 4.0)  # of the damping, tried in every round; the best one is the damping of the next

Evaluate = Callable[["Tensor", "Tensor"], "Tensor"]
"""`g(y, rows)`: what should be 0, for the pictures `rows` (int64) alone."""


def krylov_solve(
    evaluate: Evaluate, y: Tensor, rows: Tensor, *, scale: float, vectors: int, rounds: int, damping: float, tol: float
) -> tuple[Tensor, Tensor]:
    """The best point of each picture after some rounds, and its residual.

    A round takes `vectors` + 3 evaluations a picture.

    Args:
        evaluate: the map.
        y: (R, ...), where to start.
        rows: (R,), which pictures these are.
        scale: the RMS of a natural change of y, such as the level's sigma; differences are taken over 3 % of it.
        vectors: of the Krylov space, at most as many as a picture has values.
        rounds: how many steps.
        damping: of the first step, over the mean square of the singular values of H.
        tol: a picture ends where the RMS of its residual is at most this.

    Returns:
        y (R, ...) and its residual (R, ...).
    """
    import torch

    found, left = y, evaluate(y, rows)
    dampings = torch.full((len(y),), damping, dtype=torch.float64, device=y.device)
    for _ in range(rounds):
        going = (_norm(left) / y[0].numel() ** 0.5 > tol).nonzero()[:, 0]
        if len(going) == 0:
            break
        at, residual, own = found[going], left[going], rows[going]
        basis, projected = arnoldi(lambda z, own=own: evaluate(z, own), at, residual, scale, vectors)  # type: ignore[misc]
        best, smallest = residual, _norm(residual)
        point, chosen = at, dampings[going] * 4
        for factor in FACTORS:
            change = _step(basis, projected, _norm(residual), factor * dampings[going])
            moved = at + change.reshape(at.shape).to(at.dtype)
            new = evaluate(moved, own)
            better = _norm(new) < smallest
            best = torch.where(each(better, best), new, best)
            point = torch.where(each(better, point), moved, point)
            chosen = torch.where(better, factor * dampings[going], chosen)
            smallest = torch.where(better, _norm(new), smallest)
        found, left = found.index_copy(0, going, point), left.index_copy(0, going, best)
        dampings = dampings.index_copy(0, going, chosen)
    return found, left


def arnoldi(
    evaluate: Callable[[Tensor], Tensor],
    y: Tensor,
    residual: Tensor,
    scale: float,
    vectors: int,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """An orthonormal basis (R, k, n) of the Krylov space of each picture's residual, and H (R, k + 1, k) in float64.

    Args:
        evaluate: the map, of all R pictures.
        y: (R, ...), where.
        residual: (R, ...), the map at y.
        scale: the RMS of a natural change of y.
        vectors: k, one evaluation each.
        start: (R, ...), the first vector in the residual's place.
    """
    import torch

    flat = residual.flatten(1).double()
    count, size = flat.shape
    vectors = min(vectors, size)
    reach = 0.03 * scale * size**0.5
    basis = torch.zeros(count, vectors + 1, size, dtype=torch.float64, device=y.device)
    projected = torch.zeros(count, vectors + 1, vectors, dtype=torch.float64, device=y.device)
    first = flat if start is None else start.flatten(1).double()
    basis[:, 0] = first / _norm(first)[:, None].clamp(min=torch.finfo(torch.float64).tiny)
    for k in range(vectors):
        moved = y + (reach * basis[:, k]).reshape(y.shape).to(y.dtype)
        w = (evaluate(moved).flatten(1).double() - flat) / reach
        for _ in range(2):  # once more: what rounding left of the older vectors
            parts = basis[:, : k + 1] @ w[:, :, None]
            w = w - (basis[:, : k + 1].mT @ parts)[..., 0]
            projected[:, : k + 1, k] += parts[..., 0]
        length = _norm(w)
        projected[:, k + 1, k] = length
        basis[:, k + 1] = w / length[:, None].clamp(min=1e-300)
    return basis[:, :vectors], projected


def _step(basis: Tensor, projected: Tensor, size: Tensor, damping: Tensor) -> Tensor:
    """The change of y in the span of the basis."""
    import torch

    vectors = projected.shape[2]
    gram = projected.mT @ projected
    mean = gram.diagonal(dim1=1, dim2=2).mean(1)
    system = gram + (damping * mean)[:, None, None] * torch.eye(vectors, dtype=gram.dtype, device=gram.device)
    target = -projected[:, 0, :] * size.double()[:, None]
    solved, _ = torch.linalg.solve_ex(system, target[:, :, None])
    return (basis.mT @ solved)[..., 0]


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).double().norm(dim=1)
