"""Edit-friendly noise maps: against DDPM's own posterior and diffusers' step, and exact by construction."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import float64_tables, gaussian, gaussian_grid, mixture, mixture_picture, normal, predictor, rms
from unsample.errors import BadOption, Incompatible
from unsample.methods import Walked, edit_friendly
from unsample.numbers.draws import draw_noise
from unsample.numbers.grid import grid_from_scheduler
from unsample.numbers.solvers.ddpm_maps import ddpm_mean


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def test_the_maps_are_what_the_posterior_of_ddpm_lacks() -> None:
    """On a Gaussian everything is known: E[x0 | x] and, by Eq. 7 of DDPM, the mean and variance of x_(t-1)."""
    model, steps = gaussian(shape=(1, 4, 4)), 10
    grid, x0 = gaussian_grid(model, steps), 0.4 + 0.5 * normal(1, 1, 4, 4)
    inversion = unsample.invert(
        model, latents=x0, method=edit_friendly(skip=0), sampling_guidance_scale=1, num_inference_steps=steps,
        generator=generators(7),
    )  # fmt: skip
    noise = draw_noise(generators(7), (steps, 1, 4, 4)).double()[0]
    x = [x0[0]] + [grid.alpha[t] * x0[0] + grid.sigma[t] * noise[t - 1] for t in range(1, steps + 1)]
    assert rms(inversion.noise[0] - x[steps]) < 1e-14
    for t in range(steps, 1, -1):
        abar, before = grid.alpha[t] ** 2, grid.alpha[t - 1] ** 2
        beta = 1 - abar / before
        pred_x0 = 0.4 + grid.alpha[t] * 0.25 / (abar * 0.25 + 1 - abar) * (x[t] - grid.alpha[t] * 0.4)
        mean = math.sqrt(before) * beta * pred_x0 + math.sqrt(abar / before) * (1 - before) * x[t]
        variance = (1 - before) / (1 - abar) * beta
        wanted = (x[t - 1] - mean / (1 - abar)) / math.sqrt(variance)
        assert rms(inversion.state["noise_maps"][0, t - 1] - wanted) < 1e-6  # the model's mean is a float32 0.4


@pytest.mark.parametrize("eta", [1.0, 0.6])
def test_diffusers_plays_the_maps_back(eta: float) -> None:
    """`DDIMScheduler.step` with our maps as its noise ends in the picture, but for the offset of the last step."""
    scheduler = float64_tables(DDIMScheduler(clip_sample=False))
    model = mixture(prompts=False, scheduler=scheduler)
    x0 = mixture_picture(model).double() * 2 - 1
    inversion = unsample.invert(
        model, latents=x0, method=edit_friendly(eta=eta), sampling_guidance_scale=1, num_inference_steps=50
    )
    assert inversion.meta["stop_index"] == 32
    scheduler.set_timesteps(50)
    x, maps = inversion.noise, inversion.state["noise_maps"]
    predict = predictor(model, grid_from_scheduler(scheduler, 50))
    for j, t in zip(range(31, -1, -1), scheduler.timesteps[-32:], strict=True):
        eps = predict(x, j + 1).eps
        # in float64: the scheduler's own noise must be of the model's dtype
        x = scheduler.step(eps, t, x, eta=eta, variance_noise=maps[:, j]).prev_sample
    assert rms(x + maps[:, 0] - x0) < 1e-9


def test_reconstruction_is_exact_and_the_authors_variant_lacks_the_last_step() -> None:
    model = mixture()
    x0 = torch.cat([mixture_picture(model, k) for k in (0, 4)]).double() * 2 - 1
    given: dict[str, Any] = {"latents": x0, "prompt": ["left", "right"], "num_inference_steps": 50}
    ours = unsample.invert(model, method=edit_friendly(), **given)
    theirs = unsample.invert(model, method=edit_friendly(zero_last=True), **given)
    assert rms(unsample.reconstruct(model, ours).latents - x0) < 1e-15
    assert theirs.state["noise_maps"][:, 0].abs().max() == 0
    assert torch.equal(ours.state["noise_maps"][:, 1:], theirs.state["noise_maps"][:, 1:])
    lacking = x0 - unsample.reconstruct(model, theirs).latents
    assert rms(lacking) > 1e-3
    assert rms(lacking - ours.state["noise_maps"][:, 0]) < 1e-15
    assert edit_friendly().exact
    assert not edit_friendly(zero_last=True).exact


def test_the_forward_noises_are_independent_from_step_to_step_and_from_picture_to_picture() -> None:
    model = gaussian(shape=(1, 40, 40))
    grid = gaussian_grid(model, 10)
    x0 = normal(2, 1, 40, 40)
    inversion = unsample.invert(
        model, latents=x0, method=edit_friendly(skip=0), sampling_guidance_scale=1, num_inference_steps=10,
        keep_trajectory=True,
    )  # fmt: skip
    assert inversion.trajectory is not None
    draws = [(inversion.trajectory[j] - grid.alpha[j] * x0) / grid.sigma[j] for j in range(1, 11)]
    rows = torch.stack(draws).reshape(20, -1)
    off = torch.corrcoef(rows) - torch.eye(20)
    assert off.abs().max() < 0.12  # 1,600 numbers each: 4.8 standard errors of .025
    assert rows.std(1).sub(1).abs().max() < 0.09


def test_the_maps_hold_more_than_white_noise() -> None:
    """Independent noises make neighbouring maps anti-correlated, and larger than 1 (Fig. 4 of the paper)."""
    model = gaussian(shape=(1, 40, 40))
    inversion = unsample.invert(
        model, latents=0.4 + 0.5 * normal(1, 1, 40, 40), method=edit_friendly(skip=0), sampling_guidance_scale=1,
        num_inference_steps=20,
    )  # fmt: skip
    maps = inversion.state["noise_maps"][0, 1:].flatten(1)
    assert (maps.std(1) > 1.0).all()
    neighbours = torch.corrcoef(maps).diagonal(1)
    assert (neighbours < -0.1).all()


def test_mu_takes_eta_squared() -> None:
    """sqrt(sigma_j^2 - s^2) with s = eta s_1, so that the noise of a step is sigma_j^2 in all, at any eta."""
    grid = grid_from_scheduler(DDIMScheduler(), 10)

    def predict(x: Tensor, i: int) -> Any:
        from unsample.numbers.prediction import Prediction

        return Prediction(torch.zeros_like(x), torch.ones_like(x))

    for eta in (0.0, 0.3, 1.0):
        mean, std = ddpm_mean(predict, torch.zeros(1, 1, 1, 1).double(), grid, 6, 5, eta)
        assert float(mean) ** 2 + std**2 == pytest.approx(grid.sigma[5] ** 2)
    # eta = 0 is DDIM
    assert float(ddpm_mean(predict, torch.zeros(1, 1, 1, 1).double(), grid, 6, 5, 0.0)[0]) == grid.sigma[5]


def test_a_noisiest_point_with_alpha_zero_is_no_special_case() -> None:
    zero = DDIMScheduler(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False
    )
    model = mixture(prompts=False, scheduler=float64_tables(zero))
    x0 = mixture_picture(model).double() * 2 - 1
    inversion = unsample.invert(
        model, latents=x0, method=edit_friendly(skip=0), sampling_guidance_scale=1, num_inference_steps=10
    )
    assert inversion.meta["grid"]["alpha"][-1] == 0
    assert rms(unsample.reconstruct(model, inversion).latents - x0) < 1e-15


def test_skip_is_a_part_of_the_steps_and_strength_goes_before_it() -> None:
    model = gaussian()
    x0 = normal(1, 1, 1, 1)
    for skip, steps, stop in ((0.36, 100, 64), (0.12, 100, 88), (0.36, 50, 32), (0.0, 7, 7)):
        method = edit_friendly(skip=skip)
        inversion = unsample.invert(
            model, latents=x0, method=method, sampling_guidance_scale=1, num_inference_steps=steps
        )
        assert inversion.meta["stop_index"] == stop
        assert inversion.nfe == [method.passes(Walked(stop))] == [stop]
        assert inversion.state["noise_maps"].shape == (1, stop, 1, 1, 1)
    half = unsample.invert(
        model, latents=x0, method="edit_friendly", sampling_guidance_scale=1, num_inference_steps=10, strength=0.5
    )
    assert half.meta["stop_index"] == 5


def test_the_guidance_is_the_authors_and_the_record_is_bound_to_it() -> None:
    model = mixture()
    x0 = mixture_picture(model).double() * 2 - 1
    inversion = unsample.invert(model, latents=x0, prompt="left", method="edit_friendly", num_inference_steps=10)
    assert inversion.meta["sampling_guidance_scale"] == 3.5
    assert inversion.nfe == [12]  # six steps of a guided pair
    assert unsample.edit(model, inversion, "right").meta["guidance_scale"] == 15
    with pytest.raises(Incompatible, match="fitted under guidance"):
        unsample.reconstruct(model, inversion, guidance_scale=1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"eta": 0}, "eta must be above 0"),
        ({"eta": 1.5}, "eta must be a finite number from 0 to 1"),
        ({"skip": 1}, "skip must be below 1"),
        ({"skip": 36}, "skip must be a finite number from 0 to 1"),
        ({"zero_last": 1}, "zero_last must be true or false"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=f"edit_friendly: {said}"):
        edit_friendly(**settings)
