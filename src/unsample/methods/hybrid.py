"""Zeng's hybrid: gradient descent on the first step, the fixed point after (arXiv:2606.03111, Algorithm 1).

The first step out of the clean end is the one where the fixed point fails (sigma_0 is almost 0, so the picture hardly
fixes eps) and the gradient does well. Algorithm 1 as printed runs i = 0..I, I + 1 iterations; the text says ten.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from unsample.methods.base import Method
from unsample.methods.fixed_point import fixed_point
from unsample.methods.gradient import gradient
from unsample.methods.settings import Checkpointing, Optimizer, Rate, Setting, Started, configured


@configured
def hybrid(
    num_updates: Annotated[int, Setting("gradient updates of the first step.", low=1)] = 1000,
    num_iters: Annotated[int, Setting("fixed-point iterations of every later step.", low=1)] = 10,
    lr: Rate = None,
    optimizer: Optimizer = "adam",
    tol: Annotated[
        float | None,
        Setting(
            "relative residual at which a picture's step ends, as in `gradient` and `fixed_point`; None: none does."
        ),
    ] = None,
    gradient_checkpointing: Checkpointing = False,
    start: Started = "source",
) -> Method:
    """Gradient descent on the first inversion step, fixed-point iteration on the others.

    The first step is a step before them, so `start="previous"` costs nothing more here.

    Raises:
        Incompatible (while inverting): a network that gives no gradient.

    Reference:
        Zeng, Suganuma and Okatani, 2026, arXiv:2606.03111, Algorithm 1.

    Example:
        >>> import unsample
        >>> hybrid, walked = unsample.methods.hybrid(), unsample.methods.Walked(steps=50)
        >>> hybrid.passes(walked), hybrid.backward(walked)
        (1490, 1000)
    """
    rest = fixed_point(num_iters, tol, start)
    return replace(gradient(num_updates, lr, optimizer, 1, rest, tol, gradient_checkpointing), starts_at_picture=True)
