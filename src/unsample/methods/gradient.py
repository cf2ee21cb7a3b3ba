"""Direct optimisation of each inversion step (Zeng, Suganuma and Okatani, 2026, arXiv:2606.03111, Eq. 8).

`x_j = argmin_y || x_i - f(y) ||^2`, `f(y) = alpha_i x0(y, t_j) + sigma_i eps(y, t_j)` (the sampling step), by gradient
descent from y = x_i. The paper finds it far ahead at the first step and poor at all the others, where `hybrid` takes
the fixed point; it states neither optimiser nor learning rate. Gradients run through the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from unsample.errors import BadOption
from unsample.methods.base import Method, Walked
from unsample.methods.forward_first import beyond
from unsample.methods.inner import Base, as_base
from unsample.methods.settings import Checkpointing, Optimizer, Rate, Setting, configured
from unsample.numbers.solvers.start import handed_on
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

LEARNING_RATES = {"adam": 1e-3, "sgd": 0.1, "lbfgs": 1.0}  # of a sum of squares; ours, the paper states none


@configured
def gradient(
    num_iters: Annotated[
        int, Setting("updates a step, each one pass forward and one backward; the paper's 1,000.", low=1)
    ] = 1000,
    lr: Rate = None,
    optimizer: Optimizer = "adam",
    first_steps: Annotated[
        int | None, Setting("how many of the steps, from the clean end, are optimised; None for all.")
    ] = None,
    rest: Annotated[Base, Setting("the method of the steps after those.")] = "ddim",
    tol: Annotated[
        float | None,
        Setting("a picture's step ends when RMS(x_i - f(y)) is at most tol * RMS(y); None runs all updates."),
    ] = None,
    gradient_checkpointing: Checkpointing = False,
) -> Method:
    """Inversion by gradient descent on each step's own equation.

    Raises:
        Incompatible: a `rest` that keeps more than the noise or says itself what the
            first steps are, or (while inverting) a network that gives no gradient or cannot checkpoint.

    Reference:
        Zeng, Suganuma and Okatani, 2026, arXiv:2606.03111, Eq. 8 and section 3.1.3.

    Example:
        >>> import unsample
        >>> unsample.methods.gradient(num_iters=20, first_steps=2).passes(unsample.methods.Walked(steps=10))
        48
    """
    from unsample.numbers.solvers.gradient import gradient_invert

    if lr == 0:
        raise BadOption("gradient: lr must be more than 0; got 0")
    rate = LEARNING_RATES[optimizer] if lr is None else lr
    after = as_base(rest, "gradient", goes_on=True)
    descent = gradient_invert(num_iters, rate, optimizer, tol)
    if gradient_checkpointing:
        descent = saving_memory(descent, "gradient")
    return Method(
        invert_step=descent if first_steps is None else then(descent, first_steps, after.invert_step),
        passes=lambda walked: (
            num_iters * _own(walked, first_steps) * walked.pair
            + beyond(after.passes, walked, _own(walked, first_steps))
        ),
        backward=lambda walked: (
            num_iters * _own(walked, first_steps) * walked.pair
            + beyond(after.backward, walked, _own(walked, first_steps))
        ),
        begin=None if first_steps is None else after.begin,
        handles_guidance=first_steps is None or after.handles_guidance,
        notes=None if first_steps is None else after.notes,
    )


def then(first: Step, count: int, after: Step) -> Step:
    """`first` for the `count` steps from the clean end, `after` for the others."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if i >= count:
            return after(predict, x, grid, i, j, state)
        x_next, state = first(predict, x, grid, i, j, state)
        return x_next, handed_on(state, x, x_next, grid, i, j)

    return step


def saving_memory(step: Step, name: str) -> Step:
    """The step of method `name` with gradient checkpointing; a network that cannot is refused before it is asked."""

    def saving(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        from unsample.models.checkpointing import check_checkpointing, checkpointed

        check_checkpointing(predict.model, name)
        with checkpointed(predict.model, True):
            return step(predict, x, grid, i, j, state)

    return saving


def _own(walked: Walked, first_steps: int | None) -> int:
    return walked.steps if first_steps is None else min(walked.steps, first_steps)
