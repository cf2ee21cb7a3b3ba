"""MasaCtrl, mutual self-attention: an edit asks its own queries of the keys and values of its source.

`softmax(q_edit k_source^T / sqrt(d)) v_source` in the self-attention of later layers, from a step on, in both halves of
guidance (Cao et al., 2023, arXiv:2304.08465): the edit's layout, drawn by its prompt in the first steps, is filled with
what the source looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.edits.attention import AttentionSteering, Heads, Layer
from unsample.edits.base import Asked, Branches, Editor
from unsample.edits.layers import from_layer, from_step
from unsample.methods.settings import Setting, configured

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model

START_STEP, START_LAYER = 4, 10  # of 50 steps and of the sixteen layers of Stable Diffusion 1.x


@configured
def masactrl(
    start_step: Annotated[
        int | None,
        Setting("the first step, counted from 0, that takes from the source; None: 4 in 50, the paper's share."),
    ] = None,
    start_layer: Annotated[
        int | None,
        Setting(
            "the first self-attention layer that does, counted from 0 in the order of computation; None: 10 in 16 of "
            "the model's depth, rounded up: the paper's 10 of Stable Diffusion 1.x, 44 of SDXL's 70."
        ),
    ] = None,
) -> Editor:
    """Mutual self-attention: layout by the edit's prompt, looks by the source; for changes of pose, place and size.

    The prompt should be that of the source but for what moves. No earlier step (`start_step` of the number of steps or
    more) or no layer (`start_layer` of their number) leaves the prompt swap. Guidance is 7.5 by default.

    Reference:
        Cao et al., 2023, arXiv:2304.08465.

    Example:
        >>> import unsample
        >>> unsample.edits.masactrl(start_step=4, start_layer=10)
        masactrl(start_step=4, start_layer=10)
    """

    def steer(branches: Branches) -> Mutual:
        layers = from_layer(branches.model, start_layer, START_LAYER, "masactrl")
        return Mutual(branches, layers, from_step(start_step, START_STEP, branches.stop))

    def check(model: Model, pairs: Sequence[tuple[str, str]]) -> None:
        from_layer(model, start_layer, START_LAYER, "masactrl")

    return Editor(steer=steer, check=check, edit_guidance_scale=7.5)


class Mutual(AttentionSteering):
    """Edits read keys and values of their sources, in some layers and from a step on."""

    def __init__(self, branches: Branches, layers: Sequence[Layer], first: int) -> None:
        super().__init__(branches, layers)
        self.first = first
        if not layers or first >= branches.stop:
            self.layers, self.halves = (), ()

    def reads(self, layer: Layer) -> bool:
        """See `Control`."""
        return self.step >= self.first

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """See `Control`."""
        mask = None if heads.mask is None else heads.mask[rows.partner]
        return replace(heads, k=heads.k[rows.partner], v=heads.v[rows.partner], mask=mask).attended()

    def notes(self) -> dict[str, Any]:
        """See `Steering`."""
        return {"from_step": self.first, "layers": [layer.name for layer in self.layers]}
