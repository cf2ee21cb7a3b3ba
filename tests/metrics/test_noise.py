"""Figures of recovered noise against scipy, loops, simulation, and the published floors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import unsample
from tests.problems import normal
from unsample.metrics import Measuring, Subject
from unsample.metrics.noise import floor_spread, pixel_correlation_floor, shapiro
from unsample.numbers.health import health


def of(name: str, noise: Tensor) -> unsample.metrics.Score:
    return unsample.measure([name], Subject(noise=noise))[name]


@pytest.mark.parametrize("name", ["noise_mean", "noise_std", "noise_kl", "lag1_correlation"])
def test_a_figure_is_healths_with_its_band_beside_it(name: str) -> None:
    noise = normal(3, 4, 16, 16) * 1.1
    rows, key = health(noise), name.removeprefix("noise_")
    score = of(name, noise)
    assert score.values == [row[key] for row in rows]
    assert (score.details["low"], score.details["high"]) == rows[0]["bands"][key]


def test_the_first_kl_is_that_of_torchs_own_gaussians() -> None:
    from torch.distributions import Normal, kl_divergence

    noise = normal(2, 4, 16, 16) * 0.8 + 0.1
    for k, value in enumerate(of("noise_kl", noise).values):
        fitted = Normal(noise[k].mean(), noise[k].std(correction=0))
        assert value == pytest.approx(float(kl_divergence(fitted, Normal(0.0, 1.0))), rel=1e-9)


def test_the_second_kl_is_that_of_each_number_over_pictures() -> None:
    from torch.distributions import Normal, kl_divergence

    noise = normal(50, 2, 4, 4) * 0.8 + 0.1
    fitted = Normal(noise.mean(0), noise.std(0) + 1e-6)
    expected = kl_divergence(Normal(torch.zeros(2, 4, 4).double(), torch.ones(2, 4, 4).double()), fitted).mean()
    score = of("noise_kl_dims", noise)
    assert score.values == [pytest.approx(float(expected), rel=1e-9)]
    assert score.n == 50


def test_true_noise_has_about_one_over_n_in_the_second_kl() -> None:
    score = of("noise_kl_dims", normal(200, 4, 16, 16))
    assert score.values[0] == pytest.approx(score.details["true_noise"], rel=0.15)  # the next order is 5 / (2 n)


def test_a_constant_noise_has_reasons_and_no_numbers() -> None:
    flat = torch.full((2, 1, 8, 8), 0.3)
    for name in ("spectrum_flatness", "normality"):
        score = of(name, flat)
        assert score.values == [None, None], name
        assert "does not vary" in str(score.reasons[0])
    assert of("noise_kl", torch.zeros(1, 1, 8, 8)).values == [None]


# ---------------------------------------------------------------- normality and spectrum


@pytest.mark.parametrize("count", [12, 50, 1024, 5000])
@pytest.mark.parametrize("kind", ["normal", "uniform", "skewed"])
def test_shapiro_is_scipys(count: int, kind: str) -> None:
    from scipy.stats import shapiro as theirs

    values = normal(count, seed=count)
    values = {"normal": values, "uniform": values.erf(), "skewed": (0.3 * values).exp()}[kind]
    w, p = shapiro(values)
    expected = theirs(values.numpy())
    assert w == pytest.approx(expected.statistic, rel=1e-5)  # its normal quantiles are rational approximations
    assert p == pytest.approx(expected.pvalue, rel=0.02, abs=1e-6)


def test_normality_refuses_true_noise_one_time_in_twenty() -> None:
    values = of("normality", normal(400, 1, 16, 16)).values
    assert sum(v < 0.05 for v in values) / 400 == pytest.approx(0.05, abs=0.033)  # type: ignore[operator]  # 3 standard errors
    assert max(of("normality", normal(5, 1, 16, 16).erf()).values) < 0.05  # type: ignore[type-var]


def test_a_large_noise_is_tested_on_5000_values_that_do_not_depend_on_the_batch() -> None:
    noise = normal(3, 4, 64, 64)
    score = of("normality", noise)
    assert score.details["values"] == 5000
    assert of("normality", noise[1:2]).values == score.values[1:2]
    assert of("normality", normal(1, 1, 3, 3)).values == [None]


def test_the_flatness_is_the_ratio_of_scipys_two_means() -> None:
    from scipy.stats import gmean

    noise = normal(2, 3, 8, 12)
    for k, value in enumerate(of("spectrum_flatness", noise).values):
        ratios = []
        for channel in noise[k].numpy():
            power = np.abs(np.fft.fft2(channel)) ** 2
            power = power.ravel()[1:]
            ratios.append(gmean(power) / power.mean())
        assert value == pytest.approx(np.mean(ratios), rel=1e-9)


def test_white_noise_has_the_flatness_of_euler_and_smooth_noise_less() -> None:
    noise = normal(50, 1, 32, 32)
    values = of("spectrum_flatness", noise).values
    assert sum(values) / 50 == pytest.approx(math.exp(-0.57722), abs=0.01)  # type: ignore[arg-type]
    smooth = (noise + noise.roll(1, -1)) / 2
    assert max(of("spectrum_flatness", smooth).values) < min(values)  # type: ignore[type-var]


# ---------------------------------------------------------------- pixel correlation


def test_the_floor_is_that_of_the_published_table() -> None:
    for n, channels, known in ((8192, 3, 0.0390), (8192, 4, 0.0406), (10240, 4, 0.0363), (2048, 4, 0.081)):
        assert pixel_correlation_floor(n, channels * 64) == pytest.approx(
            known, rel=3e-3
        )  # rounded to two digits or three


@pytest.mark.parametrize("n", [8, 100])
def test_the_floor_and_its_spread_are_those_of_a_simulation(n: int) -> None:
    generator, upper = np.random.default_rng(0), np.triu_indices(64, 1)
    draws = (np.corrcoef(generator.standard_normal((64, n)))[upper] for _ in range(300))
    tops = np.array([np.sort(np.abs(draw))[-20:].mean() for draw in draws])
    assert pixel_correlation_floor(n, 64) == pytest.approx(tops.mean(), abs=4 * tops.std() / math.sqrt(300))
    if n == 100:
        assert floor_spread(n, 64) == pytest.approx(tops.std(), rel=0.25)  # the tail is not quite exponential


def test_pixel_correlation_is_numpys_corrcoef_patch_by_patch() -> None:
    noise = normal(30, 2, 17, 24)
    noise[:, 0, 0] = noise[:, 0, 1] * 0.5 + noise[:, 0, 0]
    tops = []
    for y in (0, 8):
        for x in (0, 8, 16):
            patch = noise[:, :, y : y + 8, x : x + 8].reshape(30, -1).numpy()
            r = np.abs(np.corrcoef(patch, rowvar=False)[np.triu_indices(128, 1)])
            tops.append(np.sort(r)[-20:])
    score = of("pixel_correlation", noise)
    assert score.values[0] == pytest.approx(np.mean(tops), rel=1e-9)
    assert score.details["std"] == pytest.approx(np.std(np.concatenate(tops), ddof=1), rel=1e-6)
    assert score.details["patches"] == 6


def test_there_is_no_verdict_below_8192_samples_and_a_right_one_from_there_on() -> None:
    generator = torch.Generator().manual_seed(0)
    measuring, smooth = Measuring(["pixel_correlation"]), Measuring(["pixel_correlation"])
    for k in range(8):
        noise = torch.randn(1024, 1, 16, 8, generator=generator)
        measuring.add(Subject(noise=noise))
        smooth.add(Subject(noise=noise + 0.05 * noise.roll(1, -1)))
        if k == 6:
            assert measuring.finish()["pixel_correlation"].details["verdict"] is None
    found, above = measuring.finish()["pixel_correlation"], smooth.finish()["pixel_correlation"]
    assert (found.n, found.details["verdict"]) == (8192, "as true noise")
    assert found.values[0] == pytest.approx(found.details["floor"], rel=0.06)  # two patches: 3 x 2.7 % / sqrt 2
    assert above.details["verdict"] == "above the floor"


def test_a_noise_smaller_than_a_patch_or_of_two_pictures_has_a_reason() -> None:
    assert "at least 8" in str(of("pixel_correlation", normal(5, 4, 4, 4)).reasons[0])
    assert "at least three" in str(of("pixel_correlation", normal(2, 1, 8, 8)).reasons[0])


# ---------------------------------------------------------------- where the truth is known


def test_recovery_is_mean_squares_and_cosines_of_whole_samples() -> None:
    noise, truth = normal(2, 4, 8, 8) * 0.9, normal(2, 4, 8, 8, seed=1)
    start, played, between = (normal(2, 4, 8, 8, seed=k) for k in (2, 3, 4))
    subject = Subject(
        noise=noise, true_noise=truth, start=start, played=played, between=between, start_kind="reencoded"
    )
    scores = unsample.measure(["e_latent", "e_recon", "e_interp", "cosine", "std"], subject)
    for k in range(2):
        n, t, s, p, b = (v[k].numpy().ravel() for v in (noise, truth, start, played, between))
        assert scores["e_latent"].values[k] == pytest.approx(np.mean((n - t) ** 2))
        assert scores["e_recon"].values[k] == pytest.approx(np.mean((p - s) ** 2))
        assert scores["e_interp"].values[k] == pytest.approx(np.mean((b - s) ** 2))
        assert scores["cosine"].values[k] == pytest.approx(n @ t / np.linalg.norm(n) / np.linalg.norm(t))
        assert scores["std"].values[k] == pytest.approx(np.std(n))
    assert scores["e_recon"].details == {"start": "reencoded"}


def test_a_truth_of_another_shape_is_a_reason() -> None:
    subject = Subject(noise=normal(1, 4, 8, 8), true_noise=normal(1, 4, 4, 4))
    assert "one shape" in str(unsample.measure(["e_latent"], subject)["e_latent"].reasons[0])
