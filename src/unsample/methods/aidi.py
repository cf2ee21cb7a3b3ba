"""AIDI, accelerated iterative diffusion inversion: fixed-point inversion whose next iterate mixes the last images.

`x_(k+1) = F(x_k)/2 + F(x_(k-1))/2` (AIDI-E) or `sum_i w_i F(x_i)`, w = argmin |sum w_i (F(x_i) - x_i)|, sum w = 1
(AIDI-A, Anderson, 1965), F as in `fixed_point` (Pan, Gherardi, Xie and Huang, 2023, arXiv:2309.04907).
There is no code of the authors, so the numbers of iterations below are those of others' versions.
"""

from __future__ import annotations

from typing import Annotated

from unsample.methods.base import Method
from unsample.methods.settings import Setting, Started, Tolerance, configured
from unsample.numbers.solvers.anderson import anderson, average_two
from unsample.numbers.solvers.fixed_point import Accelerator, fixed_point_invert
from unsample.numbers.solvers.start import Start, asked, starting


@configured
def aidi_e(
    num_iters: Annotated[
        int,
        Setting(
            "iterations a step, one network evaluation each. Disputed: 5 in wmchen/diffusion-inversion (which spends "
            '11 evaluations on them), 6 and a first one in EasyInv\'s comparison, 10 in Zeng et al., whose "AIDI" is '
            "the naive iteration.",
            low=1,
        ),
    ] = 5,
    tol: Tolerance = None,
    start: Started = "source",
) -> Method:
    """AIDI-E ("empirical"): the next iterate is the average of the last two images.

    A transfer is affine in eps, so this is F of the averaged eps. Returned is the iterate that follows the smallest
    RMS(F(x_k) - x_k); `num_iters=1` is `ddim` digit for digit. On a real contraction averaging is slower than the
    naive iteration; where eps overshoots (a negative slope, guidance above 1) it is faster.

    Reference:
        Pan, Gherardi, Xie and Huang, 2023, arXiv:2309.04907.

    Example:
        >>> import unsample
        >>> unsample.methods.aidi_e(num_iters=6).passes(unsample.methods.Walked(steps=20))
        120
    """
    return _accelerated(num_iters, tol, start, average_two, 2)


@configured
def aidi_a(
    num_iters: Annotated[
        int,
        Setting(
            "iterations a step, one network evaluation each (wmchen/diffusion-inversion: 5 and a first one).", low=1
        ),
    ] = 5,
    memory: Annotated[
        int, Setting("m, how many of the last iterates are mixed; 1 is the naive iteration (wmchen: 3).", low=1)
    ] = 3,
    ridge: Annotated[
        float,
        Setting(
            "added to the diagonal of the least squares' normal equations, as a part of their mean diagonal (wmchen: "
            "0, which is singular once two residual differences are parallel). A picture whose system is singular all "
            "the same takes the plain step.",
            high=1.0,
        ),
    ] = 1e-10,
    tol: Tolerance = None,
    start: Started = "source",
) -> Method:
    """AIDI-A: Anderson acceleration, with the weights of each picture its own.

    Reference:
        Pan, Gherardi, Xie and Huang, 2023, arXiv:2309.04907; Anderson, 1965, J. ACM 12.

    Example:
        >>> import unsample
        >>> unsample.methods.aidi_a().settings["memory"]
        3
    """
    return _accelerated(num_iters, tol, start, anderson(ridge), memory)


def _accelerated(num_iters: int, tol: float | None, start: Start, accelerate: Accelerator, memory: int) -> Method:
    return Method(
        invert_step=starting(fixed_point_invert(num_iters, tol, accelerate, memory), start),
        passes=lambda walked: (num_iters * walked.steps + asked(start, walked.steps)) * walked.pair,
    )
