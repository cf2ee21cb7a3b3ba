"""Rex: reversible exponential solvers of any order (Blasingame and Liu, 2025, arXiv:2502.08834).

A Runge-Kutta step Psi in the variables in which the ODE's linear part is gone, coupled as by McCallum and Foster: down
`y_j = zeta y_i + (1 - zeta) z_i + Psi(z_i, i -> j)`, `z_j = z_i - Psi(y_j, j -> i)`; up the same lines undone, so it
is exact whatever the network is. Both latents are of the order of Psi. Written from the paper, in the form of noise
prediction (x / alpha over sigma / alpha), which has no pole at the picture; of a flow x over sigma, with the velocity.
Its stochastic solvers are not here.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from unsample.errors import BadOption
from unsample.methods.base import Kept, Method, Task
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.reversible import check_reversible
from unsample.numbers.solvers.rex import STAGES, rex_steps
from unsample.numbers.walk import State

SAFE = 0.9  # below, the gap between the two latents, times 1 / zeta a step, passes 1e3 in 50 steps


def _begin(task: Task) -> State:
    return {"second": task.x0}  # both start as the picture


@configured
def rex(
    solver: Annotated[
        Literal["euler", "midpoint", "rk4"],
        Setting("the Runge-Kutta step, of order 1, 2 or 4; it makes as many evaluations, twice a step."),
    ] = "rk4",
    zeta: Annotated[
        float,
        Setting("the coupling, in (0, 1]; at 1 there is none, and undoing it magnifies by 1 / zeta a step.", high=1.0),
    ] = 0.999,
) -> Method:
    """Rex: a reversible sampler of two coupled latents, of order up to 4.

    The round trip needs the guidance of inversion and of sampling to be the same, and by default they are. Stages lie
    between the scheduler's timesteps; on a diffusion the network is asked there at fractions of a timestep, between two
    rows of the table along a straight line of log(sigma / alpha).

    Raises:
        BadOption: zeta of 0: one of the latents would be lost.
        Incompatible: when inverting, a diffusion whose grid ends at alpha = 0, or `clip`.

    Reference:
        Blasingame and Liu, 2025, arXiv:2502.08834; McCallum and Foster, 2024, arXiv:2410.11648, whose coupling it is.

    Example:
        >>> import unsample
        >>> unsample.methods.rex(solver="midpoint").passes(unsample.methods.Walked(steps=20))
        80
    """
    if zeta == 0:
        raise BadOption("rex: zeta must be above 0; at 0 the coupling keeps one of the two latents only")
    up, down = rex_steps(solver, zeta)
    return Method(
        invert_step=up,
        sample_step=down,
        passes=lambda walked: 2 * STAGES[solver] * walked.steps * walked.pair,
        check_grid=partial(check_reversible, "rex"),
        begin=_begin,
        fresh=lambda x: {"second": x},  # both start as the noise
        keeps={"second": Kept("the second, coupled latent"), "rest": Kept("what rounding took off the noise")},
        stores="noise to double precision and the second, coupled latent",
        exact=zeta >= SAFE,
        reversible=True,
    )
