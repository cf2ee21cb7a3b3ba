"""Where a phrase may change a picture (LEDITS++: Brack et al., 2024, arXiv:2311.16711): M = M1 M2.

M1 has the cells to which the smoothed cross-attention of its words is highest, M2 those where the difference that it
makes to the noise, summed over channels, is; each from a quantile on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Masks = Literal["both", "attention", "noise", "none"]
KERNEL = (-1.0, 0.0, 1.0)  # where the smoothing kernel, exp(-d^2) of the distance d, has its weights, both ways


@dataclass(frozen=True)
class Grounding:
    """Which masks are made, and how."""

    masks: Masks
    threshold: float
    attention_above: float

    def mask(self, apart: Tensor, attention: Tensor | None, timestep: float) -> Tensor:
        """M (n, C, 1, h, w), 0 or 1, of the differences c_k - u (n, C, channels, h, w) and attention (n, C, p, q)."""
        mask = apart.new_ones(*apart.shape[:2], 1, *apart.shape[3:])
        if attention is not None:
            mask = mask * self._attention(attention, apart.shape[-2:]).to(mask)
        if self.masks == "noise" or (self.masks == "both" and timestep <= self.attention_above):
            mask = mask * highest(apart.abs().sum(2, keepdim=True), self.threshold)
        return mask

    def _attention(self, attention: Tensor, size: Sequence[int]) -> Tensor:
        from torch.nn.functional import interpolate

        high = highest(smoothed(attention), self.threshold)
        return interpolate(high, size=tuple(size), mode="nearest")[:, :, None]


def highest(values: Tensor, quantile: float) -> Tensor:
    """1 where values (..., h, w) are at least their own quantile over h and w, else 0; in the dtype of values."""
    least = values.flatten(-2).quantile(quantile, -1)[..., None, None]
    return (values >= least).to(values)


def smoothed(maps: Tensor) -> Tensor:
    """Maps (n, C, p, q) under a kernel of 3x3, reflected at the edges."""
    import torch
    from torch.nn.functional import conv2d, pad

    line = torch.tensor(KERNEL, dtype=maps.dtype, device=maps.device).square().neg().exp()
    kernel = line[:, None] * line / line.sum() ** 2
    flat = maps.flatten(0, 1)[:, None]
    wide = pad(flat, (1, 1, 1, 1), mode="reflect" if min(maps.shape[-2:]) > 1 else "replicate")
    return conv2d(wide, kernel[None, None]).reshape(maps.shape)
