"""Direct inversion, PnP inversion (Ju, Zeng, Bian, Liu and Xu, 2023, arXiv:2310.01506).

`o_j = x*_j - step(x_i; c, w)`: what a guided sampling step misses of the inversion trajectory is stored, and added
when the source is played back. With every offset in full that reconstructs by construction, so it says nothing of the
inversion. The method is for editors with two branches, which add the offsets to the source's branch and share its
attention.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.methods.base import STEPS, Kept, Method, Task
from unsample.methods.inner import as_base
from unsample.methods.settings import NoiseAlone, Setting, configured
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


@configured
def direct(
    base: NoiseAlone = "ddim",
    scale: Annotated[
        float, Setting("what part of an offset is stored and added; the paper tried .4 and .8.", high=1)
    ] = 1.0,
    every: Annotated[
        int,
        Setting(
            "an offset at the noisiest step and at every so many after it, none between; the paper tried 2 to 49.",
            low=1,
        ),
    ] = 1,
) -> Method:
    """Direct inversion: the offsets of guided sampling from the inversion trajectory, stored.

    They hold under the sampling guidance that they were made with (7.5). The settings are the paper's ablations: with
    either of them, x goes on from where the corrected step leads.

    Raises:
        Incompatible: a base that keeps more than the noise.

    Reference:
        Ju et al., 2023, arXiv:2310.01506.

    Example:
        >>> import unsample
        >>> unsample.methods.direct().passes(unsample.methods.Walked(steps=50, sampling_pair=2))
        150
    """
    way_up = as_base(base, "direct")

    def fit(task: Task, pivots: list[Tensor], state: State) -> State:
        import torch

        x, offsets = pivots[-1], []
        for k in task.progress(range(task.stop), "store offsets"):
            i = task.stop - k
            x, _ = ddim_sample(task.playback, x, task.grid, i, i - 1, {})
            offset = scale * (pivots[i - 1] - x) if k % every == 0 else torch.zeros_like(x)
            x = x + offset
            offsets.append(offset)
        return {**state, "offsets": torch.stack(offsets[::-1], 1)}

    return replace(
        way_up,
        sample_step=_sample_with_offsets,
        passes=lambda walked: way_up.passes(walked) + walked.steps * walked.sampling_pair,
        fit=fit,
        keeps={"offsets": Kept("an offset a step, the last step's first", STEPS)},
        stores="noise and an offset a step",
        fitted=True,
        exact=scale == 1 and every == 1,
        needs_prompt=True,
        sampling_guidance_scale=7.5,
        guidance_bound=True,
        handles_guidance=True,
        edit_state=_without_offsets,
        refuses_edit=(
            "its offsets belong to the source's branch of an editor, and without one its edit is that of ddim; give an "
            "editor, such as editor='p2p', or a mask, or use method ddim"
        ),
    )


def _without_offsets(state: State) -> State:
    """They correct the source's branch alone (the paper's Algorithm 1)."""
    import torch

    return {**state, "offsets": torch.zeros_like(state["offsets"])}


def _sample_with_offsets(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    """From noisier i to cleaner j, and the offset that belongs there."""
    x, state = ddim_sample(predict, x, grid, i, j, state)
    return x + state["offsets"][:, j], state
