"""Gaussian Shading (Yang et al., 2024, arXiv:2404.04956): a message in the signs of the noise, whose law stays N(0, 1).

The k bits of a message are repeated to the shape of the noise (f_c times over channels, f_hw over each side), encrypted
by a stream of bits, and a value of the noise is drawn from the half of N(0, 1) that its bit says (l = 1 in the paper).
They are found again by the signs, decrypted, by the majority of each bit's copies. The stream is SHAKE-256 of key and
nonce, which Python has; the paper takes ChaCha20, and any stream that cannot be told from fair coins does.

Without the mark every sign is a fair coin to who does not know the key, so the number of right bits is binomial: with
chance 1/2, or a little less where copies can tie, since a tie counts as wrong here (`chance.majority`).
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from hashlib import shake_256
from typing import TYPE_CHECKING

from unsample.errors import BadOption
from unsample.watermarks.chance import binomial_tail, majority
from unsample.watermarks.keys import Key, check_noise, check_shape, check_whole

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GaussianShading(Key):
    """A Gaussian Shading key and its message.

    Args:
        shape: (C, H, W) of the noise.
        message: its bits, "0110..."; C / channel_copies * H / side_copies * W / side_copies of them.
        secret: the key of the stream, 64 hexadecimal digits.
        nonce: of the stream, hexadecimal digits; another one makes other signs of the same message.
        channel_copies: f_c, a divisor of C.
        side_copies: f_hw, a divisor of H and W.

    Raises:
        BadOption: copies that do not divide the shape, or a message or a key of another length or alphabet.
    """

    shape: tuple[int, int, int]
    message: str
    secret: str
    nonce: str
    channel_copies: int = 1
    side_copies: int = 8

    kind = "gaussian_shading"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        channels, height, width = self.shape
        for name, of in (("channel_copies", (channels,)), ("side_copies", (height, width))):
            copies = getattr(self, name)
            check_whole(name, copies, 1, min(of))
            if any(side % copies for side in of):
                raise BadOption(f"{name} must divide {' and '.join(map(str, of))} of the noise; got {copies}")
        bits = channels * height * width // self.copies
        if not isinstance(self.message, str) or len(self.message) != bits or {*self.message} - {"0", "1"}:
            raise BadOption(f"the message of such a key has {bits} bits, of 0 and 1; got {str(self.message)[:80]!r}")
        for name, digits in (("secret", 64), ("nonce", None)):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) != (digits or len(value)) or not _is_hexadecimal(value):
                raise BadOption(f"{name} is of {digits or 'any even number of'} hexadecimal digits")

    @staticmethod
    def drawn(
        shape: tuple[int, int, int],
        *,
        channel_copies: int = 1,
        side_copies: int = 8,
        message: str | None = None,
        seed: int | None = None,
    ) -> GaussianShading:
        """A new key.

        Args:
            shape: (C, H, W) of the noise.
            channel_copies, side_copies: how often a bit is there: f_c, and f_hw along each side (the paper: 1 and 8).
            message: its bits; None draws them.
            seed: the same gives the same key, which is then no secret; None asks the operating system.
        """
        channels, height, width = check_shape(shape)
        check_whole("channel_copies", channel_copies, 1, channels)
        check_whole("side_copies", side_copies, 1, min(height, width))
        bits = channels * height * width // (channel_copies * side_copies**2)
        draw = random.Random(seed)
        secret, nonce = (secrets.token_hex(n) if seed is None else draw.randbytes(n).hex() for n in (32, 12))
        if message is None:
            number = secrets.randbits(bits) if seed is None else draw.getrandbits(bits)
            message = f"{number:0{bits}b}"
        return GaussianShading(shape, message, secret, nonce, channel_copies, side_copies)

    @property
    def copies(self) -> int:
        """How often each bit is there."""
        return self.channel_copies * self.side_copies**2

    def signs(self) -> Tensor:
        """The encrypted message, (C, H, W) of 1 and -1."""
        return 1 - 2 * (self._spread() ^ self._stream())

    def embed(self, noise: Tensor) -> Tensor:
        """The noise (B, C, H, W) with the signs of the message; of N(0, 1) it stays N(0, 1)."""
        check_noise(self, noise)
        return noise.abs() * self.signs().to(noise.device, noise.dtype)

    def right(self, noise: Tensor) -> Tensor:
        """Whether a noise (B, C, H, W) holds each bit of the message, by more than half of its copies: (B, k)."""
        check_noise(self, noise)
        signs = (noise.detach().cpu() * self.signs()) > 0  # (B, C, H, W)
        channels, height, width = self.shape
        per = channels // self.channel_copies, height // self.side_copies, width // self.side_copies
        parts = signs.reshape(
            len(noise), self.channel_copies, per[0], self.side_copies, per[1], self.side_copies, per[2]
        )
        return 2 * parts.sum((1, 3, 5)).flatten(1) > self.copies

    def accuracy(self, noise: Tensor) -> list[float]:
        """The share of the message's bits that a noise holds."""
        return self.right(noise).double().mean(1).tolist()

    def p_values(self, noise: Tensor) -> list[float]:
        """How likely a noise without the mark holds so many, a noise."""
        hits, count, chance = self.right(noise).sum(1).tolist(), len(self.message), majority(self.copies)
        return [binomial_tail(k, count, chance) for k in hits]

    def _spread(self) -> Tensor:
        """The message, repeated to the noise's shape: 0 and 1."""
        import torch

        channels, height, width = self.shape
        bits = torch.tensor([int(bit) for bit in self.message])
        small = bits.reshape(channels // self.channel_copies, height // self.side_copies, width // self.side_copies)
        return small.repeat(self.channel_copies, self.side_copies, self.side_copies)

    def _stream(self) -> Tensor:
        """As many bits of the stream, 0 and 1."""
        import torch

        count = self.shape[0] * self.shape[1] * self.shape[2]
        text = shake_256(bytes.fromhex(self.secret) + bytes.fromhex(self.nonce)).digest(-(-count // 8))
        bits = [byte >> k & 1 for byte in text for k in range(8)]
        return torch.tensor(bits[:count]).reshape(self.shape)


def _is_hexadecimal(text: str) -> bool:
    return len(text) % 2 == 0 and not {*text} - {*"0123456789abcdef"}
