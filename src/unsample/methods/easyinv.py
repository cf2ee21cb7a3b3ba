"""EasyInv: in a window of steps, each latent is blended with the one before it.

`x_j <- eta x_j + (1 - eta) x_i` for `start T < i < stop T`, i = 0 .. T - 1 the cleaner end of the step (Zhang, Lin, Yan
and Ji, 2024, arXiv:2408.05159, Eq. 16). Traps: the paper counts the window on the noisier end, its code on the cleaner
one; the code blends before the step, with the eps of the latent that was not blended, the paper after it.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unsample.errors import BadOption, Incompatible
from unsample.methods.base import Method, Task
from unsample.methods.inner import Base, as_base, holds
from unsample.methods.settings import Setting, configured
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


@configured
def easyinv(
    base: Annotated[Base, Setting("the inversion step that is blended; any that keeps the noise alone.")] = "ddim",
    eta: Annotated[float, Setting("weight of the new latent, from 0 to 1; 1 is the base alone.", high=1.0)] = 0.5,
    start: Annotated[
        float, Setting("where the window begins, as a part of the number of steps; strict.", high=1.0)
    ] = 0.05,
    stop: Annotated[float, Setting("where it ends, likewise; strict.", high=1.0)] = 0.25,
    variant: Annotated[
        Literal["after", "before"],
        Setting(
            "`after` blends the step's result with its start (Eq. 16, example.py); `before` blends the step's start "
            "with the start before it, after eps was computed (utilsV14.py, EasyInv_SDXL)."
        ),
    ] = "after",
) -> Method:
    """EasyInv: aggregation of neighbouring latents, for no further network evaluation.

    At the defaults (the authors' for SD 1.4) and 50 steps the window is i = 3 .. 12. The paper says that eta is
    "typically at least 0.7" and uses 0.5.

    Raises:
        Incompatible: a base that keeps more than the noise, or blends already; "before" with a clamp of x0.

    Reference:
        Zhang, Lin, Yan and Ji, 2024, arXiv:2408.05159, Eq. 16.

    Example:
        >>> import unsample
        >>> unsample.methods.easyinv(base="fixed_point", eta=0.8).settings["base"]
        'fixed_point'
    """
    if start >= stop:
        raise BadOption(f"easyinv: start must be below stop; got {start} and {stop}, a window without steps")
    inner = as_base(base, "easyinv")
    if holds(inner, lambda method: method.name == "easyinv"):
        raise Incompatible(f"easyinv(base={inner.name}) makes no sense: its latents are blended already")

    def inside(grid: Grid, i: int) -> bool:
        return start * grid.num_steps < i < stop * grid.num_steps

    def begin(task: Task) -> State:
        if not any(inside(task.grid, i) for i in range(variant == "before", task.stop)):
            warnings.warn(
                f"easyinv blends nothing: no step of {task.stop} lies between {start:g} and {stop:g} of "
                f"{task.grid.num_steps}; take more steps, or a wider window",
                stacklevel=2,
            )
        return {} if inner.begin is None else inner.begin(task)

    def after(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        x_next, state = inner.invert_step(predict, x, grid, i, j, state)
        return (eta * x_next + (1 - eta) * x if inside(grid, i) else x_next), state

    def before(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if grid.clip is not None:
            raise Incompatible("easyinv(variant='before') needs steps that are affine in x; use clip='off'")
        x_next, state = inner.invert_step(predict, x, grid, i, j, state)
        blended = x
        if inside(grid, i) and i > 0:
            blended = eta * x + (1 - eta) * state["easyinv_previous"]
            x_next = x_next + _slope(grid, i, j) * (blended - x)  # the same eps, from another start
        return x_next, {**state, "easyinv_previous": blended}

    return replace(
        inner,
        invert_step=after if variant == "after" else before,
        begin=begin,
        no_root="what its steps find is blended afterwards",
    )


def _slope(grid: Grid, i: int, j: int) -> float:
    """Of `solvers.ddim.carry` in x, at a fixed prediction."""
    if grid.is_flow:
        return 1.0
    return grid.alpha[j] / grid.alpha[i] if grid.alpha[j] > 0 else 1 / grid.sigma[i]
