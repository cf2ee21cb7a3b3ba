"""h-Edit: the sampling step of the source, and a step along the score of Doob's h (arXiv:2503.02187).

`base = mu(x_i; source) + s z`, the maps z being those that make the picture, and then along `f = eps(target) -
eps(source)` with the coefficient of eps in the step, `c = d - sigma_i alpha_j / alpha_i`. f is asked where the edit is
(explicit), which adds to one step under `eps(source) + f`, or where the step leads (implicit), which can be repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.numbers.solvers.ddpm_maps import ddpm_sample
from unsample.numbers.solvers.stochastic import shares
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

ETA = 1.0  # the ancestral sampler

played = ddpm_sample(ETA)


def explicit(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """From noisier i to cleaner j; `predict` has three, `base`, `source` and `target`."""
    reached, _ = played(predict.base, x, grid, i, j, state)
    source, target = predict.source(x, i), predict.target(x, i)
    along = shares(grid, j, i, ETA)[1]
    return reached + grid.alpha[j] * (target.x0 - source.x0) + along * (target.eps - source.eps), state


def implicit(iterations: int, pull: float) -> Step:
    """The same with f asked at j, from where the base leads on.

    Where the walk does not start at the noisiest point of the grid, its start is first moved as by the step into it.

    Args:
        iterations: how often f is asked and gone along in a step.
        pull: how far each number is drawn back to the base, where the first one starts, in root mean squares of f.
    """

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if i == state["noise_maps"].shape[1] < grid.num_steps:
            x = x + _share(grid, i + 1, i) * _score(predict, x, i)
        base, _ = played(predict.base, x, grid, i, j, state)
        share, y = _share(grid, i, j), base
        for _ in range(iterations):
            f = _score(predict, y, j)
            y = y + share * f - pull * f.square().mean((1, 2, 3), keepdim=True).sqrt() * (y - base).sign()
        return y, state

    return step


def _share(grid: Grid, i: int, j: int) -> float:
    """What eps is multiplied by in the step from i to j."""
    return shares(grid, j, i, ETA)[1] - grid.sigma[i] * grid.alpha[j] / grid.alpha[i]


def _score(predict: Any, x: Tensor, i: int) -> Tensor:
    f: Tensor = predict.target(x, i).eps - predict.source(x, i).eps
    return f
