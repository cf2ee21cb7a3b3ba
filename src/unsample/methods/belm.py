"""O-BELM: exact inversion by the best explicit two-point step (Wang et al., 2024, arXiv:2410.07273).

`x_(i-1) = p x_(i+1) + q x_i + r eps(x_i, t_i)` with the weights of `solvers/belm.py`, one network call a step; up it is
solved for x_(i+1), from a first step of DDIM. The record is the noise and the point before it. The weights hold the
squared ratio of neighbouring steps: a scheduler whose first step is tiny (`leading` with offset 1) magnifies the error
of that first step, hence `linspace`, whose first step has no length and is passed through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from unsample.errors import Incompatible
from unsample.methods.base import Kept, Method, Task, Walked
from unsample.methods.settings import Setting, configured
from unsample.numbers.grid import MOST_LEAP, Grid, end_of, leap
from unsample.numbers.solvers.belm import belm_weights, first_step_stays
from unsample.numbers.solvers.reversible import check_reversible, two_point_steps

if TYPE_CHECKING:
    from unsample.numbers.walk import State


def _check_grid(grid: Grid, stop: int) -> None:
    check_reversible("belm", grid, stop)
    if not grid.is_flow and leap(grid, stop) > MOST_LEAP:
        raise Incompatible(
            "belm divides by the squared ratio of its last two steps, and would lose the noise: "
            + end_of(grid, stop, whose="the method's own setting ")
        )


def _begin(task: Task) -> State:
    return {"cleaner": task.x0}


@configured
def belm(
    timestep_spacing: Annotated[
        Literal["leading", "linspace", "trailing"] | None,
        Setting("in place of the scheduler's own; None keeps that, and a flow keeps its own sigmas whatever is set."),
    ] = "linspace",
) -> Method:
    """O-BELM: a reversible sampler of two points, of second order.

    The round trip needs the guidance of inversion and of sampling to be the same, and by default they are.

    Where the first timestep is 0 (`linspace`, or `leading` without offset), the picture is taken to be at that point:
    the step to it has no length under the authors' scheduler (`set_alpha_to_one=False`), costs nothing here, and the
    recursion starts above it. Elsewhere the first step is DDIM, and if it is much shorter than the second the
    recovered noise may be far too large; `invert` warns of its standard deviation.

    Raises:
        Incompatible: when inverting, a grid that ends at alpha = 0 or nearly so (a cosine schedule under "linspace" or
            "trailing"), or `clip`.

    Reference:
        Wang et al., 2024, arXiv:2410.07273, O-BELM. The authors' code sets alpha = 1 at the clean end whatever the
        scheduler says, asks there at timestep 1, and its first inversion step adds the coefficient of eps without
        eps; here that step is DDIM.

    Example:
        >>> import unsample
        >>> unsample.methods.belm(timestep_spacing="trailing").timestep_spacing
        'trailing'
    """

    def passes(walked: Walked) -> int:
        first = walked.timesteps[0] if walked.timesteps else 0 if timestep_spacing == "linspace" else 1
        return (walked.steps - (first == 0)) * walked.pair

    up, down = two_point_steps(belm_weights, first_step_stays)
    return Method(
        invert_step=up,
        sample_step=down,
        passes=passes,
        check_grid=_check_grid,
        begin=_begin,
        fresh=lambda x: {},  # the first step is DDIM
        keeps={"cleaner": Kept("the point before the noise"), "rest": Kept("what rounding took off the noise")},
        stores="noise to double precision and the point before it",
        exact=True,
        reversible=True,
        timestep_spacing=timestep_spacing,
    )
