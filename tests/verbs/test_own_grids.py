"""The verbs on the own grids of other schedulers than DDIM: round trip, file, and what is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest

import unsample
from tests.problems import SD_TABLE, mixture, mixture_picture, normal, rms
from unsample.errors import UnsampleWarning
from unsample.methods import dpm_solver, fixed_point
from unsample.models.base import Condition

SOLVER = diffusers.DPMSolverMultistepScheduler
BETAS = {name: value for name, value in SD_TABLE.items() if name.startswith("beta")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("scheduler", "float_timesteps"),
    [
        (diffusers.EulerDiscreteScheduler(timestep_spacing="linspace"), True),
        (diffusers.HeunDiscreteScheduler(use_karras_sigmas=True), True),
        (SOLVER(use_karras_sigmas=True, **BETAS), False),  # two of its levels have one rounded timestep
        (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), True),
        (diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"), False),
    ],
)
def test_a_picture_goes_through_noise_and_file_and_back(scheduler: Any, float_timesteps: bool, tmp_path: Path) -> None:
    model = mixture(scheduler=scheduler)
    if scheduler.config.get("invert_sigmas"):  # its closed form is of the flow that is not turned round
        model.network = lambda x, t, c, ask=model.network: -ask(x, 1000 - t, c)  # type: ignore[method-assign]
    x = mixture_picture(model).double() * 2 - 1
    found = unsample.invert(model, latents=x, prompt="left", method="fixed_point", num_inference_steps=50)
    found.save(tmp_path / "a.safetensors")
    again = unsample.reconstruct(model, tmp_path / "a.safetensors")
    assert rms(again.latents - x) < 1e-3
    timesteps = unsample.Inversion.load(tmp_path / "a.safetensors").meta.grid.timesteps
    assert any(t != int(t) for t in timesteps) is float_timesteps


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.EulerDiscreteScheduler(timestep_spacing="leading"),
        diffusers.EulerDiscreteScheduler(use_karras_sigmas=True),
        SOLVER(solver_order=1),
    ],
)
def test_a_picture_that_diffusers_made_gives_its_noise_back(scheduler: Any) -> None:
    model, noise = mixture(scheduler=scheduler, prompts=False), normal(2, 3, 8, 8)
    scheduler.set_timesteps(50)
    x = noise * float(scheduler.init_noise_sigma)
    for t in scheduler.timesteps:
        answer = model.network(scheduler.scale_model_input(x, t), float(t), Condition())
        x = scheduler.step(answer, t, x).prev_sample.double()
    found = unsample.invert(model, latents=x, method=fixed_point(60, 1e-9), num_inference_steps=50)
    level = found.meta.grid.alpha[-1] if isinstance(scheduler, diffusers.EulerDiscreteScheduler) else 1.0
    assert rms(found.noise - level * noise * float(scheduler.init_noise_sigma)) ** 2 < 1e-10


def said(scheduler: Any, method: Any) -> list[str]:
    """The warnings about its sampler, of an inversion and of sampling."""
    model = mixture(scheduler=scheduler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = unsample.sample(
            model, "left", noise=normal(1, *model.sample_shape), num_inference_steps=4, method=method
        )
        unsample.invert(model, latents=made.latents, prompt="left", num_inference_steps=4, method=method)
    told = [w.message for w in caught if isinstance(w.message, UnsampleWarning)]
    return [str(message) for message in told if message.kind == "sampler"]


def test_a_sampler_that_the_method_does_not_follow_is_warned_of() -> None:
    order_two = said(SOLVER(), "ddim")
    assert len(order_two) == 2
    assert "of order 2" in order_two[0]
    assert "dpm_solver follows it" in order_two[0]
    assert "draws noise" in said(diffusers.EulerAncestralDiscreteScheduler(), "ddim")[0]
    assert len(said(SOLVER(algorithm_type="sde-dpmsolver++"), dpm_solver(max_iters=2))) == 2
    for scheduler, method in ((SOLVER(), dpm_solver(max_iters=2)), (diffusers.EulerDiscreteScheduler(), "ddim")):
        assert said(scheduler, method) == []
