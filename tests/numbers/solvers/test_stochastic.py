"""The stochastic step pair against diffusers' own schedulers, and against itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from tests.problems import SD_TABLE, float64_tables, gaussian, gaussian_grid, normal, predictor, rms
from unsample.errors import Incompatible
from unsample.numbers.grid import Grid
from unsample.numbers.prediction import Prediction
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.solvers.stochastic import descended, needed_noise, noisy_carry, noisy_sample, shares

TABLES = {"one": {"clip_sample": False}, "sd": {**SD_TABLE, "set_alpha_to_one": False, "steps_offset": 1}}
EVERY_ETA = pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])


def model_of(table: str, **more: Any) -> Any:
    return gaussian(shape=(1, 4, 4), scheduler=float64_tables(DDIMScheduler(**TABLES[table], **more)))


@EVERY_ETA
@pytest.mark.parametrize("table", TABLES)
def test_the_step_is_diffusers_ddim_step_with_eta_and_variance_noise(table: str, eta: float) -> None:
    model = model_of(table)
    grid, x, noises = gaussian_grid(model, 10), normal(2, 1, 4, 4), normal(2, 10, 1, 4, 4, seed=3)
    predict = predictor(model, grid, 2)
    scheduler = model.scheduler
    scheduler.set_timesteps(10)
    for i in (10, 5, 1):
        ours, _ = noisy_sample(eta)(predict, x, grid, i, i - 1, {"noises": noises * (i > 1)})
        theirs = scheduler.step(
            predict(x, i).eps, grid.timesteps[i], x, eta=eta, variance_noise=noises[:, i - 1] * (i > 1)
        ).prev_sample
        assert rms(ours - theirs) < 1e-12


def test_eta_one_is_ancestral_euler_in_the_frame_of_x_over_alpha() -> None:
    """sigma_up^2 = to^2 (from^2 - to^2) / from^2, sigma_down^2 = to^2 - sigma_up^2, x + (down - from) eps + up n."""
    model = model_of("sd")
    grid, x, noises = gaussian_grid(model, 10), normal(2, 1, 4, 4), normal(2, 10, 1, 4, 4, seed=3)
    p = predictor(model, grid, 2)(x, 6)
    ours, _ = noisy_sample(1.0)(lambda x, i: p, x, grid, 6, 5, {"noises": noises})
    high, low = (grid.sigma[k] / grid.alpha[k] for k in (6, 5))
    up = (low**2 * (high**2 - low**2) / high**2) ** 0.5
    down = (low**2 - up**2) ** 0.5
    by_hand = x / grid.alpha[6] + (down - high) * p.eps + up * noises[:, 5]
    assert rms(ours / grid.alpha[5] - by_hand) < 1e-12


def test_eta_one_is_diffusers_ancestral_euler_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = EulerAncestralDiscreteScheduler(**{k: v for k, v in SD_TABLE.items() if k != "clip_sample"})
    scheduler.set_timesteps(4)
    sigmas = scheduler.sigmas.double().tolist()[::-1]  # clean first
    grid = Grid((1.0,) * 5, tuple(sigmas), (0, 1, 2, 3, 4), (1.0,) * 5, tuple(sigmas))
    x, eps, noise = (normal(1, 1, 4, 4, seed=k, dtype=torch.float32) for k in range(3))
    name = "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor"
    monkeypatch.setattr(name, lambda shape, **_: noise)
    for k in range(4):
        scheduler.scale_model_input(x, scheduler.timesteps[k])
        theirs = scheduler.step(eps, scheduler.timesteps[k], x).prev_sample
        p = Prediction(x - sigmas[4 - k] * eps, eps)
        fresh = torch.zeros(1, 4, 1, 4, 4) if k == 3 else noise[:, None].expand(1, 4, 1, 4, 4)
        ours, _ = noisy_sample(1.0)(lambda x, i, p=p: p, x, grid, 4 - k, 3 - k, {"noises": fresh})
        assert rms(ours - theirs) < 1e-5  # float32, at sigma = 14


@EVERY_ETA
@pytest.mark.parametrize("table", TABLES)
def test_the_inversion_at_a_known_noise_undoes_the_step(table: str, eta: float) -> None:
    model = model_of(table)
    grid, x, noises = gaussian_grid(model, 10), normal(2, 1, 4, 4), normal(2, 10, 1, 4, 4, seed=3)
    predict = predictor(model, grid, 2)
    for i in (10, 5, 2):
        cleaner, _ = noisy_sample(eta)(predict, x, grid, i, i - 1, {"noises": noises})
        p = predict(x, i)
        assert rms(noisy_carry(cleaner, p, grid, i - 1, i, eta, noises[:, i - 1]) - x) < 1e-10
        if eta > 0:
            assert rms(needed_noise(p, cleaner, grid, i - 1, i, eta) - noises[:, i - 1]) < 1e-10


def test_without_eta_the_step_is_ddim() -> None:
    model = model_of("sd")
    grid, x = gaussian_grid(model, 10), normal(2, 1, 4, 4)
    predict = predictor(model, grid, 2)
    ours, _ = noisy_sample(0.0)(predict, x, grid, 5, 4, {"noises": torch.zeros(2, 10, 1, 4, 4)})
    assert rms(ours - ddim_sample(predict, x, grid, 5, 4, {})[0]) < 1e-15
    assert shares(grid, 4, 5, 0.0) == (0.0, grid.sigma[4])


def test_into_alpha_zero_the_x0_form_is_used_and_eta_one_is_refused() -> None:
    model = model_of("one", prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    grid, x, noise = gaussian_grid(model, 10), normal(2, 1, 4, 4), normal(2, 1, 4, 4, seed=3)
    p = predictor(model, grid, 2)(x, 10)
    assert grid.alpha[10] == 0
    cleaner, _ = noisy_sample(0.5)(lambda x, i: p, x, grid, 10, 9, {"noises": noise[:, None].expand(2, 10, 1, 4, 4)})
    assert rms(noisy_carry(cleaner, p, grid, 9, 10, 0.5, noise) - x) < 1e-12
    with pytest.raises(Incompatible, match="use eta below 1"):
        noisy_carry(cleaner, p, grid, 9, 10, 1.0, noise)


def test_each_gradient_step_of_a_correction_goes_its_rate_in_the_norm_of_the_noise() -> None:
    noise, needed = normal(2, 1, 8, 8), normal(2, 1, 8, 8, seed=4)
    needed[1] = noise[1]  # nothing to correct: no nan
    leaf = noise[:1].clone().requires_grad_(True)
    torch.norm(leaf - needed[:1]).backward()
    assert leaf.grad is not None
    once = descended(noise, needed, 1, 1.8)
    assert rms(once[:1] - (noise[:1] - 1.8 * leaf.grad)) < 1e-14
    far = lambda n: float((n - needed)[0].norm())  # noqa: E731
    assert far(descended(noise, needed, 3, 1.8)) == pytest.approx(far(noise) - 5.4)
    assert torch.equal(descended(noise, needed, 10, 1.8)[1], noise[1])
