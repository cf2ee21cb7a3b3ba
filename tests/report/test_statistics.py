"""Intervals against what is known of them: binomial quantiles, standard errors, coverage; decibels by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unsample.report import statistics
from unsample.report.statistics import (
    Interval,
    beyond_chance,
    mean,
    mean_difference,
    median,
    psnr_difference,
    psnr_of_mean_mse,
)

INF = math.inf


def test_the_interval_of_yes_and_no_is_that_of_the_binomial() -> None:
    # Drawing 40 of 40 items with 12 ones: their number is Binomial(40, 0.3), with 2.5 % and 97.5 % points 7 and 18.
    ones = [math.comb(40, k) * 0.3**k * 0.7 ** (40 - k) for k in range(41)]
    cumulated = np.cumsum(ones)
    low, high = int(np.searchsorted(cumulated, 0.025)), int(np.searchsorted(cumulated, 0.975))
    found = mean([1.0] * 12 + [0.0] * 28)
    assert found is not None
    assert found.value == 0.3
    assert (found.low, found.high) == (low / 40, high / 40) == (7 / 40, 18 / 40)


def test_the_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = np.random.default_rng(5).normal(3, 2, 400)
    found = mean(values.tolist())
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    error = values.std() / 20
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)  # 2,000 draws: 4 % is one deviation
    assert found.value == pytest.approx(values.mean(), rel=1e-14)


def test_19_of_20_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(1)
    found = [mean(random.exponential(2.0, 60).tolist()) for _ in range(300)]
    held = sum(i.low <= 2.0 <= i.high for i in found if i and i.low is not None and i.high is not None)
    assert 0.88 <= held / 300 <= 0.98  # percentile intervals of 60 skewed values hold about 93 %


def test_a_report_made_twice_is_the_same_and_touches_no_global_generator(global_rng_unchanged: None) -> None:
    values = np.random.default_rng(2).random(50).tolist()
    assert mean(values) == mean(values)
    assert psnr_of_mean_mse(values) == psnr_of_mean_mse(values)


def test_portions_draw_every_resample_and_every_item_count(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = mean([1.0, 2.0, 4.0])
    monkeypatch.setattr(statistics, "CHUNK", 700)
    monkeypatch.setattr(statistics, "KEPT", 0)
    counts = np.concatenate(list(statistics._fresh_draws(30)))
    assert counts.shape == (statistics.RESAMPLES, 30)
    assert (counts.sum(1) == 30).all()
    assert counts.mean() == 1
    assert mean([1.0, 2.0, 4.0]) == kept


def test_the_psnr_of_the_mean_mse_counts_an_exact_picture_as_zero() -> None:
    found = psnr_of_mean_mse([20.0, 30.0, INF])  # MSE .01, .001 and 0
    assert found is not None
    assert found.value == pytest.approx(-10 * math.log10(0.011 / 3), abs=1e-12)
    assert found.low is not None
    assert found.low == pytest.approx(20)  # three times the worst one
    assert found.high == INF  # three times the exact one: 1 draw in 27


def test_all_exact_is_exact_and_none_is_nothing() -> None:
    assert psnr_of_mean_mse([INF, INF, INF]) == Interval(INF, INF, INF)
    assert psnr_of_mean_mse([]) is None
    assert mean([]) is None
    assert mean([4.0]) == Interval(4.0)
    assert psnr_difference([], []) is None


@pytest.mark.parametrize(
    ("values", "worst", "higher", "expected"),
    [
        ([1.0, 2.0, 9.0], 0, True, 2.0),
        ([1.0, 2.0], 0, True, 1.5),
        ([1.0, 2.0, 9.0], 1, True, 1.5),
        ([1.0, 2.0, 9.0], 1, False, 5.5),
        ([1.0, 2.0], 3, True, -INF),
        ([1.0, 2.0], 3, False, INF),
        ([1.0], 1, True, -INF),
        ([30.0, INF], 0, True, 30.0),
        ([30.0, INF, INF], 0, True, INF),
        ([], 0, True, None),
        ([], 1, True, -INF),
    ],
)
def test_the_median_takes_exact_and_diverged_pictures(
    values: list[float], worst: int, higher: bool, expected: float | None
) -> None:
    assert median(values, worst, higher) == expected


def test_a_paired_interval_sees_what_two_intervals_cannot() -> None:
    random = np.random.default_rng(3)
    hard = random.normal(0, 5, 60)
    a, b = (hard + 0.4 + random.normal(0, 0.3, 60)).tolist(), (hard + random.normal(0, 0.3, 60)).tolist()
    one, other, gap = mean(a), mean(b), mean_difference(a, b)
    assert one
    assert other
    assert gap
    assert one.low is not None
    assert other.high is not None
    assert one.low < other.high
    assert gap.clearly_above(0)
    assert gap.value == pytest.approx(np.mean(a) - np.mean(b))
    assert not gap.clearly_below(0)


def test_a_difference_of_psnr_is_that_of_the_two_psnrs_drawn_together() -> None:
    random = np.random.default_rng(4)
    a, b = random.uniform(20, 30, 40).tolist(), random.uniform(22, 32, 40).tolist()
    gap, one, other = psnr_difference(a, b), psnr_of_mean_mse(a), psnr_of_mean_mse(b)
    assert gap
    assert one
    assert other
    assert gap.value == pytest.approx(one.value - other.value, abs=1e-12)
    # the same draws made again, by hand
    draws = np.concatenate(list(statistics._draws(40)))
    means = [draws @ (10 ** (-np.array(side) / 10)) for side in (a, b)]
    expected = np.sort(-10 * np.log10(means[0] / means[1]))
    assert gap.low == pytest.approx(expected[49], abs=1e-9)  # 2.5 % of 2,000, the lower of the two
    assert gap.high == pytest.approx(expected[1950], abs=1e-9)


def test_a_difference_of_two_exact_methods_is_zero_and_of_one_infinite() -> None:
    assert psnr_difference([INF, INF], [INF, INF]) == Interval(0.0, 0.0, 0.0)
    one = psnr_difference([INF, INF], [30.0, 31.0])
    assert one == Interval(INF, INF, INF)
    assert one.clearly_above(0)
    with pytest.raises(ValueError, match="same items"):
        psnr_difference([1.0], [])


def test_four_diverged_items_are_beyond_chance_as_the_draws_show() -> None:
    draws = np.concatenate(list(statistics._draws(100)))
    for lost in range(1, 7):
        without = float((draws[:, :lost].sum(1) == 0).mean())
        assert without == pytest.approx((1 - lost / 100) ** 100, abs=0.025)
        assert beyond_chance(lost, 100) == (lost >= 4)
    assert not beyond_chance(0, 5)
    assert beyond_chance(3, 3)
    assert beyond_chance(9, 3)
