"""An edit without an inversion: two samplers side by side, coupled by one noise (FlowEdit, arXiv:2412.08629).

At every step the picture is noised afresh, `s = alpha_i X + sigma_i n`, and what the edit has moved so far is carried
on top, `t = s + (Z - X)`. Both are asked, one under the source's prompt and one under the target's, and the difference
of their sampling steps is the next move: `Z_j - X = alpha_j (x0_t - x0_s) + sigma_j (eps_t - eps_s)`. On a flow that is
`Z_j = Z_i + (sigma_j - sigma_i)(v_t - v_s)`. The walk's x is t, so the record's noise is the noised picture, and the
last point is Z itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.solvers.ddpm_maps import forward_noised
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


def noised_source(state: State, grid: Grid, j: int, draw: int = 0, draws: int = 1) -> Tensor:
    """The picture at grid point j under that point's own noise; the picture itself at the clean end.

    Args:
        state: `source` (B, C, H, W) and `forward_noise` (B, stop * draws, C, H, W), point 1's draws first.
        grid: the noise levels.
        j: index into the grid.
        draw: which of the draws of that point.
        draws: how many there are of each.
    """
    source: Tensor = state["source"]
    return forward_noised(source, state["forward_noise"][:, (j - 1) * draws + draw], grid, j) if j else source


def stay(draws: int) -> Step:
    """Both prompts are one: nothing moves, and there is nothing to ask."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        return noised_source(state, grid, j, 0, draws), state

    return step


def coupled(draws: int = 1, last: int = 0, pull: float = 0.0) -> Step:
    """The step of the edit; its `predict` has two, `source` and `target`.

    Args:
        draws: noises a step, over which the move is averaged.
        last: from this grid point down the target is sampled alone.
        pull: what part of the difference of the two predicted pictures, `x0_t - x0_s`, is taken back (FlowAlign).
    """

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if i <= last:
            return ddim_sample(predict.target, x, grid, i, j, state)
        moved, moves = x - noised_source(state, grid, i, 0, draws), 0.0
        for draw in range(draws):
            s = noised_source(state, grid, i, draw, draws)
            source, target = predict.source(s, i), predict.target(s + moved, i)
            x0, eps = target.x0 - source.x0, target.eps - source.eps
            moves = moves + (grid.alpha[j] - pull) * x0 + grid.sigma[j] * eps
        return noised_source(state, grid, j, 0, draws) + moves / draws, state

    return step
