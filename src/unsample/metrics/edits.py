"""How near an edit comes to the true edit, where the truth is known (`scenes`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unsample.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EditGain:
    """`total = inside + outside`, one value a picture: (B,). 1 is the true edit, 0 did nothing, negative is worse."""

    total: Tensor
    inside: Tensor
    outside: Tensor


def edit_gain(edit: Tensor, truth: Tensor, source: Tensor) -> EditGain:
    """`1 - MSE(edit, truth) / MSE(source, truth)`, and its two parts.

    Inside are the pixels that the true edit changes. Outside the source *is* the truth, so a ratio of its own would
    divide by zero; its part is therefore `-SSE_outside(edit, truth) / SSE(source, truth)`: what the edit broke, in
    units of what it had to change.

    Args:
        edit, truth, source: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ, or a truth that equals its source.
    """
    if not edit.shape == truth.shape == source.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (edit, truth, source))
        raise BadInput(f"edit_gain needs one shape; got {shapes}")
    edit, truth, source = edit.double(), truth.double(), source.double()
    had = (source - truth).square().flatten(1).sum(1)
    if bool((had == 0).any()):
        raise BadInput("edit_gain: for some picture the truth equals the source; nothing was to be edited")
    changed = (source != truth).any(1, keepdim=True).double()
    error = (edit - truth).square()
    inside = 1 - (error * changed).flatten(1).sum(1) / had
    outside = -(error * (1 - changed)).flatten(1).sum(1) / had
    return EditGain(inside + outside, inside, outside)
