"""Tree-Ring (Wen et al., 2023, arXiv:2305.20030): a key of rings in the Fourier transform of one channel of the noise.

`F(x)_i = k_i` for i in M, a disc around frequency zero; found again by the mean distance `|k_i - F(x')_i|` over M. Here
F is orthonormal (the values of white noise have power 1), and a ring has one real value, drawn from N(0, 1): of the
complex one that the paper draws, the real part is what remains once the noise is made real.

p is that of the paper's statistic, `eta = sum |k_i - y_i|^2 / s^2` with `s^2 = mean |y_i|^2`, but not by its
approximation, a noncentral chi-squared that holds s for known. Given |y|, eta falls as `<k, y>` grows, and of white
noise of any strength the direction of y is uniform, so p is exact: `chance.cosine_tail`. (The noise is real, so y_-i is
the conjugate of y_i: M holds as many independent real numbers as it has places, and not twice as many.)
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unsample.errors import BadInput, BadOption
from unsample.watermarks.chance import cosine_tail
from unsample.watermarks.keys import Key, check_noise, check_shape, check_whole

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TreeRing(Key):
    """A Tree-Ring key.

    Args:
        shape: (C, H, W) of the noise.
        rings: the value of each ring, from frequency zero outwards: `radius + 1` numbers.
        channel: which of the C channels holds them.

    Raises:
        BadOption: a channel, or a radius, that the noise has not: rings end before half of the shorter side.
    """

    shape: tuple[int, int, int]
    rings: tuple[float, ...]
    channel: int = 0

    kind = "tree_ring"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        object.__setattr__(self, "rings", tuple(float(value) for value in self.rings))
        channels, *sides = self.shape
        check_whole("channel", self.channel, 0, channels - 1)
        check_whole("radius", len(self.rings) - 1, 1, (min(sides) - 1) // 2)
        if not all(math.isfinite(value) for value in self.rings) or not any(self.rings):
            raise BadOption("the values of rings are finite, and not all zero")

    @staticmethod
    def drawn(shape: tuple[int, int, int], radius: int, *, channel: int = 0, seed: int | None = None) -> TreeRing:
        """A new key.

        Args:
            shape: (C, H, W) of the noise.
            radius: of the disc, in frequencies; the paper takes 10 of 64.
            channel: which holds it.
            seed: the same gives the same key; None asks the operating system for randomness.
        """
        check_whole("radius", radius, 1, (min(check_shape(shape)[1:]) - 1) // 2)
        draw = random.SystemRandom() if seed is None else random.Random(seed)
        return TreeRing(shape, tuple(draw.gauss(0, 1) for _ in range(radius + 1)), channel)

    def pattern(self) -> tuple[Tensor, Tensor]:
        """Where the key stands, (H, W) of bool, and its values there, (M,) float64; frequencies as `fft2` has them."""
        import torch

        height, width = self.shape[1:]
        far = (
            torch.fft.fftfreq(height, 1 / height)
            .double()[:, None]
            .hypot(torch.fft.fftfreq(width, 1 / width).double()[None])
        )
        ring = far.round().long()
        where = ring < len(self.rings)
        return where, torch.tensor(self.rings, dtype=torch.float64)[ring[where]]

    def embed(self, noise: Tensor) -> Tensor:
        """The noise (B, C, H, W) with the key in it."""
        import torch

        check_noise(self, noise)
        where, key = self.pattern()
        spectrum = torch.fft.fft2(noise[:, self.channel].double(), norm="ortho")
        spectrum[:, where.to(noise.device)] = key.to(noise.device, spectrum.dtype)
        marked = noise.clone()
        marked[:, self.channel] = torch.fft.ifft2(spectrum, norm="ortho").real.to(noise.dtype)
        return marked

    def read(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What stands in the key's place, (B, M) complex, and the key (M,)."""
        import torch

        check_noise(self, noise)
        where, key = self.pattern()
        return torch.fft.fft2(noise[:, self.channel].double().cpu(), norm="ortho")[:, where], key

    def distance(self, noise: Tensor) -> list[float]:
        """Mean of |k_i - y_i| over the disc, a noise."""
        found, key = self.read(noise)
        return (found - key).abs().mean(1).tolist()

    def p_values(self, noise: Tensor) -> list[float]:
        """How likely a white noise comes so near to the key, a noise.

        Raises:
            BadInput: a noise without any power in the disc.
        """
        found, key = self.read(noise)
        lengths = found.abs().square().sum(1).sqrt() * key.square().sum().sqrt()
        if not bool((lengths > 0).all()):
            raise BadInput("a noise that is constant has no direction")
        return [cosine_tail(c, len(key)) for c in ((found.real * key).sum(1) / lengths).clamp(-1, 1).tolist()]
