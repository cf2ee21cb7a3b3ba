"""Prompt tuning inversion (Dong, Xue, Duan and Han, 2023, arXiv:2305.04441).

At each step `min over c_i of mean((step(x_i; c_i, u, w) - x*_j)^2)`: as null-text inversion, but with the conditional
embedding c_i fitted and the unconditional u left alone. An edit plays `(1 - s) c_i + s c_target`. No official code:
learning rate and s are in dispute, and a fitted embedding leaves what the text encoder can say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from unsample.methods.base import Method, Walked
from unsample.methods.inner import as_base
from unsample.methods.null_text import InnerSteps, TwiceForward, embedding_method, sample_with
from unsample.methods.settings import NoiseAlone, Setting, configured
from unsample.numbers.solvers.embeddings import Descent

if TYPE_CHECKING:
    from torch import Tensor


@configured
def prompt_tuning(
    base: NoiseAlone = "ddim",
    num_inner_steps: InnerSteps = 10,
    learning_rate: Annotated[
        float, Setting("of Adam, at the noisiest step. Code of others has 0.01 and 0.005.", low=1e-8)
    ] = 1e-2,
    early_stop: Annotated[
        float | None,
        Setting("the loss at which the noisiest step stops, as in `null_text`; None makes every update."),
    ] = None,
    interpolation: Annotated[
        float,
        Setting(
            "s, the share of the target's embedding in an edit: 0 reconstructs, 1 forgets the fit. The default is "
            "ours.",
            high=1,
        ),
    ] = 0.8,
    gradient_checkpointing: TwiceForward = False,
) -> Method:
    """Prompt tuning inversion: a conditional embedding a step, so that sampling keeps to the inversion trajectory.

    Fitted as in `null_text`, float32 and under the sampling guidance (7.5), with the same course of learning rate and
    threshold. The paper describes the picture in no words and walks up without a prompt: give prompt="" for that;
    with a prompt, its embedding is where the fit starts and the inversion trajectory is under it, as in the code of
    others. At `sampling_guidance_scale=1` the conditional embedding is still fitted, without an unconditional pass.
    The residual reported is as in `null_text`.

    Raises:
        Incompatible: a base that keeps more than the noise; when it is used: a sampling guidance of 0, or gradient
            checkpointing of a network that cannot.

    Reference:
        Dong et al., 2023, arXiv:2305.04441.

    Example:
        >>> import unsample
        >>> unsample.methods.prompt_tuning().backward(unsample.methods.Walked(steps=50, sampling_pair=2))
        500
    """
    way_up = as_base(base, "prompt_tuning")
    descent = Descent(num_inner_steps, learning_rate, early_stop)
    made = embedding_method("prompt_tuning", way_up, "condition", descent, gradient_checkpointing)

    def towards(fitted: Tensor, target: Tensor) -> Tensor:
        return fitted.lerp(target.to(fitted), interpolation)

    def passes(walked: Walked) -> int:
        return way_up.passes(walked) + walked.steps * (num_inner_steps + walked.sampling_pair)

    return replace(
        made,
        passes=passes,
        backward=lambda walked: way_up.backward(walked) + walked.steps * num_inner_steps,
        edit_step=sample_with("condition", towards),
        stores="noise and conditional embeddings, one a step",
    )
