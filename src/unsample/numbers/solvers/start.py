"""Where an implicit step starts: at its own source point x_i, or ahead of it along the step before.

`y = alpha_j (x_i - sigma_i eps) / alpha_i + sigma_j eps` with the eps of the step k -> i before, or of a flow
`y = x_i + (sigma_j - sigma_i) v` with its velocity: the predictor of Uni-Inv (Jiao et al., 2025, arXiv:2504.13109) and
of SteerFlow (Dao et al., 2026, arXiv:2604.01715), whose papers have the latter. Two points fix what the step between
them went along, `(alpha_k x_i - alpha_i x_k) / (alpha_k sigma_i - alpha_i sigma_k)` or `(x_i - x_k) / (sigma_i -
sigma_k)`, so no step is asked what it did. The first step of a walk has none before it and asks the network once, at
x_0.

"extrapolated" goes on along a line through the last two of them, in the logarithm of sigma / alpha: eps of a smooth
network changes steadily there, so that an implicit step then ends after one or two evaluations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from unsample.numbers.grid import MOST_LEAP, leap
from unsample.numbers.prediction import direction
from unsample.numbers.solvers.stochastic import joining, noisy_transfer
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

Start = Literal["source", "previous", "extrapolated"]
LAST = "last_direction"  # (B, C, H, W) in the state: what the last step went along; never kept in a record
BEFORE = "direction_before"  # the same of the step before that


def starting(step: Step, start: Start, eta: float = 0.0) -> Step:
    """The step with that start.

    Args:
        step: takes a seventh argument, its first iterate; without it that is x.
        start: "source", the point x_i itself, "previous", x_i carried along the eps of the step before, or
            "extrapolated", x_i carried along what the eps of the last two steps lead to.
        eta: of a stochastic sampler, whose `noises` are in the state.
    """

    def from_previous(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        noise = state["noises"][:, j - 1] if eta > 0 else None
        along = direction(predict(x, i), grid) if i == 0 else state.get(LAST)
        ahead = extrapolated(state, grid, i, j) if start == "extrapolated" else along
        ahead = along if ahead is None else ahead
        guess = x if ahead is None or _blind(grid, j) else noisy_transfer(x, ahead, grid, i, j, eta, noise)
        x_next, after = step(predict, x, grid, i, j, state, guess)
        last = after if along is None else {**after, LAST: along}
        return x_next, handed_on(last, x, x_next, grid, i, j, eta, noise)

    return step if start == "source" else from_previous


def extrapolated(state: State, grid: Grid, i: int, j: int) -> Tensor | None:
    """What the last two steps lead to at j, at most as far on as they lie apart; None where there are no two.

    The step that ends at a level was asked there, so the two stand for i and i - 1, neither of them the clean end.
    """
    last, before = state.get(LAST), state.get(BEFORE)
    if last is None or before is None or i < 2:
        return None
    now, then, ahead = (_level(grid, k) for k in (i, i - 1, j))
    if now == then:
        return last
    weight = min(1.0, (ahead - now) / (now - then))
    return last + weight * (last - before)


def _level(grid: Grid, i: int) -> float:
    return math.log(grid.sigma[i] / grid.alpha[i]) if grid.alpha[i] > 0 else math.inf


def _blind(grid: Grid, j: int) -> bool:
    """Whether every eps at j equals its own x, or nearly: the iteration would give its start back, whatever it is.

    So the start is x_i, which still holds the picture. At alpha = 0 it is x0 that is asked, and any start will do; so
    it will where the velocity of a flow is.
    """
    return not grid.is_flow and grid.alpha[j] > 0 and leap(grid, j) > MOST_LEAP


def handed_on(
    state: State,
    x: Tensor,
    x_next: Tensor,
    grid: Grid,
    i: int,
    j: int,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> State:
    """The state with what the step from x at i to x_next at j went along, for a step after it that starts from there.

    A step of no length fixes no direction and leaves the one of before, if any.
    """
    if grid.alpha[i] == grid.alpha[j]:
        return state
    older = {BEFORE: state[LAST]} if LAST in state else {}
    return {**state, **older, LAST: direction(joining(x, x_next, grid, i, j, eta, noise), grid)}


def asked(start: Start, steps: int) -> int:
    """Predictions that the start of `steps` steps costs, the first of which leaves the clean end."""
    return int(start != "source" and steps > 0)
