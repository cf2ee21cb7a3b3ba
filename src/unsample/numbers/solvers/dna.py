"""Direct noise alignment, and the velocity that keeps an edit near the picture (DNAEdit, arXiv:2506.01430).

Up: the point is interpolated towards a noise n, `y = x_i + (sigma_j - sigma_i) / (1 - sigma_i) (n - x_i)`, the network
is asked there, and n moves by what its velocity misses of the line's, `n -= (1 - sigma_i) d` with `d = (n - x_i) /
(1 - sigma_i) - v(y)`. So x_j = x_i + (sigma_j - sigma_i) v(y), and the next y is where this v leads: after its first
step, which starts from a drawn n, it is Uni-Inv.

Down: the network is asked at x + (y - x_j), where it was asked on the way up, and the same v comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


def align(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """From cleaner i to noisier j; the state's `noise` moves, `velocities` and `offsets` get longer by one."""
    noise, length, left = state["noise"], grid.sigma[j] - grid.sigma[i], 1 - grid.sigma[i]
    y = x + length / left * (noise - x)
    v = velocity(predict, y, j)
    x_next = x + length * v
    moved = {"noise": x + left * v, "velocities": (*state["velocities"], v), "offsets": (*state["offsets"], y - x_next)}
    return x_next, {**state, **moved}


def velocity(predict: Any, x: Tensor, i: int) -> Tensor:
    """The network's velocity at grid point i, from the picture to the noise."""
    p = predict(x, i)
    v: Tensor = p.eps - p.x0
    return v


def replay(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """From noisier i to cleaner j, asked where the way up asked."""
    v = velocity(predict, x + state["offsets"][:, j], i)
    return x + (grid.sigma[j] - grid.sigma[i]) * v, state


def guided_replay(share: float) -> Step:
    """Mobile velocity guidance: `share` of the target's velocity, the rest towards a reference that moves with it.

    The reference starts at the picture and moves by the difference of the target's velocity from the source's, as in
    FlowEdit.
    """

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        length = grid.sigma[j] - grid.sigma[i]
        v = velocity(predict, x + state["offsets"][:, j], i)
        reference = state.get("reference", state["source"]) + length * (v - state["velocities"][:, j])
        v = share * v + (1 - share) * (x - reference) / grid.sigma[i]
        return x + length * v, {**state, "reference": reference}

    return step
