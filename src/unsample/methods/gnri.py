"""Guided Newton-Raphson inversion (Samuel et al., ICLR 2025, arXiv:2312.12540v5; v1 of that number is FPI).

`F(y) = || y - f(y) ||_1 + prior_weight G(y)`, f the implicit DDIM inversion, and
`y <- y - F(y) / (D (dF/dy + eta))` coordinate by coordinate: the scalar's Newton-Raphson with its step shared out.
The authors' code is another method: the network runs under no_grad, so dF/dy is a sign and no Newton slope. Which of
the two made the published numbers is not said.
"""

from __future__ import annotations

from typing import Annotated, Literal

from unsample.errors import BadOption
from unsample.methods.base import Method, Task
from unsample.methods.gradient import saving_memory
from unsample.methods.settings import Setting, Started, configured
from unsample.numbers.solvers.start import asked, starting
from unsample.numbers.walk import State

ETA = 1e-6  # "a small constant for numerical stability": the paper gives no number


@configured
def gnri(
    variant: Annotated[
        Literal["paper", "code"],
        Setting(
            "`paper`: G(y) = || y - sqrt(1 - beta) x_i || / beta with beta = 1 - alpha_j^2 / alpha_i^2 of the step "
            "walked (of a flow mean and variance of its own q(x_j | x_i)), and the slope runs through the network; "
            "`code`: G(y) = 1/2 || (f(y) - alpha_j x_0) / sigma_j ||^2 and y <- y + F / D sign(f(y) - y), no backward "
            "pass."
        ),
    ] = "paper",
    num_iters: Annotated[int, Setting("iterations a step.", low=1)] = 2,
    prior_weight: Annotated[float, Setting("lambda, the weight of G; 0 for none.")] = 0.1,
    eta: Annotated[float | None, Setting("what is added to the slope, of `paper` only; None is 1e-6.")] = None,
    gradient_checkpointing: Annotated[
        bool, Setting("less memory for one more forward pass an iteration; of `paper` only.")
    ] = False,
    start: Started = "source",
) -> Method:
    """Guided Newton-Raphson inversion, the paper's or the one that the authors' code runs.

    Both return f(y) at the iterate with the smallest F (the code's rule; the paper's last y has not been looked at, and
    carries the mean residual as sign noise), so `num_iters=1` is `ddim`,
    or with `start="previous"` `uni_inv`.

    Raises:
        BadOption: settings of the other variant. Incompatible (while inverting): a network that gives
            no gradient.

    Reference:
        Samuel et al., 2025, arXiv:2312.12540v5, section 4; github.com/dvirsamuel/NewtonRaphsonInversion.

    Example:
        >>> import unsample
        >>> walked = unsample.methods.Walked(steps=4)
        >>> [unsample.methods.gnri(variant).backward(walked) for variant in ("paper", "code")]
        [8, 0]
    """
    from unsample.numbers.solvers.newton import newton_invert, sign_invert

    paper = variant == "paper"
    if not paper and (eta is not None or gradient_checkpointing):
        raise BadOption("gnri: eta and gradient_checkpointing belong to variant='paper'; 'code' takes no slope")
    step = (
        newton_invert(num_iters, prior_weight, ETA if eta is None else eta)
        if paper
        else sign_invert(num_iters, prior_weight)
    )
    step = starting(step, start)
    if gradient_checkpointing:
        step = saving_memory(step, "gnri")
    return Method(
        invert_step=step,
        passes=lambda walked: (num_iters * walked.steps + asked(start, walked.steps)) * walked.pair,
        backward=lambda walked: num_iters * walked.steps * walked.pair if paper else 0,
        begin=_remember,
    )


def _remember(task: Task) -> State:
    return {"clean": task.x0}
