"""Spherical interpolation of noises: the angle from normalised whole-sample vectors, the weights on the raw ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LINEAR_ABOVE = 0.9995  # |cos|: nearly parallel vectors are interpolated linearly


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """`sin((1 - t) theta) / sin(theta) a + sin(t theta) / sin(theta) b`, picture by picture.

    Args:
        a, b: (B, ...).
        t: 0 gives `a`, 1 gives `b`.
    """
    import torch

    p, q = a.double().flatten(1), b.double().flatten(1)
    scale = p.norm(dim=1) * q.norm(dim=1)
    cosine = torch.where(scale > 0, (p * q).sum(1) / scale, 1.0).clamp(-1, 1)
    theta = cosine.arccos()
    straight = cosine.abs() > LINEAR_ABOVE
    weight_a = torch.where(straight, 1 - t, ((1 - t) * theta).sin() / theta.sin())
    weight_b = torch.where(straight, t, (t * theta).sin() / theta.sin())
    return (weight_a[:, None] * p + weight_b[:, None] * q).reshape(a.shape).to(a.dtype)
