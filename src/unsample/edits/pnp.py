"""Plug-and-play: features of one decoder block, and queries and keys of self-attention, are injected from the source.

In the first steps the edit's residual branch `f` of one block of the decoder is its source's, and its self-attention is
`softmax(q_source k_source^T / sqrt(d)) v_edit` from there on (Tumanyan et al., 2022, arXiv:2211.12572): the source's
layout, filled with what the edit's prompt says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.edits.attention import AttentionSteering, Heads, Layer, check_together
from unsample.edits.base import Asked, Branches, Editor
from unsample.edits.layers import Decoder, decoder_of, steps_of
from unsample.methods.settings import Setting, configured

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model


@configured
def pnp(
    feature_steps: Annotated[
        float, Setting("the share of the steps, from the first, in which features are the source's.", high=1)
    ] = 0.8,
    self_steps: Annotated[
        float, Setting("the share in which queries and keys of self-attention are the source's.", high=1)
    ] = 0.5,
) -> Editor:
    """Plug-and-play features: layout by the source, looks by the edit's prompt; for changes of colour, style, material.

    The features are those of the authors' code: the residual branch, before it is added, of the second block of the
    first decoder block with attention (`up_blocks[1].resnets[1]` of Stable Diffusion 1.x), self-attention from it on.
    Each half of an edit's guidance reads the same half of its source; the authors play the source under an empty
    prompt, where the two halves are one. Guidance is 7.5 by default, as theirs; of their negative prompt ("ugly,
    blurry, black, low res, unrealistic") nothing is taken: give it as `negative_prompt`.

    Reference:
        Tumanyan et al., 2022, arXiv:2211.12572.

    Example:
        >>> import unsample
        >>> unsample.edits.pnp(self_steps=0.4)
        pnp(feature_steps=0.8, self_steps=0.4)
    """

    def steer(branches: Branches) -> Injected:
        steps = [steps_of(share, branches.stop) for share in (feature_steps, self_steps)]
        return Injected(branches, decoder_of(branches.model, "pnp"), *steps)

    def check(model: Model, pairs: Sequence[tuple[str, str]]) -> None:
        decoder_of(model, "pnp")

    return Editor(steer=steer, check=check, edit_guidance_scale=7.5)


class Injected(AttentionSteering):
    """Edits are given features, queries and keys of their sources in the first steps."""

    def __init__(self, branches: Branches, decoder: Decoder, feature_steps: int, self_steps: int) -> None:
        super().__init__(branches, decoder.layers if self_steps else ())
        self.decoder, self.feature_steps, self.self_steps = decoder, feature_steps, self_steps
        if not feature_steps and not self_steps:
            self.halves = ()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """See `Steering`."""
        hook = self.decoder.resnet.conv2.register_forward_hook(self._injected)
        try:
            with super().attached():
                yield
        finally:
            hook.remove()

    def _injected(self, module: Any, given: Any, branch: Tensor) -> Tensor | None:
        """The residual branch (R, C, h, w), an edit's that of its source."""
        if self.rows is None or self.step >= self.feature_steps:
            return None
        check_together(self.rows, len(branch), self.decoder.place)
        return branch[self.rows.partner]

    def reads(self, layer: Layer) -> bool:
        """See `Control`."""
        return self.step < self.self_steps

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """See `Control`."""
        mask = None if heads.mask is None else heads.mask[rows.partner]
        return replace(heads, q=heads.q[rows.partner], k=heads.k[rows.partner], mask=mask).attended()

    def notes(self) -> dict[str, Any]:
        """See `Steering`."""
        return {
            "features": self.decoder.place,
            "feature_steps": self.feature_steps,
            "self_steps": self.self_steps,
            "layers": [layer.name for layer in self.layers],
        }
