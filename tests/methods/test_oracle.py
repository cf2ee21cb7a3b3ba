"""The oracle: what was recorded comes back, and with it the true noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

import unsample
from tests.problems import SD_TABLE, float64_tables, gaussian_grid, mixture, normal, predictor, rms
from unsample.errors import BadInput, BadOption, Incompatible
from unsample.methods import Walked, fixed_point, oracle
from unsample.numbers.solvers.stochastic import joining

TABLES: dict[str, dict[str, Any]] = {
    "linear": {},
    "sd": {**SD_TABLE, "set_alpha_to_one": False, "steps_offset": 1},
    "a step of no length": {"set_alpha_to_one": False},  # timestep 0 is at the level of the clean end
    "zero-snr": {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
}
QUIET = pytest.mark.filterwarnings("ignore:invert. .* did not converge")


def sampled(table: str = "linear", steps: int = 10) -> tuple[Any, Any]:
    """A model, and two pictures that it made of known noise."""
    model = mixture(scheduler=float64_tables(DDIMScheduler(**({"clip_sample": False} | TABLES[table]))))
    noise = normal(2, 3, 8, 8, seed=11)
    return model, unsample.sample(model, noise=noise, num_inference_steps=steps, keep_trajectory=True)


@pytest.mark.parametrize("replace", ["eps", "x"])
@pytest.mark.parametrize("table", TABLES)
def test_with_every_step_replaced_the_true_noise_comes_back(table: str, replace: Any) -> None:
    model, made = sampled(table)
    given = {"latents": made.latents, "num_inference_steps": 10}
    found = unsample.invert(model, method=oracle(num_steps=10, replace=replace), trajectory=made.trajectory, **given)
    assert rms(found.noise - made.noise) < 1e-9
    assert found.nfe == [0, 0]
    if table != "zero-snr":
        assert rms(unsample.invert(model, **given).noise - made.noise) > 1e-2  # which DDIM does not find


@pytest.mark.parametrize("table", [t for t in TABLES if t != "a step of no length"])
def test_the_recorded_prediction_is_the_one_that_was_made(table: str) -> None:
    model, made = sampled(table)
    grid, points = gaussian_grid(model, 10), made.trajectory.flip(0)
    for i, j in [(0, 1), (4, 5), (9, 10)]:
        predict = predictor(model, grid, 2)
        predict.condition = unsample.verbs.inputs.Prompts(None, None, None, None, None).conditions(model, 2, 1.0)[0]
        asked, read = predict(points[j], j), joining(points[i], points[j], grid, i, j)
        assert rms(read.eps - asked.eps) < 1e-8
        assert rms(read.x0 - asked.x0) < 1e-8


@QUIET
@pytest.mark.parametrize("replace", ["eps", "x"])
@pytest.mark.parametrize("base", ["ddim", fixed_point(3)])
def test_the_steps_after_it_are_those_of_the_base_from_the_recorded_point(replace: Any, base: Any) -> None:
    model, made = sampled()
    method = oracle(base=base, num_steps=4, replace=replace)
    found = unsample.invert(
        model,
        latents=made.latents,
        method=method,
        trajectory=made.trajectory,
        num_inference_steps=10,
        keep_trajectory=True,
    )
    points = made.trajectory.flip(0)
    assert all(rms(found.trajectory[j] - points[j]) < 1e-10 for j in range(5))
    assert rms(found.trajectory[5] - points[5]) > 1e-6
    assert found.nfe == [method.passes(Walked(10))] * 2 == [(1 if base == "ddim" else 3) * 6] * 2


def test_the_two_replacements_differ_where_the_picture_was_rounded() -> None:
    """The eps carries the picture that was given; the latent undoes its rounding."""
    model, made = sampled()
    given = {"trajectory": made.trajectory, "num_inference_steps": 10}
    rounded = made.latents + 0.01 * normal(2, 3, 8, 8, seed=5)
    by_x = unsample.invert(model, latents=rounded, method=oracle(num_steps=10, replace="x"), **given)
    by_eps = unsample.invert(model, latents=rounded, method=oracle(num_steps=10), **given)
    grid = gaussian_grid(model, 10)
    assert rms(by_x.noise - made.noise) < 1e-12
    assert rms(by_eps.noise - made.noise - grid.alpha[10] * (rounded - made.latents)) < 1e-10


def test_the_first_steps_alone_lower_the_error_of_the_noise() -> None:
    model, made = sampled(steps=50)
    given = {"latents": made.latents, "num_inference_steps": 50, "trajectory": made.trajectory}
    errors = [rms(unsample.invert(model, method=m, **given).noise - made.noise) for m in ("ddim", oracle(num_steps=5))]
    assert errors[1] < errors[0]


def test_a_walk_of_part_of_the_grid_uses_the_clean_part_of_the_record() -> None:
    model, made = sampled()
    found = unsample.invert(
        model,
        latents=made.latents,
        method=oracle(num_steps=10),
        trajectory=made.trajectory,
        num_inference_steps=10,
        strength=0.5,
    )
    assert rms(found.noise - made.trajectory.flip(0)[5]) < 1e-10


def test_it_refuses_to_run_without_a_recorded_trajectory() -> None:
    model, made = sampled()
    with pytest.raises(BadOption, match="needs the recorded sampling run"):
        unsample.invert(model, latents=made.latents, method="oracle", num_inference_steps=10)
    with pytest.raises(BadInput, match="trajectory must be"):
        unsample.invert(
            model, latents=made.latents, method="oracle", num_inference_steps=10, trajectory=torch.zeros(3, 2, 3, 8, 8)
        )


@pytest.mark.parametrize("settings", [{"num_steps": 0}, {"replace": "noise"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="oracle"):
        oracle(**settings)


def test_two_methods_that_both_say_what_the_first_steps_are_do_not_compose() -> None:
    for base in ("oracle", "forward_first", {"name": "easyinv", "settings": {"base": "forward_first"}}):
        with pytest.raises(Incompatible, match="the first steps"):
            oracle(base=base)
