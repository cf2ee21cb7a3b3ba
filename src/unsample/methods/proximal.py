"""Proximal negative-prompt inversion, ProxEdit (Han et al., 2023, arXiv:2306.05414).

Negative-prompt inversion whose edits guide only the largest differences, `eps_source + w prox(eps_c - eps_source)`,
and pull the rest back onto the inversion trajectory in the last steps (inversion guidance). The record holds those
points, the picture's own among them, so a reconstruction says nothing of the inversion: with `recon_lr=1` it is exact.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from unsample.methods.base import Axis, Kept, Method, Task
from unsample.methods.inner import as_base
from unsample.methods.settings import NoiseAlone, Setting, configured
from unsample.numbers.solvers.proximal import Proximal
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.guidance import Predict


@configured
def proximal(
    base: NoiseAlone = "ddim",
    prox: Annotated[
        Literal["l0", "l1"],
        Setting(
            "`l0` keeps the difference where it is large and drops the rest, `l1` also shortens it by the threshold."
        ),
    ] = "l0",
    quantile: Annotated[
        float,
        Setting(
            "of the difference's size over a picture, the threshold; 0 with `l0` is plain guidance. The authors' code "
            "takes it over the batch.",
            high=1,
        ),
    ] = 0.7,
    recon_t: Annotated[
        int, Setting("timesteps below it have inversion guidance; 0 has none, and then only the noise is kept.")
    ] = 400,
    recon_lr: Annotated[
        float,
        Setting(
            "how far x moves; 0 is as `recon_t=0`. The authors' examples have 1, .5 and .1, PnPInversion's copy .1.",
            high=1,
        ),
    ] = 1.0,
    dilate_mask: Annotated[int, Setting("how many latent pixels around what was kept are left alone too.")] = 1,
) -> Method:
    """ProxEdit on negative-prompt inversion.

    `prox` is as in the paper; in the authors' code "l0" shortens what it keeps, which is l1, and "l1" does so twice.
    Inversion guidance: at steps from timesteps below `recon_t`, x moves by `recon_lr` of its distance to the point
    of the inversion trajectory, except where the difference was kept.

    Raises:
        Incompatible: a base that keeps more than the noise.

    Reference:
        Han et al., 2023, arXiv:2306.05414.

    Example:
        >>> import unsample
        >>> unsample.methods.proximal(quantile=0.75).settings["recon_t"]
        400
    """
    way_up = as_base(base, "proximal")
    guided = recon_t > 0 and recon_lr > 0
    step = Proximal(quantile, prox == "l1", recon_t if guided else 0, recon_lr, dilate_mask)  # 0: no points to pull to

    def below(timesteps: Sequence[float], stop: int) -> int:
        return sum(t < recon_t for t in timesteps[1 : stop + 1])

    pulled = Axis("K", lambda timesteps, stop: (max(below(timesteps, stop), 1),))

    def fit(task: Task, pivots: list[Tensor], state: State) -> State:
        import torch

        if not below(task.grid.timesteps, task.stop):
            warnings.warn(
                f"proximal: no step starts below timestep {recon_t} (recon_t), so there is no inversion guidance and "
                f"the reconstruction is not exact; the last one starts at {task.grid.timesteps[1]}",
                stacklevel=2,
            )
        (count,) = pulled.lengths(task.grid.timesteps, task.stop)
        return {**state, "pivots": torch.stack(pivots[:count], 1)}

    def playback(predict: Predict, source: Predict) -> Predict:
        return predict.with_condition(predict.condition, source.condition)

    return replace(
        way_up,
        sample_step=step,
        fit=fit if guided else None,
        playback=playback,
        keeps={"pivots": Kept("the last points of the inversion trajectory, clean first", pulled)} if guided else {},
        stores="noise and the last points of the inversion trajectory, the picture's own among them"
        if guided
        else "noise",
        fitted=guided,
        exact=guided and recon_lr == 1,
        needs_prompt=True,
        sampling_guidance_scale=7.5,
        edit_guidance_scale=7.5,
        handles_guidance=True,
    )
