"""How edits and their sources lie in one batch, and how an edit is its source outside of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.walk import State


@dataclass(frozen=True)
class Beside:
    """How the edits and their sources lie in one batch: T edits, then S sources."""

    source_of: Sequence[int]
    mask: Tensor | None = None  # (T, 1, h, w) in [0, 1] at the state's size: 1 is edited

    @property
    def count(self) -> int:
        """T."""
        return len(self.source_of)

    def stacked(self, edits: State, sources: State) -> State:
        """The rows of a record, the edits' own above those of their sources."""
        import torch

        index = list(self.source_of)
        return {name: torch.cat([edits[name][index], value]) for name, value in sources.items()}

    def blended(self, edit: Tensor, source: Tensor) -> Tensor:
        """Edits (T, C, H, W) where the mask is 1, their sources (S, C, H, W) where it is 0."""
        import torch

        if self.mask is None:
            return edit
        mask, own = self.mask.to(edit), source[list(self.source_of)]
        return torch.where(mask >= 1, edit, torch.where(mask <= 0, own, own + mask * (edit - own)))

    def blended_state(self, edits: State, sources: State, like: Tensor) -> State:
        """The same of what a step carries beside x: every tensor of the shape of x."""
        shape = like.shape[1:]
        alike = [n for n, v in edits.items() if n in sources and getattr(v, "shape", (0,))[1:] == shape]
        return {**edits, **{name: self.blended(edits[name], sources[name]) for name in alike}}

    def blended_rows(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The same of one batch (T + S, C, H, W), edits first, and of its state."""
        import torch

        if self.mask is None:
            return x, state
        n = self.count
        rows = {name: v for name, v in state.items() if getattr(v, "shape", None) == x.shape}
        mixed = {name: torch.cat([self.blended(v[:n], v[n:]), v[n:]]) for name, v in {**rows, "": x}.items()}
        return mixed.pop(""), {**state, **mixed}
