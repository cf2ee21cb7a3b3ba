"""h-Edit-R (Nguyen, Do, Kieu and Nguyen, 2025, arXiv:2503.02187): edit-friendly maps, and steps along Doob's h.

`x_j = base + c f`: the source's own step with the noises that make the picture, and on top of it the difference f of
two guided predictions. The steps stand in `numbers.solvers.doob`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unsample.errors import BadOption, Incompatible
from unsample.methods.base import Method, Task
from unsample.methods.both import Both
from unsample.methods.edit_friendly import edit_friendly, noise_maps
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.doob import ETA, explicit, implicit, played

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.guidance import Predict
    from unsample.numbers.grid import Grid
    from unsample.numbers.walk import State


@dataclass(frozen=True)
class Three(Both):
    """The two predictions of the edit, and the source's alone."""

    base: Predict


def _playback(predict: Predict, source: Predict) -> Three:
    return Three(source, predict, source.on(source.grid, 1.0))


def _fit(task: Task, pivots: list[Tensor], state: State) -> State:
    alone = task.playback.on(task.grid, 1.0)
    return {"noise_maps": noise_maps(replace(task, playback=alone), pivots, ETA, zero_last=False)}


def _replay(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    return played(predict.base, x, grid, i, j, state)


@configured
def h_edit(
    form: Annotated[
        Literal["implicit", "explicit"],
        Setting("where the two prompts are asked: where a step leads, or where it starts."),
    ] = "implicit",
    num_iters: Annotated[int, Setting("of the implicit form, edits a step; more for hard edits.", low=1)] = 1,
    pull: Annotated[
        float, Setting("of the implicit form, from the second edit of a step on: the draw back to the source's step.")
    ] = 0.1,
) -> Method:
    """h-Edit-R, guided by text alone: reconstruction and edit are two terms of a step.

    The maps are made and played under the source's prompt at guidance 1, the authors' `w_orig`, whatever guidance a
    reconstruction is asked for. `guidance_scale` in `invert` is their `hat w_orig`, the source's in the difference (5),
    and in `edit` it is `w_edit` (7.5); keep the two near each other. `strength` is 0.7, their 15 of 50 skipped.

    Their h-Edit-D, and what they report as best, share attention between the branches (prompt-to-prompt), and there is
    no attention here. An edit costs a pass and `2 num_iters` predictions a step.

    Raises:
        BadOption: more than one edit a step in the explicit form.

    Reference:
        Nguyen et al., 2025, arXiv:2503.02187, Eq. 22 to 25 and Section 3.3.3, as in the authors' code: the implicit
        form also moves the start of a walk that skips steps, and the pull is along the sign of what was moved.

    Example:
        >>> import unsample
        >>> unsample.methods.h_edit().strength
        0.7
    """
    if form == "explicit" and num_iters > 1:
        raise BadOption(f"h_edit: num_iters must be 1 in the explicit form, which has one edit a step; got {num_iters}")

    def check_grid(grid: Grid, stop: int) -> None:
        if form == "implicit" and grid.alpha[min(stop + 1, grid.num_steps)] == 0:
            raise Incompatible(
                "h_edit: its implicit form divides by alpha, and the noisiest points of this grid have none (zero "
                "terminal SNR); use form='explicit', or a lower strength"
            )

    return replace(
        edit_friendly(skip=0.3),
        sample_step=_replay,
        edit_step=explicit if form == "explicit" else implicit(num_iters, pull),
        passes=lambda walked: walked.steps,
        check_grid=check_grid,
        fit=_fit,
        playback=_playback,
        needs_prompt=True,
        guidance_scale=5.0,
        sampling_guidance_scale=None,
        edit_guidance_scale=7.5,
        guidance_bound=False,
        refuses_flow="its edit is a step along a score, and published for nothing else; use uni_edit",
    )
