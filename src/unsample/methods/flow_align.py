"""FlowAlign (Kim, Hong, Park and Ye, 2025, arXiv:2505.23145): FlowEdit held to the source at its terminal point.

`Z_j = Z_i + (sigma_j - sigma_i)(v_t - v_s) + zeta (x0_s - x0_t)`: what the two samplers expect to end at is drawn
together. v_t is guided from the source's prompt to the target's, v_s is the source's alone, and the noise is fresh at
every step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from unsample.methods.base import Method
from unsample.methods.both import Both, inversion_free
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.coupled import coupled

if TYPE_CHECKING:
    from unsample.models.guidance import Predict


@configured
def flow_align(
    zeta: Annotated[
        float,
        Setting("what part of the difference of the two predicted pictures a step takes back; 0 is without.", high=1),
    ] = 0.01,
) -> Method:
    """FlowAlign: the source's prompt in the place of the negative one, and a pull to the picture in every step.

    All of the steps are walked, the authors' 33. `guidance_scale` in `edit` is `w` in `v_t = v(t; source) + w (v(t;
    target) - v(t; source))`, 7.5 as in their code; that of the inversion plays no part, and neither does a negative
    prompt. No noise is recovered: the record's is fresh. A reconstruction is the picture, without asking the network;
    an edit costs three passes a step.

    Reference:
        Kim et al., 2025, arXiv:2505.23145, as in the authors' code: there zeta is not multiplied by the step's length.

    Example:
        >>> import unsample
        >>> unsample.methods.flow_align().edit_guidance_scale
        7.5
    """

    def playback(predict: Predict, source: Predict) -> Both:
        alone = source.on(source.grid, 1.0)
        return Both(alone, predict.with_condition(predict.condition, alone.condition))

    return replace(
        inversion_free(),
        edit_step=coupled(pull=zeta),
        playback=playback,
        edit_guidance_scale=7.5,
        refuses_vp="its regularisation is derived for flow matching, and published for nothing else; use flow_edit",
    )
