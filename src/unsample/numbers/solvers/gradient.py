"""Direct optimisation: the next point minimises `|| x_i - f(y) ||^2`, f the sampling step from j, started at x_i.

Each picture has its own optimiser, so that a batch gives what single pictures give; none needs a line search, so an
update is one pass forward and one backward. Gradients run through the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from unsample.errors import Incompatible
from unsample.numbers.grid import Grid
from unsample.numbers.solvers.best import Best, relative_size
from unsample.numbers.solvers.fixed_point import DIVERGING, rms
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

Memory: TypeAlias = "list[Tensor]"
Rule: TypeAlias = "Callable[[Tensor, Memory, int, float], tuple[Tensor, Memory]]"
"""`rule(gradient, memory, k, lr) -> (change, memory)`: (A, D) tensors, memory one row a picture, k from 0."""

HISTORY = 10  # pairs that L-BFGS remembers


def gradient_invert(num_iters: int, lr: float, optimizer: str, tol: float | None) -> Step:
    """The step: `num_iters` updates. Its state holds `residual` and `converged`, as that of the fixed point does.

    The residual is RMS(x_i - f(y)) over RMS(y), at the last y that the network saw.
    """
    rule = OPTIMIZERS[optimizer]

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        found, guess, result = Best(x), x, x
        memory: Memory = []
        for k in range(num_iters):
            residual, gradient = _residual_and_gradient(predict, x, guess, grid, (i, j), found.rows)
            relative = relative_size(residual, rms(guess))
            better = found.see(guess, residual, relative)
            change, memory = rule(gradient.flatten(1), memory, k, lr)
            going, moved = residual.isfinite(), guess + change.view_as(guess)
            if tol is not None:
                going &= (relative > tol) & (residual <= DIVERGING * found.smallest[found.active])
            result = found.iterate
            if k == num_iters - 1:  # the last update goes out unseen, unless the residual was growing
                last = better & going & moved.flatten(1).isfinite().all(1)
                result = result.index_copy(0, found.active[last], moved[last])
            guess, memory = moved[going], [m[going] for m in memory]
            if not found.go_on(going):
                break
        return result, found.judged(state, None if tol is None else found.relative <= tol, j)

    return step


def _residual_and_gradient(
    predict: Any, x: Tensor, guess: Tensor, grid: Grid, ends: tuple[int, int], rows: Tensor | None
) -> tuple[Tensor, Tensor]:
    """RMS(x_i - f(y)) (A,), and the gradient of each picture's sum of squares."""
    import torch

    i, j = ends
    target = x if rows is None else x[rows]
    with torch.enable_grad():
        at = guess.detach().requires_grad_(True)
        p = predict(at, j, rows)
        difference = target - (grid.alpha[i] * p.x0 + grid.sigma[i] * p.eps)
        gradient = gradient_of(difference.square().sum(), at, predict, j, rows)
    return rms(difference.detach()), gradient


def gradient_of(total: Tensor, at: Tensor, predict: Any, i: int, rows: Tensor | None = None) -> Tensor:
    """d total / d at, through the network asked at grid point i about `rows` (None: all); weights get none.

    Raises:
        Incompatible: a network whose output carries no gradient.
    """
    import torch

    before = sum(predict.cost.backward)
    gradient = torch.autograd.grad(total, at)[0] if total.requires_grad else None
    if gradient is None or sum(predict.cost.backward) == before:  # the pass back never met the network
        raise Incompatible(
            "this method differentiates through the network, and the network's output carries no gradient (it runs "
            "under no_grad, or detaches); use a method without backward passes, such as fixed_point"
        )
    predict.saw_gradient(gradient, at, i, rows)
    return gradient.detach()


# ---------------------------------------------------------------- optimisers, row by row


def _sgd(gradient: Tensor, memory: Memory, k: int, lr: float) -> tuple[Tensor, Memory]:
    return -lr * gradient, []


def _adam(gradient: Tensor, memory: Memory, k: int, lr: float) -> tuple[Tensor, Memory]:
    """Kingma and Ba, 2015, arXiv:1412.6980, Algorithm 1, with its defaults."""
    first, second = memory or [gradient * 0, gradient * 0]
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient.square()
    mean, variance = first / (1 - 0.9 ** (k + 1)), second / (1 - 0.999 ** (k + 1))
    return -lr * mean / (variance.sqrt() + 1e-8), [first, second]


def _lbfgs(gradient: Tensor, memory: Memory, k: int, lr: float) -> tuple[Tensor, Memory]:
    """Two-loop recursion (Liu and Nocedal, 1989) with a fixed step: no line search, one evaluation an update.

    memory: the last gradient and change, then pairs (s, y), oldest first. A pair without curvature is passed over.
    """
    import torch

    if not memory:
        length = gradient.abs().sum(1, keepdim=True)
        change = -lr * gradient * torch.where(length > 1, 1 / length, 1.0)
        return change, [gradient, change]
    past = [*memory[2:], memory[1], gradient - memory[0]][-2 * HISTORY :]
    pairs = list(zip(past[::2], past[1::2], strict=True))
    dot: Callable[[Tensor, Tensor], Tensor] = lambda a, b: (a * b).sum(1, keepdim=True)  # noqa: E731
    inverse, scale = [], torch.ones_like(gradient[:, :1])
    for s, y in pairs:
        curved = dot(s, y) > 1e-10 * (dot(s, s) * dot(y, y)).sqrt()
        inverse.append(torch.where(curved, 1 / dot(s, y), 0.0))
        scale = torch.where(curved, dot(s, y) / dot(y, y), scale)
    q, parts = gradient, []
    for (s, y), rho in zip(reversed(pairs), reversed(inverse), strict=True):
        parts.append(rho * dot(s, q))
        q = q - parts[-1] * y
    q = scale * q
    for (s, y), rho, part in zip(pairs, inverse, reversed(parts), strict=True):
        q = q + (part - rho * dot(y, q)) * s
    return -lr * q, [gradient, -lr * q, *past]


OPTIMIZERS: dict[str, Rule] = {"adam": _adam, "sgd": _sgd, "lbfgs": _lbfgs}
