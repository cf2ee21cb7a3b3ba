"""Edit-friendly DDPM noise maps (Huberman-Spiegelglas, Kulikov and Michaeli, 2024, arXiv:2304.06140, Algorithm 1).

`x_t = alpha_t x_0 + sigma_t eps_t` with an independent eps_t for every t (not one path of the forward process), then
`z_t = (x_(t-1) - mu(x_t)) / s_t`, and x_(t-1) is set to `mu + s_t z_t` before the next step so that no error adds up.
The maps are neither white nor of unit variance: they hold the picture. mu is of the guidance of sampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from unsample.errors import BadOption
from unsample.methods.base import STEPS, Kept, Method, Task
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.ddpm_maps import ddpm_mean, ddpm_sample, forward_noised

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid
    from unsample.numbers.walk import State


def _begin(task: Task) -> State:
    return {"x0": task.x0, "forward_noise": task.noise(task.stop, *task.x0.shape[1:])}  # (B, stop, C, H, W)


def _up(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    return forward_noised(state["x0"], state["forward_noise"][:, j - 1], grid, j), state


def noise_maps(task: Task, pivots: list[Tensor], eta: float, zero_last: bool) -> Tensor:
    """(B, stop, C, H, W), the maps of the steps down through `pivots`, the one into the clean end first."""
    import torch

    x, maps = pivots[task.stop], []
    for i in task.progress(range(task.stop, 1, -1), "noise maps"):
        mean, std = ddpm_mean(task.playback, x, task.grid, i, i - 1, eta)
        maps.append((pivots[i - 1] - mean) / std)
        x = mean + std * maps[-1]
    mean, _ = ddpm_mean(task.playback, x, task.grid, 1, 0, eta)
    maps.append(torch.zeros_like(mean) if zero_last else pivots[0] - mean)
    return torch.stack(maps[::-1], 1)


@configured
def edit_friendly(
    eta: Annotated[float, Setting("in (0, 1], the noise of the sampler; 1 is DDPM.", high=1.0)] = 1.0,
    skip: Annotated[
        float,
        Setting(
            "in [0, 1), the part of the steps, noisiest first, that is neither inverted nor sampled: the authors' 36 "
            "of 100 (12 with prompt-to-prompt). `strength` in `invert` goes before it, as 1 - skip.",
            high=1.0,
        ),
    ] = 0.36,
    zero_last: Annotated[
        bool,
        Setting(
            "the authors' code: the last map is 0, and the reconstruction is not exact. Otherwise what the last step "
            "lacks, x_0 - mu, is stored in its place."
        ),
    ] = False,
) -> Method:
    """Edit-friendly DDPM inversion: the noise of every step of a stochastic sampler, such that it makes the picture.

    The guidance of inversion plays no part; the maps hold under the guidance of sampling they were made with (3.5 by
    default), and a reconstruction is bound to it. Edits play the maps under another prompt, by default at guidance 15.

    Reference:
        Huberman-Spiegelglas, Kulikov and Michaeli, 2024, arXiv:2304.06140, Eq. 5 and 6, Algorithm 1. The authors' code
        takes eta where the equation of DDIM has eta^2 in mu, the same at eta = 1 only; here it is eta^2. It makes the
        maps from the clean end up, so that setting x_(t-1) again reaches no later step; here from the noisiest point
        down, as in the algorithm. It makes all 100 maps and leaves 36 unused; here only those that are played.

    Example:
        >>> import unsample
        >>> unsample.methods.edit_friendly(skip=0.2).strength
        0.8
    """
    if eta == 0:
        raise BadOption("edit_friendly: eta must be above 0; at 0 the sampler has no noise to find")
    if skip == 1:
        raise BadOption("edit_friendly: skip must be below 1; at 1 no step is left")

    def fit(task: Task, pivots: list[Tensor], state: State) -> State:
        return {"noise_maps": noise_maps(task, pivots, eta, zero_last)}  # the drawn noises have done their part

    return Method(
        invert_step=_up,
        sample_step=ddpm_sample(eta),
        passes=lambda walked: walked.steps * walked.sampling_pair,
        begin=_begin,
        fit=fit,
        keeps={"noise_maps": Kept("a noise map a step, the last step's first", STEPS)},
        stores="the noised picture and one noise map a step",
        fitted=True,
        exact=not zero_last,
        sampling_guidance_scale=3.5,
        edit_guidance_scale=15.0,
        guidance_bound=True,
        strength=round(1 - skip, 12),  # 1 - .36 is .64, and not a rounding below it: `strength` counts whole steps
    )
