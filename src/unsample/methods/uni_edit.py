"""Uni-Edit (Jiao, Huang, Wang and Liao, 2025, arXiv:2504.13109): an edit that is guided where two prompts disagree.

The step stands in `numbers.solvers.regional`. It starts part of the way up, from the point that Uni-Inv has reached
there, and asks the network under the source's prompt and the target's at the point where the edit is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.methods.base import Method
from unsample.methods.both import Both, played_by_target
from unsample.methods.inner import as_base
from unsample.methods.settings import NoiseAlone, Setting, configured
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.solvers.regional import regional

if TYPE_CHECKING:
    from unsample.models.guidance import Predict


@configured
def uni_edit(
    base: NoiseAlone = "uni_inv",
    omega: Annotated[
        float, Setting("strength of the correction, in each step on top of the fusion of the two velocities.")
    ] = 5.0,
) -> Method:
    """Uni-Edit: Uni-Inv up, and down by the source's velocity and a multiple of the target's difference from it.

    The paper's alpha, its delayed injection, is `strength`: 0.6 by default, 0.6 to 0.8 are recommended. Both prompts
    are asked under the guidance of the edit, 1 by default. An edit costs two predictions a step. The authors invert
    with an empty prompt (`guidance_scale=0` in `invert`); here the way up is of the source's prompt unless told.

    A reconstruction is that of `base`.

    Raises:
        Incompatible: a base that keeps more than the noise.

    Reference:
        Jiao et al., 2025, arXiv:2504.13109; on diffusion models the same with eps, as in the authors' code for Stable
        Diffusion XL. The mask is of absolute differences, as in their code for FLUX; that for diffusers leaves the
        sign in, so that there the mask is 0 where the two prompts disagree most with one sign.

    Example:
        >>> import unsample
        >>> unsample.methods.uni_edit().strength
        0.6
    """
    way_up = as_base(base, "uni_edit")

    def playback(predict: Predict, source: Predict) -> Any:
        return Both(predict.with_condition(source.condition, predict.unconditional), predict)

    return replace(
        way_up,
        sample_step=played_by_target(ddim_sample),
        edit_step=regional(omega),
        playback=playback,
        needs_prompt=True,
        edit_guidance_scale=1.0,
        strength=0.6,
    )
