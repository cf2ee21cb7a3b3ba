"""Heads that name a scene's attributes from a network's features: they help it along in training and are not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unsample.datasets.scenes import ATTRIBUTES, Scene


class AttributeHeads(nn.ModuleDict):
    """A linear head for each attribute."""

    def __init__(self, width: int) -> None:
        super().__init__({a: nn.Linear(width, len(v)) for a, v in ATTRIBUTES.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Logits (B, V), float32, of each attribute, from features (B, C)."""
        return {attribute: head(features).float() for attribute, head in self.items()}


def attribute_index(scenes: Sequence[Scene], device: str) -> dict[str, Tensor]:
    """The place (B,) of each scene's value in each attribute."""
    return {a: torch.tensor([v.index(getattr(s, a)) for s in scenes], device=device) for a, v in ATTRIBUTES.items()}


def naming_loss(named: Mapping[str, Tensor], index: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy, summed over the attributes."""
    return torch.stack([cross_entropy(named[a], i) for a, i in index.items()]).sum()
