"""Plain and textured areas of pictures: by TABA's threshold, and as they truly are where the scene is known.

TABA (App. C): a pixel is plain where the mean of its absolute differences to the next row and to the next column, zero
behind the last ones, is below .025 in every channel, of pictures in [-1, 1]. All other pixels are textured. A latent is
plain where all the pixels that it stands for are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.scenes import Scene

THRESHOLD = 0.025
LEAST = 16  # numbers below which an area is too small for a mean or a deviation
AREAS = ("plain", "textured", "all")


def plain_by_threshold(pictures: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """(B, 1, H, W) of True and False, of pictures (B, C, H, W) in [0, 1]; the threshold is of [-1, 1]."""
    from torch.nn.functional import pad

    down = pad(pictures.diff(dim=2).abs(), (0, 0, 0, 1))
    right = pad(pictures.diff(dim=3).abs(), (0, 1, 0, 0))
    return (down + right < threshold).all(1, keepdim=True)  # half of the sum, of twice the range


def in_cells(plain: Tensor, shape: Sequence[int]) -> Tensor:
    """The same for a state of (C, h, w): plain where all pixels of a cell are."""
    from torch.nn.functional import adaptive_avg_pool2d

    return adaptive_avg_pool2d(plain.double(), (shape[-2], shape[-1])) > 1 - 1e-9


def plain_of(pictures: Tensor, shape: Sequence[int], threshold: float = THRESHOLD) -> Tensor:
    """By the threshold, of pictures (B, 3, H, W) in [0, 1], for a state of (C, h, w): (B, 1, h, w)."""
    return in_cells(plain_by_threshold(pictures, threshold), shape)


def plain_of_scenes(scenes: Sequence[Scene], size: int, shape: Sequence[int]) -> Tensor:
    """As they are drawn at `size`: neither texture nor edge; for a state of (C, h, w): (B, 1, h, w)."""
    from unsample.datasets.scenes import render

    return in_cells(render(scenes, size).plain_mask > 0.5, shape)


def by_area(values: Tensor, plain: Tensor) -> list[dict[str, Tensor]]:
    """The values (B, C, h, w) in each area of each picture, flat, float64."""
    wide = plain.expand_as(values)
    areas = {"plain": wide, "textured": ~wide, "all": wide | ~wide}
    return [{area: values[k][of[k]].double() for area, of in areas.items()} for k in range(len(values))]


def mean_by_area(values: Tensor, plain: Tensor) -> list[dict[str, float | None]]:
    """The mean of the values in each area of each picture; None where it holds fewer than LEAST numbers."""
    return [
        {a: float(v.mean()) if len(v) >= LEAST else None for a, v in each.items()} for each in by_area(values, plain)
    ]


def deviation_by_area(values: Tensor, plain: Tensor) -> list[dict[str, float | None]]:
    """The standard deviation of the values in each area of each picture, around that area's own mean."""
    return [
        {a: float(v.std()) if len(v) >= LEAST else None for a, v in each.items()} for each in by_area(values, plain)
    ]


def share_of(plain: Tensor) -> list[float]:
    """How much of each picture is plain."""
    return [float(each) for each in plain.double().flatten(1).mean(1)]
