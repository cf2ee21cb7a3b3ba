"""Pictures in numpy arrays, as OpenCV, scikit-image and diffusers hold them; what could be read in two ways is refused.

Shapes: (H, W) greyscale, (H, W, 1), (H, W, 3) RGB, (H, W, 4) with alpha, which is composited on white, and batches of
the last three, (B, H, W, C). Types: bool, uint8 (0 to 255), uint16 (0 to 65535), and floats from 0 to 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.media.pictures import Picture, from_pil

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[Any]

CHANNELS = (1, 3, 4)
TOPS = {"bool": 1, "uint8": 255, "uint16": 65535}
SHAPES = "pictures are (H, W), (H, W, 3), (H, W, 4) or a batch (B, H, W, 1), (B, H, W, 3), (B, H, W, 4)"


def pictures_in(array: Values, name: str = "images") -> list[Values]:
    """The pictures of an array, each (H, W) or (H, W, C), checked.

    Raises:
        BadInput: another shape or type, or floats beyond 0 to 1, with what was found.
    """
    import numpy as np

    last = array.shape[-1] if array.ndim > 2 else 0
    if array.size == 0 or not (array.ndim == 2 or (array.ndim in (3, 4) and last in CHANNELS)):
        advice = ""
        if array.ndim > 2 and array.shape[-3] in CHANNELS:
            advice = "; channels come last: np.moveaxis(array, -3, -1), or give a torch tensor"
        elif array.ndim == 3:
            advice = "; of greyscale pictures (B, H, W) add an axis: array[..., None]"
        raise BadInput(f"{name} is an array of shape {array.shape}; {SHAPES}{advice}")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # nan fails too
            signed, levels = -1 <= low < 0 and high <= 1, low >= 0 and high <= 255
            advice = "; give (array + 1) / 2" if signed else "; give array / 255" if levels else ""
            raise BadInput(f"{name} has floats from {low:.3g} to {high:.3g}; pictures of floats are 0 to 1{advice}")
    elif array.dtype.name not in TOPS:
        raise BadInput(f"{name} is an array of {array.dtype}; give uint8 (0 to 255) or floats from 0 to 1")
    return list(array) if array.ndim == 4 else [np.asarray(array)]


def picture_of(array: Values, name: str = "image") -> Picture:
    """One of `pictures_in` as a picture of 8 bits, with what was done.

    Raises:
        BadInput: it is too large or too small.
    """
    import numpy as np
    from PIL import Image

    flat = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    top = TOPS.get(array.dtype.name, 1)
    note = {"f": ("float converted to 8-bit",), "u": ("16-bit converted to 8-bit",)}.get(flat.dtype.kind, ())
    if flat.dtype.name != "uint8":
        flat = np.rint(flat.astype(np.float32) * np.float32(255 / top)).astype(np.uint8)
    else:
        note = ()
    found = from_pil(Image.fromarray(np.ascontiguousarray(flat)), name)
    return replace(found, notes=(*note, *found.notes))


def floats_of(array: Values) -> NDArray[np.float32]:
    """One of `pictures_in` as (3, H, W), from 0 to 1, not rounded."""
    import numpy as np

    values = (array if array.ndim == 3 else array[..., None]).astype(np.float32) / TOPS.get(array.dtype.name, 1)
    if values.shape[-1] == 4:
        values = values[..., :3] * values[..., 3:] + (1 - values[..., 3:])
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)).transpose(2, 0, 1), dtype=np.float32)
