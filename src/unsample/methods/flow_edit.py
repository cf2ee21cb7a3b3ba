"""FlowEdit (Kulikov, Kleiner, Huberman-Spiegelglas and Michaeli, 2024, arXiv:2412.08629): an edit without an inversion.

`dZ = (v(Z + S - X; target) - v(S; source)) dsigma` from Z = X, with S = alpha X + sigma n and a fresh n at every step.
Nothing is inverted: the record holds the picture and the noises, and equal prompts give the picture back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from unsample.errors import BadOption
from unsample.methods.base import Method
from unsample.methods.both import Both, inversion_free
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.coupled import coupled

if TYPE_CHECKING:
    from unsample.numbers.grid import Grid


@configured
def flow_edit(
    n_avg: Annotated[
        int, Setting("noises a step, over which the difference of the two predictions is averaged.", low=1)
    ] = 1,
    n_min: Annotated[
        int,
        Setting(
            "of the last steps, how many sample under the target's prompt alone: more change, less of the picture."
        ),
    ] = 0,
) -> Method:
    """FlowEdit: the picture itself moves by the difference of two predictions, at the target's prompt and the source's.

    The paper's n_max of T steps is `strength`: 33 of 50 by default (Stable Diffusion 3), 24 of 28 for FLUX.
    `guidance_scale` in `invert` is that of the source (3.5; FLUX 1.5), in `edit` that of the target (13.5; FLUX 5.5).

    No noise is recovered: the record's is the picture under fresh noise. A reconstruction is the picture, without
    asking the network; an edit costs two predictions a step and noise, one in each of the `n_min` last steps.

    On a model that preserves the variance it is the same in `t = sigma / (alpha + sigma)`, which carries every such
    model's paths onto straight ones; the authors give that form, for eps, in an issue of their repository and have
    published no results for it.

    Reference:
        Kulikov et al., 2024, arXiv:2412.08629, Algorithm 1; n_min as in its appendix.

    Example:
        >>> import unsample
        >>> unsample.methods.flow_edit().strength
        0.66
    """

    def check_grid(grid: Grid, stop: int) -> None:
        if n_min > stop:
            raise BadOption(f"flow_edit: n_min must be at most the steps of the edit, {stop}; got {n_min}")

    return replace(
        inversion_free(n_avg),
        edit_step=coupled(n_avg, n_min),
        check_grid=check_grid,
        playback=lambda predict, source: Both(source, predict),
        guidance_scale=3.5,
        edit_guidance_scale=13.5,
        strength=0.66,
    )
