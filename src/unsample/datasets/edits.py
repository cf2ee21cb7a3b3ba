"""The edit of a scene: one attribute replaced, by a rule that the benchmark and the tables share."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from unsample.datasets.scenes import ATTRIBUTES, Scene

if TYPE_CHECKING:
    from torch import Tensor

CHANGED = ("colour", "shape", "background")
VISIBLE = 1 / 510  # half a level of 8 bits


def changed(scene: Scene, index: int) -> tuple[str, Scene]:
    """One attribute of a scene replaced, seeded by the index: colour, shape and background in turn."""
    name = CHANGED[index % len(CHANGED)]
    taken = {getattr(scene, name), *((scene.colour, scene.background) if name != "shape" else ())}
    return name, scene.replace(**{name: random.Random(index).choice([v for v in ATTRIBUTES[name] if v not in taken])})


def edited_region(source: Tensor, truth: Tensor) -> Tensor:
    """Where a true edit (3, H, W) visibly differs from its source: (1, H, W) of 0 and 1."""
    return ((source - truth).abs().amax(0, keepdim=True) > VISIBLE).float()
