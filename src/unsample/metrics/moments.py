"""Mean and covariance of many samples, a batch at a time, and of several shards together.

Sums of squares are kept about the running mean and merged as Chan, Golub and LeVeque (1979) do, so that none cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Moments:
    """Of samples of D numbers; in front of them any axes of independent problems (the patches of a picture)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: Tensor | None = None  # (..., D)
        self.scatter: Tensor | None = None  # (..., D, D): sum of outer products about the mean

    def add(self, samples: Tensor) -> None:
        """Samples (..., N, D)."""
        x = samples.double().cpu()
        batch = Moments()
        batch.n = x.shape[-2]
        batch.mean = x.mean(-2)
        x = x - batch.mean[..., None, :]
        batch.scatter = x.transpose(-1, -2) @ x
        self.merge(batch)

    def merge(self, other: Moments) -> None:
        """Take in what another one has seen."""
        if other.n == 0:
            return
        assert other.mean is not None
        assert other.scatter is not None
        if self.mean is None or self.scatter is None:
            self.n, self.mean, self.scatter = other.n, other.mean, other.scatter
            return
        n = self.n + other.n
        step = other.mean - self.mean
        between = step[..., :, None] * step[..., None, :] * (self.n * other.n / n)
        self.scatter = self.scatter + other.scatter + between
        self.mean = self.mean + step * (other.n / n)
        self.n = n

    def covariance(self) -> Tensor:
        """(..., D, D), over n - 1; at least two samples."""
        assert self.scatter is not None
        return self.scatter / (self.n - 1)
