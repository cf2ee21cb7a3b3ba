"""Sizes of pictures as a model sees them: which go together, what became of the aspect ratio, and the way back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unsample.errors import BadInput
from unsample.media.formats import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

    from unsample.media.pictures import Fit, Size


AUTO = 8  # pictures of the first batch, where the size of batches is found out by the memory


def batches(sizes: Sequence[Size], pixels: int, multiple: int, fit: Fit, most: int) -> Iterator[list[int]]:
    """The places of pictures that go through a model together: of one size as it sees them, and at most so many.

    Args:
        sizes: width and height of each picture.
        pixels, multiple, fit: as in `media.pictures.fit_size`.
        most: in one batch.
    """
    from unsample.media.pictures import fit_size

    groups: dict[Size, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(fit_size(*size, pixels, multiple, fit), []).append(place)
    for group in groups.values():
        yield from (group[start : start + most] for start in range(0, len(group), most))


def once(picture: Image, size: Size) -> Image | None:
    """A picture whose pixels are repeated in blocks, as enlarging without interpolation leaves it, at its own size.

    Args:
        picture: any.
        size: width and height that are looked for.

    Returns:
        One pixel of every block: the picture before it was enlarged; None of a picture that is no such one.
    """
    from PIL.Image import Resampling

    times = picture.width // size[0]
    if times < 2 or picture.size != (size[0] * times, size[1] * times):
        return None
    small = picture.resize(size, Resampling.NEAREST)
    return small if small.resize(picture.size, Resampling.NEAREST).tobytes() == picture.tobytes() else None


def skew(source: Size, seen: Size) -> str:
    """What became of an aspect ratio that could not be kept, in words; "" where it was. Sizes are width, height."""
    from unsample.media.pictures import MAX_SKEW

    before, after = source[0] / source[1], seen[0] / seen[1]
    if max(before, after) <= min(before, after) * (1 + MAX_SKEW):
        return ""
    return f"seen at {seen[0]}x{seen[1]}: aspect ratio {before:.3g} became {after:.3g}"


def at_source_size(picture: Image, size: object, fit: str | None, by: Resampling | None = None) -> Image | None:
    """What a model made, at the size of the source that was fitted for it; None where that is its own size.

    What `fit="pad"` added is cut off again; after "crop" it is the central square of the source.

    Args:
        size: width and height of the source, as a file may claim them.
        fit: how the source was fitted.
        by: default: Lanczos.

    Raises:
        BadInput: a size that cannot be.
    """
    from PIL.Image import Resampling

    whole = isinstance(size, list | tuple) and [type(side) for side in size] == [int, int]
    if not (whole and isinstance(size, list | tuple)) or min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise BadInput(f"the inversion says that its source's size was {size!r}; it is corrupt")
    width, height = size
    if fit == "crop":
        width = height = min(width, height)
    if fit == "pad":
        picture = _without_padding(picture, width, height)
    return None if (width, height) == picture.size else picture.resize((width, height), by or Resampling.LANCZOS)


def _without_padding(picture: Image, width: int, height: int) -> Image:
    """The part of a padded square that shows the source, as `fit_picture` placed it."""
    scale = min(picture.width / width, picture.height / height)
    inner = [max(1, math.floor(side * scale + 0.5)) for side in (width, height)]
    left, top = (picture.width - inner[0]) // 2, (picture.height - inner[1]) // 2
    return picture.crop((left, top, left + inner[0], top + inner[1]))
