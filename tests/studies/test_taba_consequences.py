"""What TABA says follows: interpolation and edits, on pictures and features whose distances are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from unsample.studies import taba_diversity, taba_interpolation
from unsample.studies.base import Asked, packed


def test_sharpness_is_that_of_a_known_ramp_and_of_stripes() -> None:
    ramp = (0.01 * torch.arange(10.0) + 0.02 * torch.arange(10.0)[:, None]).expand(1, 3, 10, 10)
    assert abs(float(taba_interpolation.sharpness(ramp)) - 0.015) < 1e-7
    stripes = (torch.arange(10) % 2).float().expand(1, 3, 10, 10)
    assert abs(float(taba_interpolation.sharpness(stripes)) - 0.5) < 1e-7


def test_distances_of_gaussians_are_those_in_closed_form_without_the_bias_of_a_small_set() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    other = 0.5 * torch.randn(400, 4, generator=generator, dtype=torch.float64) + torch.tensor([1.0, 0, 0, 0])
    found = taba_interpolation.frechet_values(other, reference)
    assert abs(mean(found) - (1 + 4 * 0.25) / 4) < 0.05  # |m|^2 + D (1 - 1/2)^2, over D
    alike = [torch.randn(20, 4, generator=generator, dtype=torch.float64) for _ in range(20)]
    own = taba_interpolation._frechet
    raw = mean([own(each, reference) / 4 for each in alike])
    corrected = mean([mean(taba_interpolation.frechet_values(each, reference)) for each in alike])
    assert abs(corrected) < 0.25 * raw
    assert abs(mean(taba_interpolation.spreads(other)) - 4 * 0.25) < 0.1
    assert taba_interpolation.nearest(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [9.0, 9.0]])) == [5.0]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def test_a_collapse_in_the_middle_of_the_latents_is_found_and_none_of_the_noises() -> None:
    generator = torch.Generator().manual_seed(1)
    cells = []
    for k in range(80):
        told: dict[str, Any] = {"reference": packed(torch.randn(4, generator=generator))}
        for origin in taba_interpolation.ORIGINS:
            for place in taba_interpolation.PLACES:
                shrunk = 0.3 if (origin, place) == ("latent", 0.5) else 1.0
                features = shrunk * torch.randn(4, generator=generator)
                told[f"{origin} {place}"] = {"features": packed(features), "sharpness": 0.1}
        cells.append({"model": "m", "item": f"i{k}", "probed": told})
    rows = list(taba_interpolation.rows(cells, Asked(models=("m",), num_samples=80)))
    assert len(rows) == 80 * 6

    def of(value: str, origin: str, place: float) -> float:
        return mean([r[value] for r in rows if (r["origin"], r["place"]) == (origin, place)])

    assert of("fd", "latent", 0.5) > 0.35  # (1 - .3)^2
    assert max(abs(of("fd", "noise", place)) for place in (0.0, 0.25, 0.5)) < 0.1
    assert of("spread", "latent", 0.5) < 0.15 * of("spread", "noise", 0.5)


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
