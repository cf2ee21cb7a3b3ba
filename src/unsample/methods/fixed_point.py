"""Fixed-point DDIM inversion: each step solves the sampling step for its input.

`x_j^(k+1) = alpha_j (x_i - sigma_i eps(x_j^(k), t_j)) / alpha_i + sigma_j eps(x_j^(k), t_j)`, started at x_i. It is the
naive fixed point that FPI (arXiv:2312.12540), AIDI (arXiv:2309.04907) and Zeng et al. build on or compare with. A small
round trip does not mean that the recovered noise is right: look at both.
"""

from __future__ import annotations

from typing import Annotated

from unsample.methods.base import Method
from unsample.methods.settings import Setting, Started, Tolerance, configured
from unsample.numbers.solvers.fixed_point import fixed_point_invert
from unsample.numbers.solvers.start import asked, starting


@configured
def fixed_point(
    num_iters: Annotated[int, Setting("iterations a step, one network evaluation each.", low=1)] = 10,
    tol: Tolerance = None,
    start: Started = "source",
) -> Method:
    """Implicit DDIM inversion by fixed-point iteration.

    Returns F(x_k) for the k with the smallest RMS(F(x_k) - x_k), so no extra call is spent on residuals and
    `num_iters=1` is `ddim` digit for digit, or with `start="previous"` `uni_inv`.

    Example:
        >>> import unsample
        >>> unsample.methods.fixed_point(num_iters=5).passes(unsample.methods.Walked(steps=50))
        250
    """
    return Method(
        invert_step=starting(fixed_point_invert(num_iters, tol), start),
        passes=lambda walked: (num_iters * walked.steps + asked(start, walked.steps)) * walked.pair,
    )
