"""RF-Solver: rectified flows by a Taylor step of second order, both ways (Wang et al., 2024, arXiv:2411.04746).

`x_j = x_i + h v_i + h^2 / 2 v'_i`, h = sigma_j - sigma_i, with the derivative by a difference over half a step,
`v'_i = (v(x_i + h / 2 v_i, sigma_i + h / 2) - v_i) / (h / 2)`: with that difference it is the midpoint rule. Up and
down are one rule with h of either sign, so a round trip errs by O(h^2) and is not exact.
"""

from __future__ import annotations

from unsample.methods.base import Method
from unsample.methods.settings import configured
from unsample.numbers.solvers.midway import midpoint_step

FLOWS_ONLY = (
    "its paper derives it for the velocity of a rectified flow; use a flow model, or rex, the Runge-Kutta step of a "
    "diffusion"
)


@configured
def rf_solver() -> Method:
    """RF-Solver on a flow model: second order for two evaluations a step.

    Sharing of attention between inversion and editing, which the paper's RF-Edit adds, is no part of it. Edits are at
    guidance 2, as in the authors' examples.

    Reference:
        Wang et al., 2024, arXiv:2411.04746, the second-order step and its inversion.

    Example:
        >>> import unsample
        >>> unsample.methods.rf_solver().passes(unsample.methods.Walked(steps=25))
        50
    """
    return Method(
        invert_step=midpoint_step,
        sample_step=midpoint_step,
        passes=lambda walked: 2 * walked.steps * walked.pair,
        fresh=lambda x: {},
        edit_guidance_scale=2.0,
        refuses_vp=FLOWS_ONLY,
    )
