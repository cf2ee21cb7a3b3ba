"""Each step solved to a tolerance by Anderson's mixing, from a start that needs few iterations.

`y = F(y)`, F as in `fixed_point`: the step out of the clean end from alpha_1 x_0 / alpha_0, where the plain iteration
may run away from the true root; the second along the first; every later one along the eps of the last two steps,
extrapolated in log(sigma / alpha). Forward passes only, and each picture ends when it is done. Anderson's mixing
(Anderson, 1965) is that of AIDI (arXiv:2309.04907); the starts and the second try are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from unsample.methods.base import Method, Task, Walked
from unsample.methods.known import known
from unsample.methods.settings import KnownTo, Setting, configured
from unsample.numbers.solvers.anderson import anderson as mixing
from unsample.numbers.solvers.fixed_point import fixed_point_invert
from unsample.numbers.solvers.leaving import RIDGE, leave, restarted
from unsample.numbers.solvers.noisy import passed, with_noise
from unsample.numbers.solvers.start import handed_on, starting
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

PLAIN = 6  # iterations without mixing that end the second step


@configured
def anderson(
    tol: Annotated[
        float | None,
        Setting("a picture's step ends when the RMS of its residual is at most tol * sigma_j; None: all run."),
    ] = 2e-5,
    max_iters: Annotated[int, Setting("evaluations of a step at most, from the third step on.", low=1)] = 12,
    first_iters: Annotated[
        int, Setting("the same of each of the first two steps, where most of the noise is lost.", low=1)
    ] = 40,
    memory: Annotated[int, Setting("how many of the last iterates are mixed.", low=1)] = 20,
    restart: Annotated[
        bool,
        Setting(
            "whether a picture whose first step ends at an eps longer than noise (an RMS above 1.1) begins again, by "
            "Levenberg-Marquardt in a Krylov space."
        ),
    ] = False,
    x0_noise: KnownTo = None,
) -> Method:
    """Inversion to a tolerance: few passes where a step is easy, many where it is not.

    A picture that does not come to the tolerance keeps its best point; it is called not converged where that leaves
    more than 1 % of sigma_j.

    With `x0_noise` the walk begins at the noise level of the picture's error, and passes over those below; of a picture
    in 8 bits behind an autoencoder it begins at the latents that decode to it, found by gradients through the decoder.
    The record's `x0_noise` and `levels_passed` say which levels those were.

    Reference:
        Anderson, 1965, J. ACM 12; Pan, Gherardi, Xie and Huang, 2023, arXiv:2309.04907.

    Example:
        >>> import unsample
        >>> unsample.methods.anderson().settings["tol"]
        2e-05
    """
    first = leave(first_iters, memory, tol, restart)
    mixed = fixed_point_invert(first_iters, tol, mixing(RIDGE), memory, of_noise=True)
    settled = fixed_point_invert(PLAIN, tol, of_noise=True)
    later = starting(fixed_point_invert(max_iters, tol, mixing(RIDGE), memory, of_noise=True), "extrapolated")

    def both(
        predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State, start: Tensor | None = None
    ) -> tuple[Tensor, State]:
        found, _ = mixed(predict, x, grid, i, j, state, start)
        return settled(predict, x, grid, i, j, state, found)

    second = starting(both, "extrapolated")

    def begin(task: Task) -> State:
        import torch

        assert x0_noise is not None
        start, noise = known(task, x0_noise)
        count = passed(task.grid, task.stop, noise) if noise > 0 else 0

        def of_each(number: float) -> Tensor:
            return torch.full((len(start),), number, dtype=torch.float64)

        return {"known_x0": start, "x0_noise": of_each(noise), "levels_passed": of_each(count)}

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        noise, count = 0.0, 0
        if x0_noise is not None:
            noise, count = float(state["x0_noise"][0]), int(state["levels_passed"][0])
            x = state["known_x0"] if i == 0 else x
        if j <= count:  # what it has of noise is that of this level, or more
            return grid.alpha[j] / grid.alpha[i] * x, state
        if i > count:
            return (second if i == count + 1 else later)(predict, x, grid, i, j, state)
        own = with_noise(grid, i, noise) if noise > 0 else grid
        at = own.alpha[i] / grid.alpha[i] * x
        found, told = first(predict, at, own, i, j, state)
        return found, handed_on(told, at, found, own, i, j)

    def notes(grid: Grid, stop: int, state: State) -> dict[str, Any]:
        return {"x0_noise": float(state["x0_noise"][0]), "levels_passed": int(state["levels_passed"][0])}

    def passes(walked: Walked) -> int:
        each = [first_iters + restart * restarted(), first_iters + PLAIN]
        return walked.pair * (sum(each[: walked.steps]) + max_iters * max(0, walked.steps - 2))

    if x0_noise is None:
        return Method(invert_step=step, passes=passes)
    return Method(
        invert_step=step,
        passes=passes,
        begin=begin,
        notes=notes,
        starts_at_picture=True,
        no_root="with x0_noise its first step starts at the picture's own noise, not at the picture",
    )
