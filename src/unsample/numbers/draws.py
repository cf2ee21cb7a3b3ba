"""Random numbers: one generator a picture, drawn on the generator's device in float32.

A result then does not depend on batch size, worker or resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """(B, *shape): each picture's from its own generator, on the CPU, in float32."""
    import torch

    return torch.stack([torch.randn(tuple(shape), generator=g, device=g.device).cpu() for g in generators])


def content_seeds(rows: Tensor, seed: int) -> list[int]:
    """A seed a picture, from `seed` and the picture's own values.

    So two different pictures of a batch never share a noise (a shared one hides in correlations taken across pictures),
    and a picture alone gets the noise that it gets in a batch.

    Args:
        rows: (B, ...), pictures as they were given.
        seed: any whole number.
    """
    import hashlib

    kept = rows.detach().cpu().contiguous()
    digests = [hashlib.sha256(f"{seed}:".encode() + row.numpy().tobytes()).digest() for row in kept]
    return [int.from_bytes(d[:4], "big") for d in digests]
