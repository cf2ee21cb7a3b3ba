"""Negative-prompt inversion (Miyake, Iohara, Saito and Tanaka, 2023, arXiv:2305.16807).

The embedding that null-text inversion looks for is near that of the source prompt itself, since an inversion trajectory
under eps_c is walked back under eps_c: so `eps = eps_source + w (eps_c - eps_source)` plays the noise back, and nothing
is fitted. A reconstruction (c = source) is sampling at guidance 1 whatever w, with all its error; only edits are
guided.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from unsample.methods.base import Method
from unsample.methods.inner import as_base
from unsample.methods.settings import NoiseAlone, Setting, configured

if TYPE_CHECKING:
    from unsample.models.base import Condition
    from unsample.models.guidance import Predict


@configured
def negative_prompt(
    base: NoiseAlone = "ddim",
    lerp: Annotated[
        float,
        Setting(
            "from 0, the source prompt, to 1, the negative (or empty) prompt: their embeddings mixed linearly. Not in "
            "the paper; ProxEdit's code has it as `npi_interp`, along a circle instead of a line.",
            high=1,
        ),
    ] = 0.0,
) -> Method:
    """Negative-prompt inversion: the source prompt stands in for the negative one when the noise is played back.

    A reconstruction under `lerp=0` therefore costs one pass a step. The source prompt takes the place of a
    `negative_prompt` that is given to an edit.

    Raises:
        Incompatible: a base that keeps more than the noise.

    Reference:
        Miyake et al., 2023, arXiv:2305.16807.

    Example:
        >>> import unsample
        >>> unsample.methods.negative_prompt().passes(unsample.methods.Walked(steps=50, sampling_pair=2))
        50
    """
    way_up = as_base(base, "negative_prompt")

    def playback(predict: Predict, source: Predict) -> Predict:
        own = source.condition
        if predict.condition is own and lerp == 0:
            return predict.with_condition(own, own).on(predict.grid, 1.0)  # the same digits, half the passes
        return predict.with_condition(predict.condition, _mixed(own, predict.unconditional, lerp))

    return replace(
        way_up,
        playback=playback,
        stores="noise, to be played back against the source prompt",
        needs_prompt=True,
        sampling_guidance_scale=7.5,
        edit_guidance_scale=7.5,
        handles_guidance=True,
    )


def _mixed(source: Condition, unconditional: Condition | None, share: float) -> Condition:
    """The source's condition, and a share of the unconditional one; without guidance there is none, and none asked."""
    if share == 0 or unconditional is None:
        return source
    assert source.prompt_embeds is not None
    assert unconditional.prompt_embeds is not None
    return replace(source, prompt_embeds=source.prompt_embeds.lerp(unconditional.prompt_embeds, share))
