"""FireFlow: the midpoint rule for one evaluation a step (Deng et al., 2024, arXiv:2412.07517).

`x_j = x_i + h v(x_i + h / 2 u, sigma_i + h / 2)`, h = sigma_j - sigma_i, where u is not the velocity at x_i but the one
at the middle of the step before, which differs from it by O(h): the step stays of second order. The first step has none
before it and asks the network at its own start.
"""

from __future__ import annotations

from unsample.methods.base import Method, Walked
from unsample.methods.rf_solver import FLOWS_ONLY
from unsample.methods.settings import configured
from unsample.numbers.solvers.midway import reusing_step


@configured
def fireflow() -> Method:
    """FireFlow on a flow model: second order for one evaluation a step, and one more.

    The same rule inverts and samples; a round trip is not exact. Sharing of attention in an edit is no part of it.
    Edits are at guidance 2, as in the authors' examples.

    Reference:
        Deng, He, Mei, Wang and Tang, 2024, arXiv:2412.07517.

    Example:
        >>> import unsample
        >>> unsample.methods.fireflow().passes(unsample.methods.Walked(steps=8))
        9
    """

    def passes(walked: Walked) -> int:
        return (walked.steps + 1) * walked.pair

    return Method(
        invert_step=reusing_step,
        sample_step=reusing_step,
        passes=passes,
        fresh=lambda x: {},
        edit_guidance_scale=2.0,
        refuses_vp=FLOWS_ONLY,
    )
