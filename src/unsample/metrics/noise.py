"""Is a recovered noise noise? Figures of a picture alone, and of many together, where the true noise is not known.

`lag1_correlation` with its interval is the one to decide by: it has a sign, uses every adjacent pair and works on one
picture. `pixel_correlation` (Staniszewski et al., 2024, arXiv:2410.23530, Table 2) takes the largest of thousands
of correlations, so even true noise has a floor that depends on the number of samples; it stands beside the value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.metrics.distributions import Outcome
from unsample.metrics.moments import Moments
from unsample.metrics.subject import Found, Settings, Subject
from unsample.numbers.health import health

if TYPE_CHECKING:
    from torch import Tensor

PATCH, TOP = 8, 20
VERDICT_FROM = 8192  # samples; fewer and the floor hides what is looked for
MOST = 5000  # values that the normality test takes
CONSTANT = "the noise does not vary"


def figure(name: str, subject: Subject, settings: Settings) -> Found:
    """One of `health`'s figures, `mean`, `std`, `kl` or `lag1_correlation`, and the band of true noise of that size."""
    rows = health(*subject.given("noise"))
    if name not in rows[0]["bands"]:
        return Found(["a noise of one pixel has no neighbours"] * len(rows))
    low, high = rows[0]["bands"][name]
    values = [CONSTANT if row[name] is None else row[name] for row in rows]
    return Found(values, {"low": low, "high": high})


def normality(subject: Subject, settings: Settings) -> Found:
    """p of the Shapiro-Wilk test of up to 5,000 values; mean and variance are free in it."""
    import torch

    noise = subject.given("noise")[0].double().flatten(1)
    order = torch.randperm(noise.shape[1], generator=torch.Generator().manual_seed(0))[:MOST]
    tests = [shapiro(row[order]) for row in noise]
    statistics = [None if isinstance(t, str) else t[0] for t in tests]
    return Found([t if isinstance(t, str) else t[1] for t in tests], {"values": len(order), "w": statistics})


def shapiro(values: Tensor) -> tuple[float, float] | str:
    """W and p by Royston's approximation (1995, Algorithm AS R94) for 12 to 5,000 values; or why there is none."""
    import torch

    x = values.double().sort().values
    n = len(x)
    if n < 12:
        return f"the test needs at least 12 values; got {n}"
    spread = (x - x.mean()).square().sum()
    if not float(spread) > 0:
        return CONSTANT if float(spread) == 0 else "the noise is not finite"
    scores = torch.special.ndtri((torch.arange(1, n + 1, dtype=torch.float64) - 0.375) / (n + 0.25))
    power, u = scores.square().sum(), n**-0.5
    last = float(scores[-1] / power.sqrt()) + _poly(u, 0, 0.221157, -0.147981, -2.071190, 4.434685, -2.706056)
    next_ = float(scores[-2] / power.sqrt()) + _poly(u, 0, 0.042981, -0.293762, -1.752461, 5.682633, -3.582633)
    rest = (power - 2 * scores[-1] ** 2 - 2 * scores[-2] ** 2) / (1 - 2 * last**2 - 2 * next_**2)
    weights = scores / rest.sqrt()
    weights[-1], weights[-2], weights[0], weights[1] = last, next_, -last, -next_
    w = min(float((weights * x).sum() ** 2 / spread), 1 - 1e-16)
    size = math.log(n)
    mean = _poly(size, -1.5861, -0.31082, -0.083751, 0.0038915)
    deviation = math.exp(_poly(size, -0.4803, -0.082676, 0.0030302))
    z = (math.log(1 - w) - mean) / deviation
    return w, 0.5 * math.erfc(z / math.sqrt(2))


def _poly(x: float, *coefficients: float) -> float:
    return sum(c * x**k for k, c in enumerate(coefficients))


def spectrum_flatness(subject: Subject, settings: Settings) -> list[float | str]:
    """Geometric over arithmetic mean of the power at all frequencies but zero, per channel, then averaged."""
    import torch

    noise = subject.given("noise")[0].double()
    if noise.shape[2] * noise.shape[3] < 2:
        return ["a spectrum needs more than one pixel"] * len(noise)
    power = torch.fft.fft2(noise).abs().square().flatten(2)[..., 1:]  # (B, C, HW - 1)
    mean = power.mean(2)
    flatness = (power.log().mean(2).exp() / mean).mean(1)
    return [float(f) if bool((m > 0).all()) else CONSTANT for f, m in zip(flatness, mean, strict=True)]


# ---------------------------------------------------------------- over many pictures


class NoiseMoments:
    """A tally: mean and covariance of what `add` takes of the noises of many pictures."""

    def __init__(self, settings: Settings) -> None:
        self.moments = Moments()

    @property
    def n(self) -> int:
        """Pictures seen."""
        return self.moments.n

    def merge(self, other: NoiseMoments) -> None:
        """Another shard."""
        self.moments.merge(other.moments)


