"""Angles, distances and nearest neighbours against other computations, where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from unsample.studies.geometry import angles, assigned, distance, most_probable, nearest, splits, toward, turn


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_angles_are_those_of_the_law_of_cosines() -> None:
    noise, sample, latent = (drawn(5, 3, 4, 4, seed=k) for k in range(3))
    found = angles(noise, sample, latent)
    sides = [distance(sample, latent), distance(latent, noise), distance(noise, sample)]  # opposite to each vertex
    for k in range(3):
        a, b, c = sides[k], sides[k - 1], sides[k - 2]
        assert torch.allclose(found[:, k], torch.rad2deg(torch.acos((b**2 + c**2 - a**2) / (2 * b * c))))
    assert torch.allclose(found.sum(1), torch.full((5,), 180.0, dtype=torch.float64))


def test_a_latent_on_the_way_has_a_straight_angle_and_one_that_is_the_noise_none() -> None:
    noise, sample = drawn(2, 8), drawn(2, 8, seed=1)
    flat = angles(noise, sample, 0.75 * noise + 0.25 * sample)
    assert torch.allclose(flat, torch.tensor([0.0, 0.0, 180.0], dtype=torch.float64), atol=1e-4)
    assert bool(angles(noise, sample, noise).isnan().any())


def test_the_most_probable_triangle_is_the_planted_one() -> None:
    spread = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6 - 3
    planted = torch.stack([44.2 + spread[:, 0] ** 3 / 9, 77.3 + spread[:, 1] ** 3 / 9], 1)
    found = torch.cat([planted, 180 - planted.sum(1, keepdim=True)], 1)
    assert most_probable(found, centred=True) == (44, 77, 59)
    paper = most_probable(found)
    assert paper is not None
    assert sum(paper) == 180
    brute = {}  # as the paper says it, one triple after the other
    bins = found.floor().int().tolist()
    for a in range(40, 50):
        for b in range(70, 85):
            counts = [sum(row[k] == angle for row in bins) for k, angle in enumerate((a, b, 180 - a - b))]
            brute[a, b] = math.prod(counts)
    assert paper[:2] == max(brute, key=lambda pair: brute[pair])


def test_no_triangle_is_likely_where_none_has_a_picture_in_each_bin() -> None:
    assert most_probable(torch.tensor([[60.9, 60.9, 58.2]])) is None  # its floors sum to 178
    assert most_probable(torch.tensor([[60.9, 60.9, 58.2]]), centred=True) == (61, 61, 58)


def test_nearest_neighbours_both_ways_and_an_attractor() -> None:
    among = torch.stack([torch.full((2, 2), float(k)) for k in range(5)])
    asked = among[[3, 0, 4]] + 0.2
    assert nearest(asked, among) == [3, 0, 4]
    noise = drawn(64, 192)
    pictures = noise * 0.5 + 1
    pictures[7] = 0  # plain: the nearest to every noise
    assert assigned(noise, pictures) < 0.1
    assert assigned(pictures, noise) > 0.9
    brute = [min(range(64), key=lambda j: float((pictures[k] - noise[j]).square().sum())) for k in range(64)]
    assert nearest(pictures, noise) == brute


def test_a_straight_trajectory_turns_where_it_passes_the_middle() -> None:
    noise, latent = torch.zeros(1, 6), torch.ones(1, 6)
    points = torch.stack([noise + k / 10 * (latent - noise) for k in range(11)])
    found = toward(points, noise, latent, (0.0, 0.5, 1.0))
    assert found.shape == (11, 1, 3)
    for k in range(11):
        expected = torch.tensor([k, abs(k - 5), 10 - k]) / 10 * math.sqrt(6)
        assert torch.allclose(found[k, 0], expected.double(), atol=1e-6)
    assert turn(found[:, 0, 0].tolist(), found[:, 0, 2].tolist()) == 0.6


@pytest.mark.parametrize(("noise", "latent", "where"), [([0, 1, 2], [1, 2, 3], 1.0), ([2, 2], [1, 1], 0.0)])
def test_a_trajectory_that_never_turns(noise: list[float], latent: list[float], where: float) -> None:
    assert turn(noise, latent) == where


def test_splits_are_disjoint_and_not_too_small() -> None:
    found = splits(70, 16)
    assert len(found) == 4
    assert sorted(k for split in found for k in split) == [*range(70)]
    assert min(map(len, found)) >= 16
    assert splits(4, 16) == [[0, 1, 2, 3]]
    assert len(splits(1000, 16)) == 8
