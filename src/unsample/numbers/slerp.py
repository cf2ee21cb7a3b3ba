"""Spherical interpolation of noises: the angle from normalised whole-sample vectors, the weights on the raw ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from unsample.errors import BadOption

if TYPE_CHECKING:
    from torch import Tensor

LINEAR_ABOVE = 0.9995  # |cos|: nearly parallel vectors are interpolated linearly


def slerp(a: Tensor, b: Tensor, t: float, *, slerp_dim: Literal["sample", "row"] = "sample") -> Tensor:
    """`sin((1 - t) theta) / sin(theta) a + sin(t theta) / sin(theta) b`, picture by picture.

    Args:
        a, b: (B, ...).
        t: 0 gives `a`, 1 gives `b`.
        slerp_dim: `sample` takes one angle a picture; `row` one for each row of pixels (the last axis), as the code of
            Staniszewski et al. (arXiv:2410.23530) does.

    Raises:
        BadOption: another `slerp_dim`.
    """
    import torch

    if slerp_dim not in ("sample", "row"):
        raise BadOption(f"slerp_dim must be 'sample' or 'row'; got {slerp_dim!r}")
    kept = 1 if slerp_dim == "sample" else a.ndim - 1
    p, q = (x.double().flatten(0, kept - 1).flatten(1) for x in (a, b))
    scale = p.norm(dim=1) * q.norm(dim=1)
    cosine = torch.where(scale > 0, (p * q).sum(1) / scale, 1.0).clamp(-1, 1)
    theta = cosine.arccos()
    straight = cosine.abs() > LINEAR_ABOVE
    weight_a = torch.where(straight, 1 - t, ((1 - t) * theta).sin() / theta.sin())
    weight_b = torch.where(straight, t, (t * theta).sin() / theta.sin())
    return (weight_a[:, None] * p + weight_b[:, None] * q).reshape(a.shape).to(a.dtype)
