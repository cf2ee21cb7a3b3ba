"""Delta Denoising Score (Hertz, Aberman and Cohen-Or, 2023, arXiv:2304.07090): a picture optimised by two scores.

`Z -= lr (eps(alpha_t Z + sigma_t n, t; target) - eps(alpha_t X + sigma_t n, t; source))` from Z = X, at random t and n.
What the score of the target says of the picture as it was, the score of the source takes out again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from unsample.errors import BadOption
from unsample.methods.base import Axis, Kept, Method, Task
from unsample.methods.both import Both, inversion_free
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.coupled import delta_denoised

if TYPE_CHECKING:
    from unsample.numbers.walk import State


@configured
def dds(
    num_iters: Annotated[int, Setting("gradient steps, spread evenly over the steps of the walk.", low=1)] = 200,
    lr: Annotated[
        float,
        Setting(
            "of the difference of the two eps, for each number of the latent: the authors' 0.1 x 2000 / 64^2 of a "
            "picture of 512 px. They divide by the cells of the latent, so that another size walks another length."
        ),
    ] = 0.0488,
    t_min: Annotated[float, Setting("in [0, 1], the cleanest level drawn, as a share of the walk.", high=1.0)] = 0.05,
    t_max: Annotated[float, Setting("in [0, 1], the noisiest level drawn, likewise.", high=1.0)] = 0.95,
) -> Method:
    """DDS: the baseline of edits by optimisation; no pass runs backward through the network.

    Both prompts are asked under the same noise at the same level, at guidance 7.5 (`guidance_scale` in `invert` is that
    of the source). The noises are a picture's own and stand in its record; the levels are one random sequence for all.
    A reconstruction is the picture, without asking the network; an edit costs `2 num_iters` predictions, however many
    steps are walked.

    Raises:
        BadOption: t_min above t_max.

    Reference:
        Hertz et al., 2023, arXiv:2304.07090; iterations, rate, levels (timesteps 50 to 950 of 1000) and the weight 1
        of every level as in the authors' notebook.

    Example:
        >>> import unsample
        >>> unsample.methods.dds(num_iters=100).edit_guidance_scale
        7.5
    """
    if t_min > t_max:
        raise BadOption(f"dds: t_min must be at most t_max, {t_max}; got {t_min}")
    free = inversion_free()
    assert free.begin is not None
    drawn = free.begin

    def begin(task: Task) -> State:
        return {**drawn(task), "delta_noise": task.noise(num_iters, *task.x0.shape[1:])}

    each = Axis("K", lambda timesteps, stop: (num_iters,))
    return replace(
        free,
        begin=begin,
        edit_step=delta_denoised(num_iters, lr, (t_min, t_max)),
        playback=lambda predict, source: Both(source, predict),
        keeps={**free.keeps, "delta_noise": Kept("the noises of the optimisation, the first one's first", each)},
        guidance_scale=7.5,
        edit_guidance_scale=7.5,
        refuses_flow="its gradient is a difference of two eps, and published for nothing else; use flow_edit",
    )
