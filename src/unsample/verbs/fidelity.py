"""How near pictures are to their source, as they are written (8 bit), and how near the autoencoder alone can come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.verbs.results import Inversion

OUT_OF_DOMAIN = 20.0  # dB of the autoencoder's round trip under which a picture is none that the model knows


@dataclass(frozen=True)
class Fidelity:
    """Of one picture. None: not measured."""

    psnr: float | None = None  # inf: equal
    ssim: float | None = None
    ceiling: float | None = None  # PSNR of the autoencoder's round trip of the source; inf: it loses nothing

    @property
    def out_of_domain(self) -> bool:
        """Whether the model's autoencoder cannot hold this picture."""
        return self.ceiling is not None and self.ceiling < OUT_OF_DOMAIN

    @property
    def reasons(self) -> list[str]:
        """Why it cannot, in words."""
        if not self.out_of_domain:
            return []
        return [f"the encoder alone brings the picture back at {self.ceiling:.1f} dB, under {OUT_OF_DOMAIN:.0f}"]

    def spoken(self, after: str = "") -> str:
        """In a few words; `after` follows the decibels, where they are not to the source alone."""
        if self.psnr is None:
            return "not measured (the inversion holds no source)"
        if math.isinf(self.psnr):
            return f"exact{after} (every pixel equal)"
        limited = not after and self.ceiling is not None and math.isfinite(self.ceiling)
        return f"{self.psnr:.1f} dB{after}" + (f" (ceiling {self.ceiling:.1f})" if limited else "")

    def entries(self) -> dict[str, Any]:
        """For JSON, which knows no infinity."""
        return {
            "psnr": self.psnr if self.psnr is not None and math.isfinite(self.psnr) else None,
            "exact": self.psnr is not None and math.isinf(self.psnr),
            "ssim": self.ssim,
            "ceiling_psnr": self.ceiling if self.ceiling is not None and math.isfinite(self.ceiling) else None,
        }


def fidelity(model: Model, inversion: Inversion, pictures: Tensor) -> list[Fidelity]:
    """Of what was made of an inversion, one a picture; nothing is measured where it holds no source of that size.

    Args:
        model: whose autoencoder sets the ceiling.
        inversion: of the same pictures.
        pictures: (B, 3, H, W) in [0, 1].
    """
    source = inversion.seen
    if source is None or source.shape[2:] != pictures.shape[2:]:
        return [Fidelity()] * len(pictures)
    from unsample.metrics.pixels import ceiling_psnr

    return compared(pictures, source, ceiling_psnr(model, source))


def compared(pictures: Tensor, source: Tensor, ceiling: Sequence[float | None]) -> list[Fidelity]:
    """The same where the ceiling is known; `pictures` and `source` (B, 3, H, W) in [0, 1]."""
    from unsample.metrics.pixels import eight_bit, psnr, ssim

    made, before = eight_bit(pictures.cpu()), eight_bit(source.cpu())
    return [Fidelity(*figures) for figures in zip(psnr(made, before), ssim(made, before), ceiling, strict=True)]
