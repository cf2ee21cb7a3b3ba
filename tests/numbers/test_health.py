"""The four figures of a recovered noise, and whether their bands hold what they claim."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.problems import normal
from unsample.numbers.health import health, lag1_correlation

FIGURES = ("mean", "std", "kl", "lag1_correlation")


@pytest.mark.parametrize("shape", [(4, 16, 16), (3, 32, 32), (1, 8, 8)])
def test_the_bands_hold_95_percent_of_true_noise(shape: tuple[int, int, int]) -> None:
    count = 4000
    rows = health(normal(count, *shape))
    for name in FIGURES:
        inside = sum(row["bands"][name][0] <= row[name] <= row["bands"][name][1] for row in rows) / count
        # 3 standard errors of a share of 95 % of 4000, and at 64 values the bias -1/n of mean-removed correlations
        assert inside == pytest.approx(0.95, abs=0.0105 + (0.01 if shape == (1, 8, 8) else 0)), name
    # all four at once: kl repeats mean and std, so between 0.95^4 and 0.95^2
    assert 0.95**4 - 0.02 < sum(row["within"] for row in rows) / count < 0.95**2 + 0.02


def brute_force_lag1(noise: Tensor) -> float:
    """Pair by pair."""
    channels = []
    for channel in noise.double().tolist():
        height, width = len(channel), len(channel[0])
        mean = sum(map(sum, channel)) / (height * width)
        variance = sum((v - mean) ** 2 for row in channel for v in row) / (height * width)
        total, pairs = 0.0, 0
        for y in range(height):
            for x in range(width):
                for dy, dx in ((0, 1), (1, 0)):
                    if y + dy < height and x + dx < width:
                        total += (channel[y][x] - mean) * (channel[y + dy][x + dx] - mean)
                        pairs += 1
        channels.append(total / pairs / variance)
    return sum(channels) / len(channels)


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 2, 2), (4, 1, 9), (2, 8, 3)])
def test_lag1_correlation_equals_a_loop_over_the_pairs(shape: tuple[int, int, int]) -> None:
    noise = normal(3, *shape) * 2 + 1
    noise[1] = noise[1].cumsum(-1)
    for k in range(3):
        assert float(lag1_correlation(noise)[k]) == pytest.approx(brute_force_lag1(noise[k]), abs=1e-12)  # rounding


def test_lag1_correlation_has_a_sign() -> None:
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    ramp = torch.arange(64.0).expand(64, 64)[None, None]
    assert float(lag1_correlation(board)) == pytest.approx(-1)
    assert float(lag1_correlation(ramp)) > 0.9


def test_the_figures_are_those_of_their_formulas() -> None:
    noise = normal(2, 3, 8, 8) * 1.3 + 0.2
    for k, row in enumerate(health(noise)):
        values = noise[k].flatten()
        mean, std = float(values.mean()), float(values.std(correction=0))
        assert row["mean"] == pytest.approx(mean)
        assert row["std"] == pytest.approx(std)
        assert row["kl"] == pytest.approx((std**2 + mean**2 - 1) / 2 - math.log(std))
        assert not row["within"]


def test_what_inversion_does_to_a_noise_is_seen() -> None:
    noise = normal(1, 4, 16, 16)
    smooth = (noise + noise.roll(1, -1)) / 2**0.5
    (row,) = health(smooth)
    assert row["lag1_correlation"] > row["bands"]["lag1_correlation"][1]
    (row,) = health(0.8 * noise)
    assert row["std"] < row["bands"]["std"][0]
    assert row["kl"] > row["bands"]["kl"][1]


def test_constant_pictures_are_fully_correlated_and_have_no_kl() -> None:
    for value in (0.0, 0.3, -2.0):
        (row,) = health(torch.full((1, 3, 8, 8), value))
        assert row["mean"] == pytest.approx(value)
        assert row["std"] == pytest.approx(0, abs=1e-12)
        assert row["kl"] is None or row["kl"] > 10  # -log of a rounding error at best
        assert row["lag1_correlation"] == pytest.approx(1)
        assert not row["within"]


def test_a_picture_that_is_not_finite_has_no_figures_and_leaves_the_others_alone() -> None:
    noise = normal(3, 3, 8, 8)
    alone = health(noise)
    noise[1, 0, 0, 0] = torch.nan
    rows = health(noise)
    assert all(rows[1][name] is None for name in FIGURES)
    assert not rows[1]["within"]
    assert (rows[0], rows[2]) == (alone[0], alone[2])


def test_a_point_that_is_not_pure_noise_says_so_and_is_never_within() -> None:
    noise = normal(1, 4, 16, 16, seed=1)
    assert health(noise)[0]["within"]
    (row,) = health(noise, pure_noise=False)
    assert not row["pure_noise"]
    assert not row["within"]


def test_figures_are_computed_in_float64_whatever_comes_in() -> None:
    wide = normal(1, 4, 16, 16) + 100
    narrow = health(wide.float())[0]["std"]
    assert narrow == pytest.approx(health(wide)[0]["std"], rel=1e-6)  # of the rounding of the input
