"""How near one picture is to another: PSNR and SSIM of 8-bit pictures, and the ceiling that a model's encoder sets.

`PSNR = -10 log10 MSE` in dB, in float64, of pictures in [0, 1]; infinite for equal pictures, and then said to be exact.
SSIM (Wang et al., 2004) has a Gaussian window of 11x11, sigma 1.5, as torchmetrics has it by default; other windows
give other numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

SSIM_WINDOW = 11


def eight_bit(images: Tensor) -> Tensor:
    """Pictures in [0, 1] as a PNG holds them: clamped and rounded to 256 levels, float64."""
    return (images.double().clamp(0, 1) * 255).round() / 255


def psnr(images: Tensor, reference: Tensor) -> list[float]:
    """Peak signal to noise ratio of each picture, in dB; `inf` where the two are equal.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ.
    """
    _check(images, reference)
    mse = (images.double() - reference.double()).square().flatten(1).mean(1).tolist()
    return [math.inf if m == 0 else -10 * math.log10(m) for m in mse]


def ssim(images: Tensor, reference: Tensor) -> list[float | None]:
    """Structural similarity of each picture; None where a side is under 11 pixels, the window's.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ.
    """
    _check(images, reference)
    if min(images.shape[2:]) < SSIM_WINDOW:
        return [None] * len(images)
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(
        images.double(), reference.double(), data_range=1.0, reduction="none", kernel_size=SSIM_WINDOW, sigma=1.5
    )
    return [float(v) for v in values.reshape(-1)]  # type: ignore[union-attr]


def ceiling_psnr(model: Any, images: Tensor) -> list[float]:
    """PSNR of the encoder's own round trip, 8 bit: no inversion through this model can do better on average.

    Args:
        model: an adapter.
        images: (B, 3, H, W) in [0, 1].
    """
    return psnr(eight_bit(encoded_alone(model, images)), eight_bit(images))


def encoded_alone(model: Any, images: Tensor) -> Tensor:
    """The encoder's own round trip of pictures (B, 3, H, W) in [0, 1], on the CPU."""
    import torch

    with torch.no_grad():
        back: Tensor = model.decode(model.encode(images.to(model.device)))
    return back.cpu()


def _check(images: Tensor, reference: Tensor) -> None:
    if images.shape != reference.shape or images.ndim != 4:
        raise BadInput(f"two batches of one shape are needed; got {tuple(images.shape)} and {tuple(reference.shape)}")
