"""Pictures in rows: PNGs in base64, which a figure shows."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def as_png(picture: Tensor) -> str:
    """A picture (3, H, W), nominally in [0, 1], as an 8-bit PNG in base64."""
    from unsample.metrics.pixels import as_pil

    file = io.BytesIO()
    as_pil(picture.detach()[None])[0].save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def from_png(told: str) -> Any:
    """The array (H, W, 3) of `as_png`, in whole numbers up to 255."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(told))))
