"""What TABA says follows: interpolation and edits, on pictures and features whose distances are known."""

from __future__ import annotations

import math

import torch

from unsample.studies import taba_diversity, taba_interpolation
from unsample.studies.base import Asked, packed


def test_sharpness_is_that_of_a_known_ramp_and_of_stripes() -> None:
    ramp = (0.01 * torch.arange(10.0) + 0.02 * torch.arange(10.0)[:, None]).expand(1, 3, 10, 10)
    assert abs(float(taba_interpolation.sharpness(ramp)) - 0.015) < 1e-7
    stripes = (torch.arange(10) % 2).float().expand(1, 3, 10, 10)
    assert abs(float(taba_interpolation.sharpness(stripes)) - 0.5) < 1e-7


def test_distances_of_gaussians_are_those_in_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    other = 0.5 * torch.randn(4000, 4, generator=generator, dtype=torch.float64) + torch.tensor([1.0, 0, 0, 0])
    found = taba_interpolation.distances(other, white)
    assert abs(found["fd"] - (1 + 4 * 0.25)) < 0.1  # |m|^2 + D (1 - 1/2)^2
    assert abs(found["spread"] - 4 * 0.25) < 0.05
    assert taba_interpolation.nearest(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [9.0, 9.0]])) == [5.0]


def test_a_collapse_in_the_middle_of_the_latents_is_found_and_none_of_the_noises() -> None:
    generator = torch.Generator().manual_seed(1)
    cells = []
    for k in range(80):
        told = {}
        for origin in taba_interpolation.ORIGINS:
            for place in taba_interpolation.PLACES:
                shrunk = 0.3 if (origin, place) == ("latent", 0.5) else 1.0
                features = shrunk * torch.randn(4, generator=generator)
                told[f"{origin} {place}"] = {"features": packed(features), "sharpness": 0.1}
        cells.append({"model": "m", "item": f"i{k}", "probed": told})
    rows = list(taba_interpolation.rows(cells, Asked(models=("m",), num_samples=80)))

    def mean(value: str, origin: str, place: float) -> float:
        some = [r[value] for r in rows if r["kind"] == "set" and (r["origin"], r["place"]) == (origin, place)]
        assert len(some) == 8
        return float(sum(some)) / len(some)

    assert mean("fd", "latent", 0.5) > 1.5 * mean("fd", "noise", 0.5)
    assert abs(math.log(mean("fd", "noise", 0.5) / mean("fd", "noise", 0.0))) < 0.5
    assert mean("spread", "latent", 0.5) < 0.2 * mean("spread", "noise", 0.5)
    assert len([r for r in rows if r["kind"] == "picture"]) == 80 * 6


def test_a_change_is_found_in_the_area_that_was_changed() -> None:
    sources = torch.full((1, 3, 16, 16), 0.5)
    sources[..., 8:] = ((torch.arange(8) + torch.arange(16)[:, None]) % 2).float()  # but its last corner is plain
    pictures = sources.clone()
    pictures[..., :7] += 0.2
    found = taba_diversity.compared(pictures, sources)
    assert abs((found["change_plain"][0] or 0) - 0.2 * 112 / 113) < 1e-6
    assert found["change_textured"][0] == 0
    assert abs((found["distance"][0] or 0) - 0.2 * (7 / 16) ** 0.5) < 1e-6
    assert taba_diversity.compared(sources, sources)["ssim"] == [1.0]
