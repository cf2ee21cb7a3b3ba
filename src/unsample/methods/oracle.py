"""The oracle: the first inversion steps take what the sampling run that made the picture had there.

`replace="eps"`: `x_j = alpha_j (x_i - sigma_i eps) / alpha_i + sigma_j eps` with the eps of the recorded step from j to
i, or `replace="x"`: the recorded x_j itself; then the base (Staniszewski, Kucinski and Deja, 2024, arXiv:2410.23530,
Sec. 5). A DDIM step is linear in (x0, eps), so the recorded eps is read off two neighbouring points. An upper bound on
what mending the first steps can do, for generated pictures only.
"""

from __future__ import annotations

from dataclasses import replace as changed
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unsample.errors import Incompatible
from unsample.methods.base import Method, Task
from unsample.methods.forward_first import beyond
from unsample.methods.inner import Base, as_base
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.ddim import carry
from unsample.numbers.solvers.start import handed_on
from unsample.numbers.solvers.stochastic import joining
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


@configured
def oracle(
    base: Annotated[Base, Setting("the inversion that goes on from there; any that keeps the noise alone.")] = "ddim",
    num_steps: Annotated[
        int,
        Setting("k, how many of the first inversion steps are replaced; all of them if there are fewer.", low=1),
    ] = 1,
    replace: Annotated[
        Literal["eps", "x"],
        Setting(
            "`eps` replaces the prediction and carries the picture that was given; `x` replaces the whole latent, "
            "which undoes the rounding of the picture too."
        ),
    ] = "eps",
) -> Method:
    """Inversion whose first steps use the recorded sampling run.

    `invert(..., trajectory=sample(..., keep_trajectory=True).trajectory)`: of the same model, steps and condition.

    Raises:
        BadOption: at `invert`, no recorded trajectory.
        Incompatible: a base that keeps more than the noise, or that says itself what the first steps are.

    Reference:
        Staniszewski, Kucinski and Deja, 2024, arXiv:2410.23530, Sec. 5.

    Example:
        >>> import unsample
        >>> unsample.methods.oracle(num_steps=5).passes(unsample.methods.Walked(steps=50))
        45
    """
    inner = as_base(base, "oracle", goes_on=True)

    def begin(task: Task) -> State:
        if task.trajectory is None:
            raise Incompatible("oracle needs the recorded sampling run that made the picture; give trajectory")
        state = {} if inner.begin is None else inner.begin(task)
        recorded = task.trajectory.flip(0)[: num_steps + 1]  # clean first
        return {**state, "recorded": recorded.transpose(0, 1)}

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if j > num_steps:
            return inner.invert_step(predict, x, grid, i, j, state)
        cleaner, noisier = state["recorded"][:, i], state["recorded"][:, j]
        x_next = x
        if replace == "x":
            x_next = noisier.clone()
        elif grid.alpha[i] != grid.alpha[j]:  # a step of no length moves nothing, and no eps can be read off it
            x_next = carry(x, joining(cleaner, noisier, grid, i, j), grid, i, j)
        return x_next, handed_on(state, cleaner, noisier, grid, i, j)

    return changed(
        inner,
        invert_step=step,
        passes=lambda walked: beyond(inner.passes, walked, num_steps),
        backward=lambda walked: beyond(inner.backward, walked, num_steps),
        begin=begin,
        needs_trajectory=True,
        starts_at_picture=True,
        no_root="its first steps are those of the sampling run, not solved",
    )
