"""An edit without an inversion: two samplers side by side, coupled by one noise (FlowEdit, arXiv:2412.08629).

At every step the picture is noised afresh, `s = alpha_i X + sigma_i n`, and what the edit has moved so far is carried
on top, `t = s + (Z - X)`. Both are asked, one under the source's prompt and one under the target's, and the difference
of their sampling steps is the next move: `Z_j - X = alpha_j (x0_t - x0_s) + sigma_j (eps_t - eps_s)`. On a flow that is
`Z_j = Z_i + (sigma_j - sigma_i)(v_t - v_s)`. The walk's x is t, so the record's noise is the noised picture, and the
last point is Z itself.

A consistency step keeps of that difference the pictures alone, `Z - X = x0_t - x0_s`, noised afresh at the next point
(InfEdit, arXiv:2312.04965). Delta denoising is an optimisation of Z in place of a walk (DDS, arXiv:2304.07090).
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


def consistent(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """The denoising step of DDCM in both branches: where the two predicted pictures lie apart, under fresh noise.

    eps of the target is `eps_t - eps_s + n`, with the noise n that is known of the source, so its predicted picture is
    `X + x0_t - x0_s`.
    """
    s = noised_source(state, grid, i)
    apart = predict.target(x, i).x0 - predict.source(s, i).x0
    return noised_source(state, grid, j) + (grid.alpha[j] if j else 1.0) * apart, state


def delta_denoised(iterations: int, rate: float, span: tuple[float, float]) -> Step:
    """Gradient steps `Z -= rate (eps(Z_t; target) - eps(X_t; source))`, as many in each step of the walk.

    The levels t are drawn by `drawn_levels`, the noises are the record's, X_t and Z_t under the same one.

    Args:
        iterations: of the whole walk.
        rate: of the difference, a number of the picture.
        span: of the walk's points, from which and up to which share of them levels are drawn.
    """

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        noises, stop = state["delta_noise"], state["forward_noise"].shape[1]
        levels, picture, moved = (
            drawn_levels(iterations, stop, span),
            state["source"],
            x - noised_source(state, grid, i),
        )
        for k in range((stop - i) * iterations // stop, (stop - j) * iterations // stop):
            t = levels[k]
            source = forward_noised(picture, noises[:, k], grid, t)
            target = source + grid.alpha[t] * moved
            moved = moved - rate * (predict.target(target, t).eps - predict.source(source, t).eps)
        return noised_source(state, grid, j) + moved, state

    return step


def drawn_levels(count: int, stop: int, span: tuple[float, float]) -> list[int]:
    """Grid points, uniform between two shares of the walk's: one sequence for every picture, so a batch is asked alike.

    Args:
        count: how many.
        stop: the noisiest point.
        span: the shares.
    """
    import torch

    low, high = span
    u = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    return (1 + ((low + (high - low) * u) * stop).floor().long()).clamp(1, stop).tolist()


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
