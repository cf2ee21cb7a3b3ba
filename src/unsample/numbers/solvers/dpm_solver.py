"""DPM-Solver++ of orders 1 and 2 (multistep, midpoint), as a sampler and run backwards as it is.

With lambda = log(alpha / sigma), from noisier i to cleaner j, m_i = x0(x_i, t_i) (Lu et al., arXiv:2211.01095, Alg. 2):
`x_j = sigma_j / sigma_i x_i + b (m_i + c (m_i - m_prev))`, `b = alpha_j - alpha_i sigma_j / sigma_i`, and of order 2
`c = (lambda_j - lambda_i) / (2 (lambda_i - lambda_prev))`; c = 0 is order 1, which is DDIM. The first and the last
sampling step are of order 1 (diffusers: wherever sigma ends at 0 or steps are below 15, else with `euler_at_final`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unsample.numbers.grid import Grid
from unsample.numbers.solvers.ddim import carry
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor


def weights(grid: Grid, i: int, j: int, previous: int | None) -> tuple[float, float, float]:
    """(a, b, c) of `x_j = a x_i + b (m_i + c (m_i - m_previous))`; `previous` None is order 1.

    The levels of i and previous are those at which their predictions were made (`eval_alpha`, `eval_sigma`), which
    matters at the clean end alone.
    """
    ratio = grid.sigma[j] / grid.eval_sigma[i]
    b = grid.alpha[j] - grid.eval_alpha[i] * ratio
    if previous is None:
        return ratio, b, 0.0
    before = _log_snr(grid, i) - _log_snr(grid, previous)
    ahead = _log_snr(grid, j) - _log_snr(grid, i)
    # a step of zero length has no slope, nor has one into alpha = 0, whose length has no end; a previous point with
    # alpha = 0 is infinitely far, which gives 0 too
    return ratio, b, 0.0 if before == 0 or ahead in (0, -math.inf) else ahead / before / 2


def _log_snr(grid: Grid, i: int) -> float:
    alpha, sigma = grid.eval_alpha[i], grid.eval_sigma[i]
    if 0 in (alpha, sigma):
        return math.inf if sigma == 0 else -math.inf
    return math.log(alpha / sigma)


def dpm_sample(order: int) -> Step:
    """The sampling step, from noisier i to cleaner j = i - 1. Its state carries `pred_x0` of the step before."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        second = order == 2 and j > 0 and "pred_x0" in state
        a, b, c = weights(grid, i, j, i + 1 if second else None)
        now = predict(x, i).x0
        x = a * x + b * (now + c * (now - state["pred_x0"]) if second else now)
        return x, {**state, "pred_x0": now}

    return step


def dpm_reverse(order: int) -> Step:
    """The naive inversion, from cleaner i to noisier j: the same solver on the grid turned round.

    The network is asked at the source level. The step out of the clean end, where sigma may be 0, goes along eps.
    """

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        p = predict(x, i)
        second = order == 2 and "pred_x0" in state
        kept = {**state, "pred_x0": p.x0}
        if i == 0:
            return carry(x, p, grid, i, j), kept
        a, b, c = weights(grid, i, j, i - 1 if second else None)
        return a * x + b * (p.x0 + c * (p.x0 - state["pred_x0"]) if second else p.x0), kept

    return step
