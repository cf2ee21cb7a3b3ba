"""SDEdit and random noise: what they draw, that they ask the network nothing, and that the floor is a floor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

import unsample
from tests.problems import float64_tables, gaussian, gaussian_grid, mixture, mixture_picture, normal, rms
from unsample.errors import BadOption
from unsample.methods import random_noise, sdedit
from unsample.numbers.draws import draw_noise


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def test_sdedit_is_the_noised_picture_at_its_strength() -> None:
    model, x0 = mixture(prompts=False), normal(2, 3, 8, 8)
    for strength, stop in ((None, 16), (0.5, 10), (1.0, 20)):
        inversion = unsample.invert(
            model, latents=x0, method="sdedit", num_inference_steps=20, strength=strength, generator=generators(1, 2)
        )
        grid, n = gaussian_grid(model, 20), draw_noise(generators(1, 2), (3, 8, 8)).double()
        assert rms(inversion.noise - (grid.alpha[stop] * x0 + grid.sigma[stop] * n)) < 1e-15
        assert inversion.nfe == [0, 0]
        assert inversion.state == {}
        assert unsample.reconstruct(model, inversion).nfe == [stop, stop]


def test_random_noise_knows_nothing_of_the_picture() -> None:
    model = mixture(prompts=False)
    a, b = (
        unsample.invert(
            model, latents=normal(2, 3, 8, 8, seed=s), method="random_noise", num_inference_steps=5,
            generator=generators(1, 2),
        )
        for s in (3, 4)
    )  # fmt: skip
    assert torch.equal(a.noise, b.noise)
    assert torch.equal(a.noise, draw_noise(generators(1, 2), (3, 8, 8)).double())
    assert a.nfe == [0, 0]
    by_content = unsample.invert(model, latents=normal(2, 3, 8, 8), method=random_noise(), num_inference_steps=5)
    assert rms(by_content.noise[0] - by_content.noise[1]) > 1  # no two pictures share a noise


def test_the_less_noise_the_nearer_the_picture_and_random_noise_is_the_floor() -> None:
    model = mixture(prompts=False, scheduler=float64_tables(DDIMScheduler(clip_sample=False)))
    x0 = torch.cat([mixture_picture(model, k, k) for k in range(6)]).double() * 2 - 1

    def error(method: str, **more: Any) -> float:
        inversion = unsample.invert(model, latents=x0, method=method, num_inference_steps=20, **more)
        return rms(unsample.reconstruct(model, inversion).latents - x0)

    errors = [error("sdedit", strength=s) for s in (0.1, 0.3, 0.6)]
    assert errors[0] < errors[1] < errors[2] < error("random_noise")


def test_ancestral_sdedit_draws_from_the_model() -> None:
    """From pure noise, eta = 1 gives the mean and the variance of the data; its noises are seeded and kept."""
    model = gaussian(mean=0.4, variance=0.25, shape=(1, 100, 100))
    x0 = torch.zeros(1, 1, 100, 100).double()
    inversion = unsample.invert(model, latents=x0, method=sdedit(eta=1.0), num_inference_steps=250, strength=1.0)
    assert inversion.state["noise_maps"].shape == (1, 250, 1, 100, 100)
    assert inversion.state["noise_maps"][:, 0].abs().max() == 0  # the last step adds none
    one, two = (unsample.reconstruct(model, inversion).latents for _ in range(2))
    assert torch.equal(one, two)
    # standard errors .005 and .0035 of 10,000 pixels; DDPM's small variance makes the spread 2 % too small at 250 steps
    assert float(one.mean()) == pytest.approx(0.4, abs=0.02)
    assert float(one.std()) == pytest.approx(0.5, abs=0.025)
    plain = unsample.invert(model, latents=x0, method=sdedit(), num_inference_steps=250, strength=1.0)
    assert torch.equal(plain.noise, inversion.noise)
    assert rms(unsample.reconstruct(model, plain).latents - one) > 0.1


def test_eta_out_of_range_is_refused() -> None:
    for eta in (-0.1, 1.1, "1", True):
        with pytest.raises(BadOption, match="sdedit: eta must be a finite number from 0 to 1"):
            sdedit(eta=eta)  # type: ignore[arg-type]
