"""Is a recovered noise noise? Four figures of each picture, each with the band that true noise of that size falls into.

An exact round trip does not make a usable latent, so these stand beside every reconstruction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unsample.numeric import finite

if TYPE_CHECKING:
    from torch import Tensor


def lag1_correlation(noise: Tensor) -> Tensor:
    """Signed correlation over all pairs that are adjacent along an axis of space, per channel, then averaged.

    Args:
        noise: (B, C, ...): (B, C, H, W) in general, and any number of axes of space.

    Returns:
        (B,); a constant channel counts as fully correlated (1).
    """
    import torch

    x = noise.double()
    space = tuple(range(2, x.ndim))
    x = x - x.flatten(2).mean(2).reshape(*x.shape[:2], *(1 for _ in space))
    power = x.flatten(2).square().mean(2)
    products = sum((x.narrow(d, 1, x.shape[d] - 1) * x.narrow(d, 0, x.shape[d] - 1)).flatten(2).sum(2) for d in space)
    return torch.where(power == 0, 1.0, products / (_pairs(x) * power)).mean(1)


def _pairs(x: Tensor) -> int:
    """Adjacent pairs of a channel, at least 1."""
    values = x[0, 0].numel()
    return max(sum(values - values // n for n in x.shape[2:]), 1)


def health(noise: Tensor, *, pure_noise: bool = True) -> list[dict[str, Any]]:
    """Mean, standard deviation, KL divergence to N(0, 1) and lag-1 correlation of each picture.

    `kl = (std^2 + mean^2 - 1 - ln std^2) / 2`, of the moments, in nats a value. The bands hold 95 % of true noise of
    that size: mean and correlation are normal, `2 n kl` is chi-squared with two degrees of freedom.

    Args:
        noise: (B, C, ...), as for `lag1_correlation`.
        pure_noise: False for a point inside the trajectory (strength below 1), where the bands do not apply.

    Returns:
        For each picture `mean`, `std`, `kl`, `lag1_correlation`, `bands` (name to (low, high)), `pure_noise`,
        `within` (whether all lie in their bands). Figures of a picture that is not finite are None, and the correlation
        of one without neighbours (1x1, a vector) is, and has no band.
    """
    n, pairs, pixels = noise[0].numel(), _pairs(noise) * noise.shape[1], noise[0, 0].numel()
    x = noise.double().flatten(1)
    mean, std = x.mean(1), x.std(1, correction=0)
    kl = (std**2 + mean**2 - 1 - (std**2).log()) / 2
    spread, slack = 1.96 / math.sqrt(n), 1.96 / math.sqrt(pairs)
    bands = {
        "mean": (-spread, spread),
        "std": (1 - spread / math.sqrt(2), 1 + spread / math.sqrt(2)),
        "kl": (0.0, 5.991 / (2 * n)),
        "lag1_correlation": (-slack, slack),
    }
    figures = {"mean": mean, "std": std, "kl": kl, "lag1_correlation": lag1_correlation(noise)}
    if pixels == 1:
        bands.pop("lag1_correlation")
        figures["lag1_correlation"] = mean * math.nan
    rows = []
    for k in range(len(noise)):
        row: dict[str, Any] = {name: finite(float(value[k])) for name, value in figures.items()}
        inside = [row[m] is not None and low <= row[m] <= high for m, (low, high) in bands.items()]
        rows.append(row | {"bands": dict(bands), "pure_noise": pure_noise, "within": pure_noise and all(inside)})
    return rows
