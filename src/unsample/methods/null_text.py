"""Null-text inversion (Mokady, Hertz, Aberman, Pritch and Cohen-Or, 2023, arXiv:2211.09794, Eq. 3 and Algorithm 1).

At each step from i to j, `min over u_i of mean((step(x_i; c, u_i, w) - x*_j)^2)`: x* are the points of an inversion
without guidance, u_i the unconditional embedding under guidance w, started from that of the step before; x goes on
from where the fitted step leads. The record therefore holds under that guidance and under no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.errors import Incompatible
from unsample.methods.base import STEPS, Axis, Kept, Method, Task
from unsample.methods.inner import as_base
from unsample.methods.settings import NoiseAlone, Setting, configured
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.solvers.embeddings import Descent, Half, fit_each_step, fit_one_for_all, matters, with_embeds
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


InnerSteps = Annotated[int, Setting("updates a step, at most.", low=1)]
TwiceForward = Annotated[bool, Setting("less memory for a second forward pass in each backward one (not counted).")]


@configured
def null_text(
    base: NoiseAlone = "ddim",
    num_inner_steps: InnerSteps = 10,
    learning_rate: Annotated[float, Setting("of Adam, at the noisiest step.", low=1e-8)] = 1e-2,
    early_stop: Annotated[
        float | None, Setting("the loss at which the noisiest step stops; None makes every update.")
    ] = 1e-5,
    global_embedding: Annotated[
        bool,
        Setting(
            'one embedding for all steps instead, for comparison (the paper\'s "global null-text inversion"): '
            "num_inner_steps sweeps over the steps, each started at its own point of the trajectory, with one "
            "update a step at `learning_rate`."
        ),
    ] = False,
    gradient_checkpointing: TwiceForward = False,
) -> Method:
    """Null-text inversion: an unconditional embedding a step, so that guided sampling keeps to the trajectory.

    The embeddings are float32 whatever the network's type. With T steps and k of them done, Adam's learning rate is
    `learning_rate (1 - k / 2T)` and a picture stops once its loss was below `early_stop + 1e-3 k / T`, after
    the update; at T = 50 that is the authors' code, whose own `1 - k / 100` falls to zero at step 100 of more. The
    conditional prediction is asked for once a step, so 50 steps cost at most 50 + 50 (1 + 10 + 1) passes. At
    `sampling_guidance_scale=1` no unconditional embedding is asked, nothing is fitted and T passes are the cost.
    The residual reported is the largest relative distance of the fitted walk from the inversion trajectory (the base's
    own, if it reports one).

    Raises:
        Incompatible: a base that keeps more than the noise; when it is used: a sampling guidance of 0, or gradient
            checkpointing of a network that cannot.

    Reference:
        Mokady et al., 2023, arXiv:2211.09794, Eq. 3.

    Example:
        >>> import unsample
        >>> method = unsample.methods.null_text(num_inner_steps=5)
        >>> method.passes(unsample.methods.Walked(steps=50, sampling_pair=2))
        400
    """
    way_up = as_base(base, "null_text")
    descent = Descent(num_inner_steps, learning_rate, early_stop)
    made = embedding_method("null_text", way_up, "unconditional", descent, gradient_checkpointing, global_embedding)
    many = "one for all steps" if global_embedding else "one a step"
    asked = num_inner_steps + (1 if global_embedding else 2)
    return replace(
        made,
        passes=lambda walked: way_up.passes(walked) + (walked.steps * asked if walked.sampling_pair == 2 else 0),
        backward=lambda walked: (
            way_up.backward(walked) + (walked.steps * num_inner_steps if walked.sampling_pair == 2 else 0)
        ),
        stores=f"noise and unconditional embeddings, {many}",
    )


def embedding_method(
    name: str, way_up: Method, half: Half, descent: Descent, gradient_checkpointing: bool, one_for_all: bool = False
) -> Method:
    """A method that fits the embeddings of one half of the guided prediction; its cost is left to the caller."""
    axis = Axis("1 or T", lambda timesteps, stop: (1, stop)) if one_for_all else STEPS

    def begin(task: Task) -> State:
        from unsample.models.checkpointing import check_checkpointing

        if all(task.playback.scales[i] == 0 for i in range(1, task.stop + 1)):
            raise Incompatible(f"{name}: with a sampling guidance of 0 the prompt has no part; use 1 or more")
        if gradient_checkpointing:
            check_checkpointing(task.playback.model, name)
        return {} if way_up.begin is None else way_up.begin(task)

    def fit(task: Task, pivots: list[Tensor], state: State) -> State:
        from unsample.models.checkpointing import checkpointed

        predict = task.playback
        start = ((predict.unconditional if half == "unconditional" else None) or predict.condition).prompt_embeds
        assert start is not None
        if not any(matters(predict, half, i) for i in range(1, task.stop + 1)):
            return {**state, half: start.float()[:, None].repeat(1, task.stop, *[1] * (start.ndim - 1))}
        fitting = fit_one_for_all if one_for_all else fit_each_step
        rounds = range(descent.num_inner_steps if one_for_all else task.stop)
        with checkpointed(predict.model, gradient_checkpointing):
            fitted, missed = fitting(predict, pivots, half, start, descent, task.progress(rounds, "fit embeddings"))
        return {**missed, **state, half: fitted}  # a base that reports residuals keeps its own

    return replace(
        way_up,
        begin=begin,
        fit=fit,
        sample_step=sample_with(half),
        keeps={half: Kept("an embedding a step, the last step's first, or one for all", axis, embedding=True)},
        fitted=True,
        needs_prompt=True,
        sampling_guidance_scale=7.5,
        edit_guidance_scale=7.5,
        guidance_bound=True,
        edits_as_fitted=True,
        handles_guidance=True,
    )


def sample_with(half: Half, joined: Callable[[Tensor, Tensor], Tensor] = lambda fitted, given: fitted) -> Step:
    """The sampling step under the embedding of its step; `joined` mixes it with the one that is given."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if not matters(predict, half, i):
            return ddim_sample(predict, x, grid, i, j, state)
        fitted = state[half]
        embeds = fitted[:, 0 if fitted.shape[1] == 1 else i - 1]
        given = getattr(predict, half).prompt_embeds
        return ddim_sample(with_embeds(predict, half, joined(embeds, given)), x, grid, i, j, state)

    return step
