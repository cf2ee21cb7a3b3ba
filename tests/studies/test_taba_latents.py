"""Statistics of noises and latents against other computations, where the answer is known."""

from __future__ import annotations

import numpy as np
import torch

from unsample.studies.base import Asked
from unsample.studies.points import by_size, steps_of
from unsample.studies.taba_assignment import attractor, cosine
from unsample.studies.taba_correlation import top20
from unsample.studies.taba_latents import Axes, likeness, share, without
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


def test_a_difference_that_follows_the_picture_is_told_from_noise() -> None:
    sample, noise = drawn(6, 3, 16, 16), drawn(6, 3, 16, 16, seed=1)
    found = likeness(noise - 0.5 * sample, sample)
    for k in range(6):
        expected = np.corrcoef((noise - 0.5 * sample)[k].flatten().numpy(), sample[k].flatten().numpy())[0, 1]
        assert abs(float(found[k]) - abs(expected)) < 1e-6
    assert float(found.min()) > 0.35
    assert float(likeness(noise, sample).max()) < 0.15  # 5 standard errors of 768 numbers


def test_the_principal_axes_are_the_planted_ones() -> None:
    directions = torch.linalg.qr(drawn(4, 4, seed=2)).Q
    values = drawn(4, 32, 32) * torch.tensor([8.0, 4.0, 2.0, 0.1])[:, None, None]
    points = torch.einsum("kc,khw->chw", directions, values)
    seen = Axes(points)(points)
    for k in range(3):
        assert abs(np.corrcoef(seen[k].flatten().numpy(), values[k].flatten().numpy())[0, 1]) > 0.99
    grey = drawn(1, 4, 4)
    assert torch.equal(Axes(grey)(grey), grey.expand(3, 4, 4))


def test_the_attractor_is_the_plain_picture() -> None:
    noise = drawn(32, 192)
    pictures = 2 * drawn(32, 192, seed=1)
    pictures[5] = 0.01
    found = attractor(noise, pictures)
    norms = pictures.numpy().astype(np.float64)
    spread = np.linalg.norm(norms, axis=1).std() / np.linalg.norm(norms, axis=1).mean()
    assert abs(found.pop("norm_spread") - spread) < 1e-9
    assert found == {"attractor": 1.0, "variance_rank": 0.0, "norm_rank": 0.0}


def test_steps_are_multiples_of_what_is_asked_and_none_twice() -> None:
    asked = Asked(models=("mini-a", "scenes-sd"), num_samples=4, steps=50)
    assert steps_of(asked, (0.2, 1.0, 2.0, 20.0)) == {0.2: 10, 1.0: 50, 2.0: 100, 20.0: 1000}
    assert steps_of(Asked(models=(), num_samples=1, steps=1), (0.2, 1.0, 2.0)) == {1.0: 1, 2.0: 2}
    assert [(part.models, part.num_samples) for part in by_size(asked, 3)] == [(("scenes-sd",), 4), (("mini-a",), 12)]


def test_what_a_latent_has_kept_of_its_noise_is_taken_away() -> None:
    noise, smooth = drawn(3, 2, 16, 16), torch.linspace(-1, 1, 16).expand(3, 2, 16, 16)
    latent = 0.3 * noise + smooth
    expected = [
        np.linalg.lstsq(n.reshape(-1, 1), x, rcond=None)[0][0]
        for n, x in zip(noise.flatten(1).double().numpy(), latent.flatten(1).double().numpy(), strict=True)
    ]
    assert np.allclose(share(latent, noise).numpy(), expected)
    left = without(latent, noise)
    assert float((left.flatten(1) * noise.flatten(1)).sum(1).abs().max()) < 1e-6
    assert float(likeness(left, smooth).min()) > 0.99
    assert float(likeness(latent - noise, smooth).max()) < 0.75


def test_the_cosine_is_that_of_own_pairs() -> None:
    noise = drawn(5, 3, 8, 8)
    assert abs(cosine(noise, 2 * noise) - 1) < 1e-9
    assert abs(cosine(noise, -noise) + 1) < 1e-9
    one, two = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0]]]])
    assert abs(cosine(one, two) - 0.5**0.5) < 1e-9
