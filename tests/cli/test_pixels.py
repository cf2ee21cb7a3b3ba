"""PSNR, SSIM and the encoder's ceiling."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unsample.errors import BadInput
from unsample.metrics.pixels import ceiling_psnr, eight_bit, psnr, ssim


def batch(count: int = 3, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_psnr_is_that_of_a_known_error() -> None:
    x = batch()
    off = x + torch.tensor([0.1, 0.01, 0.0])[:, None, None, None]
    assert psnr(off.double(), x.double())[:2] == pytest.approx([20, 40], abs=1e-3)


def test_psnr_of_equal_pictures_is_infinite() -> None:
    assert psnr(batch(), batch()) == [math.inf] * 3


def test_psnr_sees_errors_that_float32_would_lose() -> None:
    x = batch(1).double()
    assert psnr(x + 1e-9, x) == pytest.approx([180], abs=1e-3)


def test_ssim_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    x = batch(2, 64)
    y = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    theirs = [
        structural_similarity(a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy(), channel_axis=2, **options)
        for a, b in zip(y.double(), x.double(), strict=True)
    ]
    assert ssim(y, x) == pytest.approx(theirs, abs=5e-3)  # the borders are treated in different ways


def test_ssim_of_one_picture_does_not_depend_on_the_batch() -> None:
    x, y = batch(), batch().flip(2)
    assert ssim(y, x)[1] == pytest.approx(ssim(y[1:2], x[1:2])[0], abs=1e-12)


def test_ssim_of_a_picture_smaller_than_its_window_is_not_measured() -> None:
    assert ssim(batch(2, 10), batch(2, 10)) == [None, None]
    assert ssim(batch(1, 11), batch(1, 11)) == pytest.approx([1])


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(BadInput, match="one shape"):
        psnr(batch(1), batch(2))
    with pytest.raises(BadInput, match="one shape"):
        ssim(batch(1), batch(2))


def test_eight_bits_are_what_a_png_holds() -> None:
    x = torch.tensor([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 2.0]).reshape(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert (eight_bit(x)[0, 0, 0] * 255).tolist() == [0, 0, 0, 1, 255, 255]
    assert np.array_equal(eight_bit(eight_bit(x)), eight_bit(x))


def test_the_ceiling_is_the_encoders_own_round_trip() -> None:
    x = eight_bit(batch(1)).float()
    device = torch.device("cpu")
    lossless = SimpleNamespace(encode=lambda i: i * 2 - 1, decode=lambda z: z / 2 + 0.5, device=device)
    assert ceiling_psnr(lossless, x) == [math.inf]
    grey = SimpleNamespace(encode=lambda i: i, decode=lambda z: z * 0 + 0.5, device=device)
    expected = -10 * math.log10(((x.double() - 128 / 255) ** 2).mean())
    assert ceiling_psnr(grey, x) == pytest.approx([expected])
