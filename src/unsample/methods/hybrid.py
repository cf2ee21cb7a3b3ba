"""Zeng's hybrid: gradient descent on the first step, the fixed point after (arXiv:2606.03111, Algorithm 1).

The first step out of the clean end is the one where the fixed point fails (sigma_0 is almost 0, so the picture hardly
fixes eps) and the gradient does well. Algorithm 1 as printed runs i = 0..I, I + 1 iterations; the text says ten.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from unsample.methods.base import Method, choice, number, whole
from unsample.methods.fixed_point import fixed_point
from unsample.methods.gradient import gradient
from unsample.numbers.solvers.start import Start


def hybrid(
    num_updates: int = 1000,
    num_iters: int = 10,
    lr: float | None = None,
    optimizer: Literal["adam", "sgd", "lbfgs"] = "adam",
    tol: float | None = None,
    gradient_checkpointing: bool = False,
    start: Start = "source",
) -> Method:
    """Gradient descent on the first inversion step, fixed-point iteration on the others.

    Args:
        num_updates: gradient updates of the first step.
        num_iters: fixed-point iterations of every later step.
        lr: learning rate; None is 1e-3 for "adam", 0.1 for "sgd" and 1 for "lbfgs". The paper states none.
        optimizer: "adam", "sgd" or "lbfgs". The paper says gradient descent, and no more.
        tol: relative residual at which a picture's step ends, as in `gradient` and `fixed_point`; None runs everything.
        gradient_checkpointing: less memory for one more forward pass an update; diffusers networks only.
        start: of the iterations of every later step, as in `fixed_point`; the first step is a step before them, so
            "previous" costs nothing more.

    Raises:
        BadOption: settings out of range. Incompatible (while inverting): a network that gives no gradient.

    Reference:
        Zeng, Suganuma and Okatani, 2026, arXiv:2606.03111, Algorithm 1.

    Example:
        >>> import unsample
        >>> hybrid, walked = unsample.methods.hybrid(), unsample.methods.Walked(steps=50)
        >>> hybrid.passes(walked), hybrid.backward(walked)
        (1490, 1000)
    """
    whole("hybrid", "num_updates", num_updates)
    whole("hybrid", "num_iters", num_iters)
    for name, value in (("lr", lr), ("tol", tol)):
        if value is not None:
            number("hybrid", name, value)
    choice("hybrid", "start", start, get_args(Start))
    made = gradient(num_updates, lr, optimizer, 1, fixed_point(num_iters, tol, start), tol, gradient_checkpointing)
    settings = {
        "num_updates": num_updates,
        "num_iters": num_iters,
        "lr": lr,
        "optimizer": optimizer,
        "tol": tol,
        "gradient_checkpointing": gradient_checkpointing,
        "start": start,
    }
    return replace(made, name="hybrid", settings=settings, starts_at_picture=True)