class PerDimension(NoiseMoments):
    """Mean and variance of each of the C x H x W numbers of a noise, over pictures."""

    def add(self, subject: Subject) -> None:
        """A batch."""
        self.moments.add(subject.given("noise")[0].flatten(1).T[..., None])  # (CHW, B, 1)


def noise_kl_dims(tally: PerDimension) -> Outcome:
    """KL(N(0, 1) | N(mean, std)) of every number over the pictures, averaged over the numbers."""
    sizes: dict[str, Any] = {"n": tally.n, "true_noise": 1 / tally.n if tally.n else None}
    if tally.n < 2:
        return "a standard deviation over pictures needs at least two of them", sizes
    assert tally.moments.mean is not None
    mean, std = tally.moments.mean, tally.moments.covariance()[..., 0].sqrt() + 1e-6
    return float((std.log() + (1 + mean**2) / (2 * std**2) - 0.5).mean()), sizes


class Patches(NoiseMoments):
    """Covariances inside 8x8 patches that do not overlap, all channels together, over pictures."""

    @property
    def variables(self) -> int:
        """Numbers of a patch, all channels together."""
        return 0 if self.moments.mean is None else self.moments.mean.shape[-1]

    def add(self, subject: Subject) -> None:
        """A batch; rows and columns that fill no patch are left out."""
        (noise,) = subject.given("noise")
        if min(noise.shape[2:]) < PATCH:
            raise BadInput(f"patches of {PATCH}x{PATCH} need sides of at least {PATCH}; got {tuple(noise.shape[2:])}")
        patches = noise.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (B, C, h, w, 8, 8)
        self.moments.add(patches.permute(2, 3, 0, 1, 4, 5).reshape(-1, len(noise), noise.shape[1] * PATCH * PATCH))


def pixel_correlation(tally: Patches) -> Outcome:
    """Mean of the 20 largest absolute correlations of each patch, over all patches."""
    import torch

    if tally.n < 3:
        return "correlations over pictures need at least three of them", {"n": tally.n}
    covariance = tally.moments.covariance()  # (P, D, D)
    std = covariance.diagonal(dim1=1, dim2=2).sqrt()
    if not bool((std > 0).all()):
        return CONSTANT, {"n": tally.n}
    correlation = covariance / (std[:, :, None] * std[:, None, :])
    rows, columns = torch.triu_indices(tally.variables, tally.variables, offset=1)
    top = correlation[:, rows, columns].abs().topk(TOP, dim=1).values  # (P, 20)
    value, floor = float(top.mean()), pixel_correlation_floor(tally.n, tally.variables)
    limit = floor + 3 * floor_spread(tally.n, tally.variables) / len(top) ** 0.5
    verdict = None if tally.n < VERDICT_FROM else "above the floor" if value > limit else "as true noise"
    told = {"n": tally.n, "std": float(top.std()), "floor": floor, "limit": limit, "patches": len(top)}
    return value, told | {"verdict": verdict, "verdict_from": VERDICT_FROM}


def pixel_correlation_floor(n: int, variables: int) -> float:
    """What true noise gives: the mean of the 20 largest of M = D (D - 1) / 2 absolute correlations over n samples.

    `E[sum of the k largest] = integral of E[min(K(x), k)] dx`, with K(x) the number above x, which is nearly Poisson.
    The correlation of independent normals is the sine of an angle with density cos(angle)^(n - 3); n is at least 3.
    """
    pairs, parts = variables * (variables - 1) / 2, 4000
    width = min(math.pi / 2, 12 / math.sqrt(n)) / parts
    angles = [(k + 0.5) * width for k in range(parts)]
    density = [math.cos(angle) ** (n - 3) for angle in angles]
    whole, above, total = math.fsum(density), 0.0, 0.0
    for angle, here in zip(reversed(angles), reversed(density), strict=True):
        rate = pairs * (above + here / 2) / whole
        total += math.cos(angle) * width * _expected_at_most(rate, TOP)
        above += here
    return min(1.0, total / TOP)


def _expected_at_most(rate: float, most: int) -> float:
    """E[min(K, most)] of a Poisson K."""
    if rate > 50 + 20 * most:
        return float(most)
    term, below, mean = math.exp(-rate), 0.0, 0.0
    for k in range(most):
        below, mean = below + term, mean + k * term
        term *= rate / (k + 1)
    return mean + most * (1 - below)


def floor_spread(n: int, variables: int) -> float:
    """Standard deviation of one patch's mean of 20: beyond x the tail falls about as exp(-h t), so sqrt(2 / 20) / h."""
    pairs, x = variables * (variables - 1) / 2, 1.0
    while pairs * math.erfc(x / math.sqrt(2)) > TOP:
        x += 0.01
    hazard = math.sqrt(2 / math.pi) * math.exp(-x * x / 2) / math.erfc(x / math.sqrt(2))
    return math.sqrt(2 / TOP) / hazard / math.sqrt(n)
