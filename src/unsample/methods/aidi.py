"""AIDI, accelerated iterative diffusion inversion: fixed-point inversion whose next iterate mixes the last images.

`x_(k+1) = F(x_k)/2 + F(x_(k-1))/2` (AIDI-E) or `sum_i w_i F(x_i)`, w = argmin |sum w_i (F(x_i) - x_i)|, sum w = 1
(AIDI-A, Anderson, 1965), F as in `fixed_point` (Pan, Gherardi, Xie and Huang, 2023, arXiv:2309.04907).
There is no code of the authors, so the numbers of iterations below are those of others' versions.
"""

from __future__ import annotations

from typing import Any, get_args

from unsample.methods.base import Method, choice, number, whole
from unsample.numbers.solvers.anderson import anderson, average_two
from unsample.numbers.solvers.fixed_point import Accelerator, fixed_point_invert
from unsample.numbers.solvers.start import Start, asked, starting


def aidi_e(num_iters: int = 5, tol: float | None = None, start: Start = "source") -> Method:
    """AIDI-E ("empirical"): the next iterate is the average of the last two images.

    A transfer is affine in eps, so this is F of the averaged eps. Returned is the iterate that follows the smallest
    RMS(F(x_k) - x_k); `num_iters=1` is `ddim` digit for digit. On a real contraction averaging is slower than the
    naive iteration; where eps overshoots (a negative slope, guidance above 1) it is faster.

    Args:
        num_iters: iterations a step, one network evaluation each. Disputed: 5 in wmchen/diffusion-inversion (which
            spends 11 evaluations on them), 6 and a first one in EasyInv's comparison, 10 in Zeng et al., whose "AIDI"
            is the naive iteration.
        tol: a picture stops when its residual is at most tol * RMS(x_k); None runs all iterations.
        start: "source" or "previous", as in `fixed_point`.

    Raises:
        BadOption: settings out of range.

    Reference:
        Pan, Gherardi, Xie and Huang, 2023, arXiv:2309.04907.

    Example:
        >>> import unsample
        >>> unsample.methods.aidi_e(num_iters=6).passes(unsample.methods.Walked(steps=20))
        120
    """
    settings = {"num_iters": num_iters, "tol": tol, "start": start}
    return _accelerated("aidi_e", settings, num_iters, average_two, 2)


def aidi_a(
    num_iters: int = 5, memory: int = 3, ridge: float = 1e-10, tol: float | None = None, start: Start = "source"
) -> Method:
    """AIDI-A: Anderson acceleration, with the weights of each picture its own.

    Args:
        num_iters: iterations a step, one network evaluation each (wmchen/diffusion-inversion: 5 and a first one).
        memory: m, how many of the last iterates are mixed; 1 is the naive iteration (wmchen: 3).
        ridge: added to the diagonal of the least squares' normal equations, as a part of their mean diagonal (wmchen:
            0, which is singular once two residual differences are parallel). A picture whose system is singular all
            the same takes the plain step.
        tol: a picture stops when its residual is at most tol * RMS(x_k); None runs all iterations.
        start: "source" or "previous", as in `fixed_point`.

    Raises:
        BadOption: settings out of range.

    Reference:
        Pan, Gherardi, Xie and Huang, 2023, arXiv:2309.04907; Anderson, 1965, J. ACM 12.

    Example:
        >>> import unsample
        >>> unsample.methods.aidi_a().settings["memory"]
        3
    """
    whole("aidi_a", "memory", memory)
    number("aidi_a", "ridge", ridge, high=1.0)
    settings = {"num_iters": num_iters, "memory": memory, "ridge": ridge, "tol": tol, "start": start}
    return _accelerated("aidi_a", settings, num_iters, anderson(ridge), memory)


def _accelerated(name: str, settings: dict[str, Any], num_iters: int, accelerate: Accelerator, memory: int) -> Method:
    whole(name, "num_iters", num_iters)
    tol = settings["tol"]
    if tol is not None:
        number(name, "tol", tol)
    start = settings["start"]
    choice(name, "start", start, get_args(Start))
    return Method(
        name,
        settings,
        starting(fixed_point_invert(num_iters, tol, accelerate, memory), start),
        passes=lambda walked: (num_iters * walked.steps + asked(start, walked.steps)) * walked.pair,
    )
