"""Statistics of noises and latents against other computations, where the answer is known."""

from __future__ import annotations

import numpy as np
import torch

from unsample.studies.taba_correlation import top20
from unsample.studies.taba_variance import spread


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_numpy(points: torch.Tensor) -> float:
    """The paper's way: standardised over pictures, all correlations of each patch, the 20 largest."""
    found = []
    for top in range(0, points.shape[2], 8):
        for left in range(0, points.shape[3], 8):
            patch = points[:, :, top : top + 8, left : left + 8].flatten(1).numpy().astype(np.float64)
            upper = np.corrcoef(patch.T)[np.triu_indices(patch.shape[1], 1)]
            found.append(np.sort(np.abs(upper))[-20:].mean())
    return float(np.mean(found))


def test_a_planted_correlation_is_found_and_in_white_noise_none() -> None:
    white = drawn(256, 1, 16, 16)
    found = top20(white)
    assert abs(found["top20"] - by_numpy(white)) < 1e-9
    assert 0.95 < found["over_floor"] < 1.05
    planted = white.clone()
    planted[:, :, :, 1::2] = 0.6 * white[:, :, :, ::2] + 0.8 * white[:, :, :, 1::2]  # neighbours at r = .6
    found = top20(planted)
    assert abs(found["top20"] - by_numpy(planted)) < 1e-9
    assert 0.6 < found["top20"] < 0.7
    assert found["over_floor"] > 2


def test_few_pictures_have_no_correlation() -> None:
    assert top20(drawn(2, 1, 16, 16))["top20"] is None


def test_the_variance_is_about_the_pictures_own_mean() -> None:
    points = 3 * drawn(4, 2, 8, 8) + 5
    expected = [float(np.var(one.numpy().astype(np.float64), ddof=1)) for one in points]
    assert np.allclose(spread(points).numpy(), expected)
