"""DNAEdit (Xie, Li, Li, Wu, Yi and Zhang, 2025, arXiv:2506.01430): an inversion that moves the noise, and its edit.

The steps stand in `numbers.solvers.dna`. The record holds where the network was asked beside each point, so that a
reconstruction under the guidance of the inversion is exact, at one prediction a step and none more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from unsample.methods.base import STEPS, Kept, Method, Task
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.dna import align, guided_replay, replay

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.walk import State


def _begin(task: Task) -> State:
    return {"source": task.x0, "noise": task.noise(), "velocities": (), "offsets": ()}


def _fit(task: Task, pivots: list[Tensor], state: State) -> State:
    import torch

    return {"source": task.x0, **{name: torch.stack(state[name], 1) for name in ("velocities", "offsets")}}


@configured
def dna_edit(
    mvg: Annotated[
        float,
        Setting(
            "in [0, 1], mobile velocity guidance: the share of the target's velocity in an edit; the rest keeps to the "
            "picture. 1 is the target's alone; the authors take .8 to .85.",
            high=1.0,
        ),
    ] = 0.8,
) -> Method:
    """DNAEdit: a drawn noise aligned step by step, and an edit that is held near the picture.

    The authors skip 13 of 40 steps of Stable Diffusion 3.5, noisiest first, which is the `strength` here (4 of 28 for
    FLUX), invert at guidance 1 and edit at 3.5 (FLUX 2.5).

    A reconstruction leaves mobile velocity guidance out, and is exact under the guidance of the inversion alone.

    Reference:
        Xie et al., 2025, arXiv:2506.01430, as in the authors' code: there the edit too is asked where the way up asked.

    Example:
        >>> import unsample
        >>> unsample.methods.dna_edit().strength
        0.675
    """
    return Method(
        invert_step=align,
        sample_step=replay,
        edit_step=guided_replay(mvg),
        begin=_begin,
        fit=_fit,
        keeps={
            "source": Kept("the picture, in the range of the model"),
            "velocities": Kept("the velocity of each step, the last step's first", STEPS),
            "offsets": Kept("from each point to where the network was asked, the last step's first", STEPS),
        },
        stores="noise, the picture, and a velocity and an offset a step",
        fitted=True,
        exact=True,
        reversible=True,
        edit_guidance_scale=3.5,
        strength=0.675,
        refuses_vp="its noise is aligned along straight paths, and nothing else is published; use uni_inv",
    )
