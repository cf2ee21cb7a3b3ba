"""SDEdit: forward noise at a strength, no inversion at all (Meng et al., 2022, arXiv:2108.01073).

`x_stop = alpha x_0 + sigma n` with a fresh, seeded n, then sampling from there: the "image to image" of diffusers, and
a baseline that costs no network call. Its record knows of the picture what the noise leaves of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from unsample.methods.base import DRAWN, STEPS, Kept, Method, Task, nothing
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.solvers.ddpm_maps import ddpm_sample, forward_noised

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid
    from unsample.numbers.walk import State


def _up(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    return forward_noised(state["x0"], state["forward_noise"], grid, j), state


@configured
def sdedit(
    eta: Annotated[
        float,
        Setting(
            "in [0, 1], the noise of sampling: 0 is DDIM, what `img2img` pipelines use; 1 is the ancestral sampler, "
            "the discrete form of the paper's reverse SDE. Its noises are drawn with the record, seeded, and kept.",
            high=1.0,
        ),
    ] = 0.0,
) -> Method:
    """SDEdit: the noised picture. How far it is noised is `strength` in `invert`, 0.8 by default.

    Reference:
        Meng et al., 2022, arXiv:2108.01073. The strength is that of diffusers; the paper takes 0.3 to 0.6.

    Example:
        >>> import unsample
        >>> unsample.methods.sdedit().strength
        0.8
    """

    def begin(task: Task) -> State:
        drawn: dict[str, Tensor] = {"x0": task.x0, "forward_noise": task.noise()}
        if eta > 0:
            drawn["noise_maps"] = task.noise(task.stop, *task.x0.shape[1:])
            drawn["noise_maps"][:, 0] = 0  # the last step of an ancestral sampler adds none
        return drawn

    return Method(
        invert_step=_up,
        sample_step=ddpm_sample(eta) if eta > 0 else ddim_sample,
        passes=nothing,
        begin=begin,
        keeps={"noise_maps": Kept("the noise of each step of sampling, the last step's first", STEPS)}
        if eta > 0
        else {},
        stores="the noised picture and the noises of sampling" if eta > 0 else "the noised picture",
        no_root=DRAWN,
        strength=0.8,
    )
