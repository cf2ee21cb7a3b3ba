"""The statistics of the studies of EasyInv, each against a second computation of something planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unsample.metrics import measure
from unsample.metrics.subject import Subject
from unsample.studies._easyinv import at, interval
from unsample.studies.easyinv_midpoint import cosines, errors
from unsample.studies.easyinv_oversmoothing import BANDS, band_powers
from unsample.studies.easyinv_white import RATE, blackened, overshooting
from unsample.studies.easyinv_wraparound import brought_to, unrelated_psnr, wrapped_psnr
from unsample.studies.pictures import as_png, from_png


def pictures(count: int = 2, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth ones, in bytes."""
    rough = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(rough, size=(side, side), mode="bicubic").clamp(0, 1)
    return (smooth.double() * 255).round() / 255


def test_wrapped_psnr_is_what_numpys_bytes_give() -> None:
    a, b = pictures(seed=1), pictures(seed=2)
    x, y = ((p.numpy() * 255).round().astype(np.uint8) for p in (a, b))
    expected = [10 * math.log10(255**2 / np.mean((x[k] - y[k]) ** 2)) for k in range(2)]
    assert wrapped_psnr(a, b) == pytest.approx(expected, rel=1e-12)
    slight = (a * 255 + torch.tensor([7.0])).clamp(max=255) / 255  # below 16 no square wraps
    right = 10 * math.log10(1 / float((a - slight).square().mean()))
    assert 10 ** (-sum(wrapped_psnr(a, slight)) / 20) == pytest.approx(10 ** (-right / 10), rel=0.05)


def test_noise_scores_what_is_said_of_unrelated_pictures() -> None:
    generator = np.random.default_rng(0)
    x, y = (generator.integers(0, 256, (3, 200, 200), dtype=np.uint8) for _ in range(2))
    assert unrelated_psnr() == pytest.approx(10 * math.log10(255**2 / np.mean((x - y) ** 2)), abs=0.02)


@pytest.mark.parametrize("wanted", [0.5, 0.8])
def test_an_error_is_brought_to_a_similarity(wanted: float) -> None:
    source = pictures()
    made = source + 0.02 * torch.randn(source.shape, generator=torch.Generator().manual_seed(3)).double()
    found = brought_to(source, made, wanted)
    scores = measure(["ssim"], Subject(images=found.float(), reference=source.float()))
    assert scores["ssim"].values == pytest.approx([wanted] * 2, abs=0.01)


def test_a_wave_lies_in_its_band_and_all_bands_hold_the_power() -> None:
    side = 64
    x = torch.arange(side, dtype=torch.float64)
    for k in range(1, BANDS - 1):
        cycles = (k + 0.5) * side / (2 * BANDS)  # in the middle of band k
        wave = (0.5 + 0.3 * torch.cos(2 * math.pi * cycles * x / side)).expand(1, 3, side, side)
        power = band_powers(wave)[0]
        assert power.argmax() == k
        assert power[k] / power.sum() > 0.99
    smooth = pictures(1, side)
    grey = (smooth * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)[0]
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * x / side)
    windowed = (grey - grey.mean()) * hann[:, None] * hann
    assert float(band_powers(smooth).sum()) == pytest.approx(float(windowed.square().mean()), rel=1e-3)  # Parseval


def test_blurring_takes_the_high_bands() -> None:
    sharp = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(sharp, (1, 1, 1, 1), mode="circular"), 3, stride=1)
    ratio = (band_powers(blurred) / band_powers(sharp))[0]
    for k in range(BANDS):
        low, high = k / (2 * BANDS), (k + 1) / (2 * BANDS)
        frequencies = torch.fft.fftfreq(64, dtype=torch.float64)
        response = ((1 + 2 * torch.cos(2 * math.pi * frequencies)) / 3) ** 2
        radius = (frequencies[:, None] ** 2 + frequencies[None] ** 2).sqrt()
        inside = (radius >= low) & (radius < high)
        assert float(ratio[k]) == pytest.approx(float((response[:, None] * response)[inside].mean()), abs=0.12)


def test_points_are_told_from_their_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(2, 4, 8, 8, generator=generator)
    other = torch.randn(2, 4, 8, 8, generator=generator)
    planted = true + 0.1 * true.flatten(1).norm(dim=1)[:, None, None, None] * torch.nn.functional.normalize(
        other.flatten(1), dim=1
    ).view_as(other)
    assert errors(planted, true) == pytest.approx([0.1, 0.1], rel=1e-5)
    assert errors(true, true) == [0.0, 0.0]
    expected = [float(np.dot(*(v[k].flatten().numpy() for v in (true, other)))) for k in range(2)]
    norms = [float(true[k].norm() * other[k].norm()) for k in range(2)]
    assert cosines(true, other) == pytest.approx([e / n for e, n in zip(expected, norms, strict=True)], rel=1e-4)
    assert cosines(true, 3 * true) == pytest.approx([1.0, 1.0])


def test_a_black_picture_is_found_and_a_dark_source_is_none() -> None:
    source = torch.stack([torch.full((3, 8, 8), 0.95), torch.full((3, 8, 8), 0.95), torch.full((3, 8, 8), 0.1)])
    source[0, :, :4] = 0.5
    made = torch.stack([torch.full((3, 8, 8), 0.05), torch.full((3, 8, 8), 0.9), torch.zeros(3, 8, 8)])
    found = blackened(source, made)
    assert [each["black"] for each in found] == [1.0, 0.0, 0.0]
    assert [each["white_share"] for each in found] == [0.5, 1.0, 0.0]
    assert found[0]["brightness"] == pytest.approx(0.05 / 0.725, rel=1e-5)


def test_steps_that_overshoot_are_counted() -> None:
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(1, 1, 16, 16, generator=generator).double()
    own = torch.randn(1, 1, 16, 16, generator=generator).double()
    own[..., :8] *= 0.003  # half of the patches are nearly constant
    raised = 0
    for row, column in ((4 * r, 4 * c) for r in range(4) for c in range(4)):
        a, b = (e[0, 0, row : row + 4, column : column + 4].flatten() for e in (own, other))
        a.requires_grad_()

        def loss(a: torch.Tensor, b: torch.Tensor = b) -> torch.Tensor:
            u, v = a.var() + 1e-6, b.var() + 1e-6
            return ((v / u).log() + (a.var() + (a.mean() - b.mean()) ** 2) / v - 1).abs()

        (slope,) = torch.autograd.grad(loss(a), a)
        raised += int(loss(a - RATE * slope.clamp(-100, 100)) > loss(a))
    assert overshooting(own, other) == [raised / 16]
    assert 0 < raised < 16


def test_steps_stand_in_a_methods_text_and_intervals_are_students() -> None:
    assert at("renoise", 50, 22) == "renoise[steps=[50,22]]"
    assert at("renoise", 2, 2) == "renoise[steps=[2]]"
    assert at("aidi_e[num_iters=7]", 20) == "aidi_e[num_iters=7,steps=[20]]"
    low, middle, high = interval([1.0, 2.0, 3.0])
    assert (middle, high - middle, middle - low) == pytest.approx((2.0, 4.302653 / 3**0.5, 4.302653 / 3**0.5), rel=1e-5)
    image = pictures(1)[0]
    assert np.array_equal(from_png(as_png(image)), (image * 255).round().byte().permute(1, 2, 0).numpy())
