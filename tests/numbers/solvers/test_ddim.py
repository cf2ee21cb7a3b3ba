"""DDIM against the closed form of a single Gaussian: the step, the order, the two conventions, the special ends."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

import unsample
from tests.problems import (
    float64_tables,
    gaussian,
    gaussian_ddim_step,
    gaussian_grid,
    gaussian_ode,
    mixture,
    normal,
    predictor,
    rms,
    slope,
)
from unsample.errors import Incompatible
from unsample.methods import ddim
from unsample.numbers.grid import grid_from_scheduler, transfer
from unsample.numbers.solvers.ddim import ddim_invert_at_source, ddim_invert_at_target, ddim_sample
from unsample.numbers.walk import Step, walk

STEPS = (20, 50, 100, 250, 500)


def start(count: int = 5) -> torch.Tensor:
    return 0.4 + 0.5 * normal(count, 1, 1, 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_sampling_step_is_the_affine_map_of_the_closed_form(prediction: str) -> None:
    model = gaussian(scheduler=float64_tables(DDIMScheduler(clip_sample=False, prediction_type=prediction)))
    grid, x = gaussian_grid(model, 50), normal(5, 1, 1, 1)
    for i, j in [(50, 49), (25, 24), (1, 0), (50, 0)]:
        ours, _ = ddim_sample(predictor(model, grid, 5), x, grid, i, j, {})
        # rounding of x0 = (x - sigma eps) / alpha, 1 / alpha <= 160
        assert rms(ours - gaussian_ddim_step(model, x, grid, i, j)) < 1e-12


def test_sampling_converges_to_the_probability_flow_ode_with_order_one() -> None:
    model, x0, errors = gaussian(), start(), []
    for steps in STEPS:
        grid = gaussian_grid(model, steps)
        noise = gaussian_ode(model, x0, grid, 0, steps)
        x, _ = walk(ddim_sample, predictor(model, grid, 5), noise, grid, range(steps, -1, -1))
        errors.append(rms(x - x0))
    assert slope(STEPS, errors) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("step", [ddim_invert_at_target, ddim_invert_at_source])
def test_inversion_converges_to_the_probability_flow_ode_with_order_one(step: Step) -> None:
    model, x0, errors = gaussian(), start(), []
    for steps in STEPS:
        grid = gaussian_grid(model, steps)
        noise, _ = walk(step, predictor(model, grid, 5), x0, grid, range(steps + 1))
        errors.append(rms(noise - gaussian_ode(model, x0, grid, 0, steps)))
    assert slope(STEPS, errors) == pytest.approx(1, abs=0.2)


def test_target_asks_at_the_noisier_end_and_source_at_the_cleaner_one() -> None:
    asked: list[int] = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(int(t))
        return 0.1 * x

    model = unsample.wrap(network, DDIMScheduler(steps_offset=1), sample_shape=(1, 1, 1))
    listed = grid_from_scheduler(model.scheduler, 4).timesteps
    assert listed == (0, 1, 251, 501, 751)
    unsample.invert(model, latents=start(), method="ddim", num_inference_steps=4)
    assert asked == [1, 251, 501, 751]
    asked.clear()
    unsample.invert(model, latents=start(), method=ddim(eps_at="source"), num_inference_steps=4)
    assert asked == [0, 1, 251, 501]  # timestep 0 stands for the clean end
    asked.clear()
    unsample.sample(model, num_inference_steps=4, noise=start())
    assert asked == [751, 501, 251, 1]


def test_the_two_conventions_differ_and_are_what_their_equations_say() -> None:
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    model, x = mixture(prompts=False, scheduler=scheduler), 0.5 * normal(2, 3, 8, 8)
    grid = gaussian_grid(model, 20)
    predict = predictor(model, grid, 2)
    for i, j in [(0, 1), (7, 8), (19, 20)]:
        target, _ = ddim_invert_at_target(predict, x, grid, i, j, {})
        source, _ = ddim_invert_at_source(predict, x, grid, i, j, {})
        assert torch.equal(target, transfer(x, predict(x, j).eps, grid, i, j))
        assert torch.equal(source, transfer(x, predict(x, i).eps, grid, i, j))
        assert rms(target - source) > 1e-4


def test_the_convention_is_recorded() -> None:
    model = gaussian()
    for where in ("target", "source"):
        inversion = unsample.invert(model, latents=start(), method=ddim(eps_at=where), num_inference_steps=5)
        assert inversion.meta["method"] == {"name": "ddim", "settings": {"eps_at": where}}


def test_the_oracle_draws_its_own_data_from_exact_noise() -> None:
    """From x_T of N(alpha mu, s) the samples have the data's mean and variance: an end-to-end check of the signs."""
    model = gaussian(mean=0.4, variance=0.25)
    grid = gaussian_grid(model, 250)
    count = 10_000
    top = grid.alpha[250] ** 2 * 0.25 + grid.sigma[250] ** 2
    noise = grid.alpha[250] * 0.4 + top**0.5 * normal(count, 1, 1, 1)
    x, _ = walk(ddim_sample, predictor(model, grid, count), noise, grid, range(250, -1, -1))
    # standard errors 0.005 and 0.0035, and 8e-3 of discretisation at 250 steps
    assert float(x.mean()) == pytest.approx(0.4, abs=0.025)
    assert float(x.std()) == pytest.approx(0.5, abs=0.025)


# ---------------------------------------------------------------- zero terminal SNR


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_inversion_into_alpha_zero_is_the_limit_of_small_alpha(prediction: str) -> None:
    """The x0 form used at alpha = 0 continues the eps form: lower the last level of the table towards 0.

    With eps asked at the target they are different maps with one solution: there eps(x, t_N) = x whatever x is.
    """
    tables = {"timestep_spacing": "trailing", "clip_sample": False, "prediction_type": prediction}
    x = 0.4 + 0.5 * normal(3, 1, 1, 1)
    noises = []
    for last in (0.0, 1e-12, 1e-8):
        scheduler = float64_tables(DDIMScheduler(**tables, rescale_betas_zero_snr=True))
        scheduler.alphas_cumprod[-1] = last
        model = gaussian(scheduler=scheduler)
        noises.append(unsample.invert(model, latents=x, method=ddim(eps_at="source"), num_inference_steps=10).noise)
    exact, nearer, near = noises
    assert rms(nearer - exact) < 1e-5  # of the order of sqrt(1e-12)
    assert rms(near - exact) < 1e-3
    assert rms(nearer - exact) < rms(near - exact)


def test_a_single_step_from_the_clean_end_to_alpha_zero_is_refused() -> None:
    scheduler = DDIMScheduler(timestep_spacing="trailing", rescale_betas_zero_snr=True, prediction_type="v_prediction")
    with pytest.raises(Incompatible, match="use more steps"):
        unsample.invert(gaussian(scheduler=scheduler), latents=start(), num_inference_steps=1)
