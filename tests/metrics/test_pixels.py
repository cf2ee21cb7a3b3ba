"""The pixel metrics against scikit-image, torchmetrics and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import unsample
from unsample.metrics import METRICS, Subject
from unsample.metrics.pixels import mae, ms_ssim, mse, ssim, ssim_global, ssim_map


def pictures(
    count: int = 2, height: int = 32, width: int = 40, seed: int = 0, noise: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Smooth 8-bit pictures and noisy ones."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, height // 8, width // 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noisy = (smooth + noise * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
    return (noisy * 255).round() / 255, (smooth * 255).round() / 255


def test_psnr_and_mse_agree_with_scikit_image() -> None:
    from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

    x, y = pictures()
    scores = unsample.measure(["mse", "psnr"], Subject(images=x, reference=y))
    for k in range(2):
        a, b = x[k].double().numpy(), y[k].double().numpy()
        assert scores["mse"].values[k] == pytest.approx(mean_squared_error(a, b), rel=1e-12)  # rounding
        assert scores["psnr"].values[k] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), rel=1e-12)


def test_equal_pictures_have_no_decibels_but_are_exact() -> None:
    x, y = pictures()
    y[0] = x[0]
    score = unsample.measure(["psnr"], Subject(images=x, reference=y))["psnr"]
    assert score.values[0] is None
    assert score.exact == [True, False]
    assert score.reasons == [None, None]
    assert score.values[1] is not None


def test_psnr_to_the_ceiling_is_of_clamped_pictures_that_are_not_rounded() -> None:
    images = torch.full((3, 3, 8, 8), 0.5 + 1e-4)  # less than half a level of 8 bits away
    ceiling = torch.full((3, 3, 8, 8), 0.5)
    images[1], ceiling[1] = 1.2, 1.1
    images[2] = ceiling[2]
    score = unsample.measure(["psnr_to_ceiling"], Subject(images=images, ceiling=ceiling))["psnr_to_ceiling"]
    assert score.values == [pytest.approx(80, abs=1e-2), None, None]  # float32 about 0.5
    assert score.exact == [False, True, True]


def test_ssim_is_that_of_torchmetrics() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure as theirs

    for size in ((32, 40), (16, 16), (11, 30)):
        x, y = pictures(3, *size) if min(size) >= 16 else (torch.rand(3, 3, *size), torch.rand(3, 3, *size))
        expected = theirs(x.double(), y.double(), data_range=1.0, reduction="none").tolist()
        assert ssim(x, y) == pytest.approx(expected, abs=1e-12)  # rounding


def test_ssim_inside_the_frame_is_that_of_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    x, y = pictures(1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    arrays = [p[0].double().permute(1, 2, 0).numpy() for p in (x, y)]
    _, theirs = structural_similarity(*arrays, channel_axis=2, full=True, **options)
    inner = ssim_map(x, y)[0, 5:-5, 5:-5]
    assert np.abs(inner.numpy() - theirs[5:-5, 5:-5].mean(-1)).max() < 1e-10  # rounding


def test_ssim_gives_the_same_digits_in_a_batch_as_alone() -> None:
    x, y = pictures(5)
    assert ssim(x, y) == [ssim(x[k : k + 1], y[k : k + 1])[0] for k in range(5)]


def test_ssim_global_is_algorithm_1_written_out() -> None:
    x, y = pictures(2, 32, 40)
    for k in range(2):
        arrays = []
        for p in (x, y):
            rgb = (p[k].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            arrays.append(np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float64))  # L = 255
        a, b = arrays
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        covariance = np.cov(a.ravel(), b.ravel(), bias=True)
        value = (2 * a.mean() * b.mean() + c1) * (2 * covariance[0, 1] + c2)
        value /= (a.mean() ** 2 + b.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
        assert ssim_global(x, y)[k] == pytest.approx(value, abs=1e-12)


def test_ssim_global_resizes_the_second_picture_and_the_others_refuse() -> None:
    x, y = pictures(1, 32, 40)
    small = torch.nn.functional.interpolate(y, size=(16, 24), mode="area")
    scores = unsample.measure(["ssim_global", "psnr", "ssim"], Subject(images=small, reference=y))
    assert scores["ssim_global"].values[0] == pytest.approx(1, abs=0.05)  # the same picture, smaller
    for name in ("psnr", "ssim"):
        assert scores[name].values == [None]
        assert "24x16 and 40x32" in str(scores[name].reasons[0])
    assert x.shape != small.shape


def test_ms_ssim_is_the_product_over_five_scales() -> None:
    """A second derivation: contrast at four scales, SSIM at the last, average pooling between them.

    torchmetrics takes contrasts inside the frame only, and the last SSIM with reflected borders.
    """
    x, y = pictures(1, 176, 184, noise=0.2)

    def parts(a: Tensor, b: Tensor, borders: bool) -> tuple[float, float]:
        if borders:
            a, b = (torch.nn.functional.pad(v, (5, 5, 5, 5), mode="reflect") for v in (a, b))
        grid = torch.arange(11.0, dtype=torch.float64) - 5
        line = (-(grid**2) / 4.5).exp()
        kernel = (line[:, None] * line[None] / line.sum() ** 2).expand(3, 1, 11, 11)
        blur = lambda v: torch.nn.functional.conv2d(v, kernel, groups=3)  # noqa: E731
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
        contrast = (2 * both + 0.0009) / (var_a + var_b + 0.0009)
        light = (2 * mean_a * mean_b + 0.0001) / (mean_a**2 + mean_b**2 + 0.0001)
        return float(contrast.mean()), float((light * contrast).mean())

    value, a, b = 1.0, x.double(), y.double()
    for k, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        contrast, whole = parts(a, b, borders=k == 4)
        value *= (whole if k == 4 else contrast) ** weight
        a, b = (torch.nn.functional.avg_pool2d(v, 2) for v in (a, b))
    assert ms_ssim(x, y)[0] == pytest.approx(value, abs=1e-12)  # rounding


def test_ms_ssim_is_that_of_torchmetrics() -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as theirs

    x, y = pictures(2, 176, 184, noise=0.5)
    expected = theirs(x.double(), y.double(), data_range=1.0, reduction="none", normalize="relu")
    assert ms_ssim(x, y) == pytest.approx(expected.tolist(), abs=1e-7)  # its weights of the scales are float32
    assert ms_ssim(x, 1 - x)[0] == 0  # a negative contrast


def test_ms_ssim_under_161_pixels_has_a_reason_and_no_value() -> None:
    x, y = pictures()
    score = unsample.measure(["ms_ssim"], Subject(images=x, reference=y))["ms_ssim"]
    assert score.values == [None, None]
    assert "at least 161" in str(score.reasons[0])


def test_pictures_under_the_window_have_a_reason_and_no_ssim() -> None:
    score = unsample.measure(["ssim"], Subject(images=torch.rand(1, 3, 10, 40), reference=torch.rand(1, 3, 10, 40)))
    assert score["ssim"].values == [None]
    assert "at least 11" in str(score["ssim"].reasons[0])


def test_a_picture_that_is_not_finite_never_becomes_nan() -> None:
    x, y = pictures()
    x[0, 0, 0, 0] = math.nan
    for score in unsample.measure(["mse", "psnr", "ssim"], Subject(images=x, reference=y)).values():
        assert score.values[0] is None
        assert "not finite" in str(score.reasons[0])
        assert score.values[1] is not None


def test_mse_is_the_mean_over_all_values() -> None:
    x, y = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    x[0, 1, 2, 3] = 0.6
    assert mse(x, y)[0] == pytest.approx(0.36 / 192, rel=1e-6)  # float32 pictures
    assert METRICS["mse"].better == "lower"


def test_mae_counts_an_error_once_whatever_its_sign() -> None:
    x, y = torch.full((2, 3, 8, 8), 0.5), torch.full((2, 3, 8, 8), 0.5)
    x[0, 1, 2, 3], x[0, 0, 4, 4], x[1] = 0.9, 0.1, 0.25
    assert mae(x, y) == pytest.approx([0.8 / 192, 0.25], rel=1e-6)  # float32 pictures
