"""The edit of a scene: one attribute replaced, by a rule that the benchmark and the tables share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsample.datasets.scenes import ATTRIBUTES, COLOURS, Scene, held_out

if TYPE_CHECKING:
    from torch import Tensor

CHANGED = ("colour", "shape", "background")  # in turn, unless other kinds are asked for
KINDS = (*CHANGED, "texture", "size", "place")
VISIBLE = 1 / 510  # half a level of 8 bits


def changed(scene: Scene, index: int, kinds: Sequence[str] = CHANGED) -> tuple[str, Scene]:
    """One attribute of a scene replaced, seeded by the index.

    Args:
        scene: jitter, light and all else stay: a size or a place scales or moves the same object.
        index: which of the kinds, in turn, and which of the other values.
        kinds: attributes (`KINDS`).
    """
    name = kinds[index % len(kinds)]
    taken = {getattr(scene, name), *((scene.colour, scene.background) if name in ("colour", "background") else ())}
    return name, scene.replace(**{name: random.Random(index).choice([v for v in ATTRIBUTES[name] if v not in taken])})


def on_ground(scene: Scene, ground: str) -> Scene:
    """The same scene on a plain background of a colour; an object of that colour takes the one that it stood on.

    Args:
        scene: jitter, light and all else stay.
        ground: a colour.
    """
    colours = [c for c in (scene.colour, scene.background, *COLOURS) if c != ground and not held_out(scene.shape, c)]
    colour = scene.colour if scene.colour != ground else colours[0]
    return scene.replace(background=ground, background_texture="plain", colour=colour)


def edited_region(source: Tensor, truth: Tensor) -> Tensor:
    """Where a true edit (3, H, W) visibly differs from its source: (1, H, W) of 0 and 1."""
    return ((source - truth).abs().amax(0, keepdim=True) > VISIBLE).float()
