"""A batch of cells while it is being done: what it asks for, and what its method made of its pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.bench.cells import BatchTask
from unsample.bench.plan import Named, Plan

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.datasets.item import Item
    from unsample.methods import Method
    from unsample.verbs.results import Inversion

STAGES = {
    "record": ("pair",),
    "noise": ("pair",),
    "recovered": ("recovery", "noise"),
    "edit": ("pair", "edit", "text", "masked"),
}


@dataclass(frozen=True)
class Batch:
    """What a task asks for: its items, opened, and what each of them is."""

    plan: Plan
    task: BatchTask
    named: Named
    method: Method | None  # None: a baseline
    model: Any
    items: Sequence[Item]
    places: Sequence[int]  # in the data set
    digests: Sequence[str]

    @property
    def seeds(self) -> list[int]:
        """One an item: of the plan's seed and its content."""
        texts = [f"{self.plan.seed}:{digest}" for digest in self.digests]
        return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]

    @property
    def generators(self) -> list[torch.Generator]:
        """One an item."""
        return seeded(self.seeds)

    @property
    def prompts(self) -> list[str] | None:
        """What the pictures show; None for a model without text."""
        return [item.prompt or "" for item in self.items] if self.model.takes_prompt else None

    def all(self, name: str) -> list[Any] | None:
        """A field of every item; None where one of them lacks it."""
        values = [getattr(item, name) for item in self.items]
        return None if any(v is None for v in values) else values


@dataclass
class Made:
    """What a batch's method made of its pictures; None where it made nothing."""

    source: Tensor  # (B, 3, H, W) in [0, 1], as the model saw it
    status: list[str]
    nonfinite_at: Sequence[dict[str, Any] | None] = ()  # where the network failed the inversion; () without one
    truth: Tensor | None = None  # the true edit, likewise; where the plan edits
    inversion: Inversion | None = None
    pictures: dict[str, Tensor] = field(default_factory=dict)  # stage to (B, 3, H, W)
    reasons: dict[str, str] = field(default_factory=dict)  # stage to why it has no pictures
    true_noise: Tensor | None = None
    played: Tensor | None = None  # latents that the noise alone led to
    between: Tensor | None = None  # latents from halfway between the true noise and the recovered one


def fitted(batch: Batch, pictures: Sequence[Any]) -> Tensor:
    """One picture an item, PIL or (3, H, W), as the model sees them: (B, 3, H, W) in [0, 1]."""
    import torch

    from unsample.verbs.inputs import as_images

    given: Any = torch.stack(list(pictures)) if isinstance(pictures[0], torch.Tensor) else list(pictures)
    return as_images(batch.model, given, batch.plan.fit).images


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    import torch

    return [torch.Generator().manual_seed(seed) for seed in seeds]
