"""Pictures as a file gives them back: in 8 bits, or through a JPEG."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def damaged(pictures: Tensor, damage: str) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1], float32, as a file would give them back."""
    from unsample.metrics.pixels import eight_bit

    if damage == "float pixels":
        return pictures.float().clamp(0, 1)
    rounded = eight_bit(pictures).float()
    return rounded if damage == "8 bit" else as_jpeg(rounded, int(damage.split()[1]))


def as_jpeg(pictures: Tensor, quality: int) -> Tensor:
    """Through a JPEG file, colours at half the size, as cameras and Pillow write them."""
    import io

    import numpy as np
    import torch
    from PIL import Image

    read = []
    for picture in pictures:
        file = io.BytesIO()
        pixels = (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        read.append(torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1).float() / 255)
    return torch.stack(read)
