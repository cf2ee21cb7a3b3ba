"""Fixed-point DDIM inversion: each step solves the sampling step for its input.

`x_j^(k+1) = alpha_j (x_i - sigma_i eps(x_j^(k), t_j)) / alpha_i + sigma_j eps(x_j^(k), t_j)`, started at x_i. It is the
naive fixed point that FPI (arXiv:2312.12540), AIDI (arXiv:2309.04907) and Zeng et al. build on or compare with. A small
round trip does not mean that the recovered noise is right: look at both.
"""

from __future__ import annotations

from typing import get_args

from unsample.methods.base import Method, choice, number, whole
from unsample.numbers.solvers.fixed_point import fixed_point_invert
from unsample.numbers.solvers.start import Start, asked, starting


def fixed_point(num_iters: int = 10, tol: float | None = None, start: Start = "source") -> Method:
    """Implicit DDIM inversion by fixed-point iteration.

    Returns F(x_k) for the k with the smallest RMS(F(x_k) - x_k), so no extra call is spent on residuals and
    `num_iters=1` is `ddim` digit for digit, or with `start="previous"` `uni_inv`.

    Args:
        num_iters: iterations a step, at least 1; the cost a step.
        tol: a picture stops when its residual is at most tol * RMS(x_k); None runs all iterations.
        start: of the iteration: "source", the point x_i itself, or "previous", x_i carried along the eps of the step
            before (`uni_inv`), for one network evaluation more in the first step.

    Raises:
        BadOption: settings out of range.

    Example:
        >>> import unsample
        >>> unsample.methods.fixed_point(num_iters=5).passes(unsample.methods.Walked(steps=50))
        250
    """
    whole("fixed_point", "num_iters", num_iters)
    if tol is not None:
        number("fixed_point", "tol", tol)
    choice("fixed_point", "start", start, get_args(Start))
    return Method(
        "fixed_point",
        {"num_iters": num_iters, "tol": tol, "start": start},
        starting(fixed_point_invert(num_iters, tol), start),
        passes=lambda walked: (num_iters * walked.steps + asked(start, walked.steps)) * walked.pair,
    )
