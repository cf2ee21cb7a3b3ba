"""Masks: which pixels are to be edited, read from pictures and arrays of every kind, without torch.

One rule for all of them. A mask has two values: what is not black (not zero) is to be edited. Where neither is black,
white is the background of a colour. A mask whose transparency varies is what is painted on it. A palette whose colours
do not tell its indices apart is read by its indices. Many values are taken where they gather at black and at white, as
soft edges and JPEG leave them, and cut at half. All else is refused with the values that were found.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.media.pictures import Decoded, decoded, in_memory, opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Where = NDArray[np.bool_]
    Values = NDArray[Any]

NEAR = 20  # of 255: as far from black or white are those that gather there (a video's black is 16, its white 235)
FEW = 4  # so few values are not soft edges but labels
STRAY = 0.01  # of the pixels: a third colour at the ends, as JPEG makes it at edges
SHOWN = 6  # values in a message
RULE = "a mask has two values: black where the picture is kept, white where it is to be edited"


@dataclass(frozen=True)
class Mask:
    """`where` (H, W): True is to be edited. `notes` say what was taken as that, unless it is white on black."""

    where: Where
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.where.shape[1], self.where.shape[0]

    @property
    def sha256(self) -> str:
        """SHA-256 of size and pixels: two masks with one hash name the same pixels."""
        return hashlib.sha256("{}x{}:".format(*self.size).encode() + self.where.tobytes()).hexdigest()


def open_mask(path: str | os.PathLike[str]) -> Mask:
    """Read a mask from a picture file: upright, at its own size.

    Raises:
        BadInput: as `open_picture`; or the picture is no mask, with the values found in it.
    """
    with opened(path, kind="mask") as image:
        return _upright(image, f"mask {os.fspath(path)!r}")


def mask_of_picture(image: Image, what: str = "mask") -> Mask:
    """Read a mask from a PIL picture in memory, as `open_mask` does from a file."""
    with in_memory(image, what):
        return _upright(image, what)


def _upright(image: Image, what: str) -> Mask:
    import numpy as np
    from PIL import Image

    found = decoded(image)
    where, note = _of_image(found, what)
    if found.turn is not None:
        where = np.asarray(Image.fromarray(where).transpose(found.turn))
    turned = ("turned by its EXIF orientation",) if found.turned else ()
    return Mask(where, (*found.notes, *([note] if note else []), *turned))


def mask_of_array(array: Any, what: str = "mask") -> Mask:
    """Read a mask from an array (H, W): bool, any integers or floats; of floats many values are from 0 to 1.

    Raises:
        BadInput: of another shape, not finite, negative, or no mask.
    """
    import numpy as np

    values = np.asarray(array)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "buif":
        raise BadInput(
            f"{what} is an array of shape {values.shape} and type {values.dtype}; (H, W) of numbers is wanted"
        )
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise BadInput(f"{what} has values from {low:g} to {high:g}; {RULE}")
    tops = (1, 255, 65535)
    if high in tops and np.array_equal(values != 0, values == high):
        return Mask(values != 0)
    top = next((top for top in tops[values.dtype.kind != "f" :] if high <= top), float(high))
    where, note = _judged(values[..., None], float(top), what)
    return Mask(where, (note,) if note else ())


def _of_image(found: Decoded, what: str) -> tuple[Where, str | None]:
    """Where it is to be edited, and what was taken as that."""
    import numpy as np

    image, alpha = found.image, _alpha(found.image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        top = 65535.0 if image.mode.startswith("I") else 1.0 if float(values.max()) <= 1 else 255.0
        if not (np.isfinite(values).all() and values.min() >= 0):
            raise BadInput(f"{what} has values from {values.min():g} to {values.max():g}; {RULE}")
        values = values[..., None]
    else:
        top = 255.0
        values = np.asarray(image.convert("RGBA").convert("RGB") if alpha is not None else image.convert("RGB"))
        if found.sixteen and values.max() < 128 and alpha is None:
            raise BadInput(
                f"{what} has 16 bits a colour, of which the upper 8 are read, and these are at most {values.max()}; "
                "save it as greyscale or with 8 bits"
            )
    if alpha is not None and alpha.min() < alpha.max():
        return _painted(values, alpha, top, what)
    if alpha is not None and alpha.max() == 0:
        raise BadInput(f"{what} is transparent all over; {RULE}")
    if image.mode == "P" and (indices := _indices(image, values)) is not None:
        return _judged(indices, top, f"{what}, by the indices of its palette,", "index ")
    return _judged(values, top, what)


def _alpha(image: Any) -> Values | None:
    """Opacity, 0 to 255; None where nothing can be transparent."""
    import numpy as np

    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):
        key = image.info.get("transparency")
        return np.where(np.asarray(image) == key, 0, 255) if isinstance(key, int) else None
    return np.asarray((image.convert("LA") if image.mode == "La" else image).convert("RGBA").getchannel("A"))


def _indices(image: Any, colours: Values) -> Values | None:
    """The indices of a palette whose colours say less than they do: two of those used have one colour."""
    import numpy as np

    indices = np.asarray(image)
    used, first = np.unique(indices, return_index=True)
    shown = {tuple(c) for c in colours.reshape(-1, 3)[first].tolist()}
    return indices[..., None] if len(shown) < len(used) else None


def _painted(values: Values, alpha: Values, top: float, what: str) -> tuple[Where, str | None]:
    """Paint of one colour on transparency is the mask itself; else what is transparent counts as black."""
    import numpy as np

    seen = values[alpha > 127] if (alpha > 127).any() else values[alpha > 0]
    if (seen.max(0).astype(float) - seen.min(0) <= top * NEAR / 255).all():
        where, _ = _judged(alpha[..., None], 255.0, f"{what}, by its transparency,", "opacity ")
        return where, _said("what is painted on transparency", where)
    black = np.rint(values * (alpha[..., None] / 255.0))
    where, note = _judged(black, top, f"{what}, with what is transparent as black,")
    return where, note or _said("white, with what is transparent as black,", where)


def _judged(values: Values, top: float, what: str, word: str = "") -> tuple[Where, str | None]:
    """Of values (H, W, C) from 0 to `top`: where they are to be edited, and what was taken as that, if not white."""
    import numpy as np

    if values.shape[2] == 3 and (values == values[..., :1]).all():
        values = values[..., :1]
    colours, counts = _counted(values)
    names = [_name(c) for c in colours]

    def equal(colour: Values) -> Where:
        return np.asarray((values == colour).all(-1))

    black, white = np.zeros(values.shape[2]), np.full(values.shape[2], top)
    dark = [k for k, c in enumerate(colours) if (c == black).all()]
    light = [k for k, c in enumerate(colours) if (c == white).all()]
    if len(colours) == 1:
        where = ~equal(black)
        told = "the whole picture is to be edited" if where.any() else "nothing is to be edited"
        return where, f"{told}: the mask is {word}{names[0]} all over"
    if len(colours) == 2 and (dark or (light and values.shape[2] == 3)):
        kept = (dark or light)[0]
        where = ~equal(colours[kept])
        plain = bool(dark and light) and not word
        return where, None if plain else _said(f"{word}{names[1 - kept]}, on {word}{names[kept]},", where)
    return _gathered(values * np.float32(255 / top), what, word, [names[k] for k in np.argsort(-counts, kind="stable")])


def _gathered(values: Values, what: str, word: str, names: list[str]) -> tuple[Where, str | None]:
    """Many values, from 0 to 255: they must gather at two colours of the full range, and are then cut halfway."""
    import numpy as np

    found = f"{len(names)} values ({', '.join(word + n for n in names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
    refused = BadInput(f"{what} is no mask: it has {found}; {RULE}")
    if values.max() <= 127:
        raise BadInput(f"{what} is no mask: it has {found}, none of them over half of what its format holds; {RULE}")
    high = values > 127.5
    ends = ((values <= NEAR) | (values >= 255 - NEAR)).all(-1)
    corners, counts = _counted(high[ends])
    order = np.argsort(-counts)
    between = int(values[..., 0].size - ends.sum())
    if len(corners) < 2 and between == 0:
        told = "the whole picture" if high.any() else "nothing"
        return np.asarray(high.any(-1)), f"{told} is to be edited: the mask is near to {names[0]} all over"
    if len(corners) < 2 or (len(names) <= FEW and between) or counts[order[2:]].sum() > STRAY * ends.sum():
        raise refused
    if between > counts[order[1]]:
        raise refused
    first, second = corners[order[0]], corners[order[1]]
    if not first.any() or (second.any() and first.all()):
        first, second = second, first  # the second is the background: black, else white
    if second.any() and not second.all():
        raise refused
    differ = first != second
    towards = np.where(first[differ], values[..., differ], 255 - values[..., differ]).mean(-1)
    where = np.asarray(towards > 127.5)
    cut = f" ({between / where.size:.1%} of its pixels lie between and are cut at half)" if between else ""
    return where, _said(f"what is nearer to {_name(first * 255)} than to {_name(second * 255)}{cut}", where)


def _counted(values: Values) -> tuple[Values, Values]:
    """The different rows along the last axis, and how often each is there."""
    import numpy as np

    flat = np.ascontiguousarray(values.reshape(-1, values.shape[-1]))
    if flat.shape[1] == 1:
        found, counts = np.unique(flat[:, 0], return_counts=True)
        return found[:, None], counts
    packed = flat.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    _, first, counts = np.unique(packed, return_index=True, return_counts=True)
    return flat[first], counts


def _name(colour: Values) -> str:
    parts = [f"{float(v):g}" for v in colour]
    return parts[0] if len(set(parts)) == 1 else f"({', '.join(parts)})"


def _said(taken: str, where: Where) -> str:
    return f"{taken} is to be edited: {where.mean():.1%} of the picture"
