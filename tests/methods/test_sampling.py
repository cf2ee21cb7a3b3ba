"""Samplers of their own from fresh noise: which methods have one, what it makes, and in which sense it comes back."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

import unsample
from tests.problems import mixture, normal, rms
from unsample.errors import Incompatible
from unsample.methods import METHODS, get_method
from unsample.models.base import Condition
from unsample.models.guidance import Predict
from unsample.numbers.grid import grid_from_scheduler
from unsample.numbers.walk import walk

OWN = ("edict", "bdia", "belm", "rex", "dpm_solver")
FLOWS = ("rf_solver", "fireflow")  # samplers of flow models: tests/methods/test_rf.py
STEPS = 20

pytestmark = pytest.mark.filterwarnings("ignore:invert. ")


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return normal(2, 3, 8, 8, seed=11)


@pytest.mark.parametrize("name", [n for n in METHODS if n not in (*OWN, *FLOWS, "ddim")])
def test_a_method_without_a_sampler_of_its_own_is_refused_with_the_reason(name: str, noise: torch.Tensor) -> None:
    reason = "played back by ddim" if get_method(name).stepwise else "it plays back what it stored of a picture"
    with pytest.raises(
        Incompatible, match=f"{name} does not sample: .*{reason}.*use edict, bdia, belm, rex, dpm_solver"
    ):
        unsample.sample(None, "left", method=name, noise=noise)  # before the model is looked at
    for more in ({"eta": 0.5},) if name in ("sdedit", "renoise") else ():
        with pytest.raises(Incompatible, match="needs more than noise to start from"):
            unsample.sample(None, "left", method=get_method(name, more), noise=noise)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("name", ["ddim", *OWN])
def test_a_sampler_makes_what_ddim_makes_in_the_limit_and_is_counted_and_recorded(
    name: str, guided: bool, noise: torch.Tensor
) -> None:
    model, pair = mixture(), 2 if guided else 1
    given: dict[str, Any] = {"noise": noise, "guidance_scale": 2.0 if guided else 1.0}
    made = unsample.sample(model, ["left", "right"], method=name, num_inference_steps=STEPS, **given)
    plain = unsample.sample(model, ["left", "right"], num_inference_steps=STEPS, **given)
    passes = {"edict": 2 * STEPS, "rex": 8 * STEPS, "belm": STEPS - 1}.get(
        name, STEPS
    )  # the first step of belm has no length
    assert made.nfe == [passes * pair] * 2
    assert made.meta["method"] == {"name": name, "settings": dict(get_method(name).settings)}
    assert made.meta["grid"]["meta"]["timestep_spacing"] == ("linspace" if name == "belm" else "leading")
    assert torch.equal(made.latents, plain.latents) == (name == "ddim")
    if not guided:  # the flow of a guided mixture is steep between its components
        fine = unsample.sample(model, ["left", "right"], num_inference_steps=500, **given).latents
        own = unsample.sample(model, ["left", "right"], method=name, num_inference_steps=100, **given).latents
        assert rms(own - fine) < 0.1  # errors of the first order over 100 steps, in a range of 2
    alone = unsample.sample(model, "right", method=name, num_inference_steps=STEPS, **given | {"noise": noise[1:]})
    assert rms(alone.latents[0] - made.latents[1]) < 1e-8  # rounding of another batch size, magnified


@pytest.mark.parametrize("name", OWN)
def test_a_picture_so_made_comes_back_by_the_same_method(name: str, noise: torch.Tensor) -> None:
    """Exactly, for the reversible ones; to another noise, since the picture is half of what sampling ends with."""
    model, given = mixture(), {"prompt": ["left", "right"], "num_inference_steps": STEPS}
    method = get_method(name, {"tol": 1e-20, "max_iters": 100} if name == "dpm_solver" else {})
    made = unsample.sample(model, method=method, noise=noise, **given)
    inversion = unsample.invert(model, latents=made.latents, method=method, **given)
    again = unsample.reconstruct(model, inversion)
    assert rms(again.latents - made.latents) < (1e-8 if method.exact else 0.1)
    assert rms(inversion.noise - noise) > 0.01


def test_dpm_solver_of_order_1_finds_the_very_noise(noise: torch.Tensor) -> None:
    model, given = mixture(), {"prompt": ["left", "right"], "num_inference_steps": STEPS}
    method = unsample.methods.dpm_solver(order=1, tol=1e-20, max_iters=400)
    made = unsample.sample(model, method=method, noise=noise, **given)
    assert rms(unsample.invert(model, latents=made.latents, method=method, **given).noise - noise) < 1e-4


@pytest.mark.parametrize("name", ["edict", "bdia", "belm", "rex"])
def test_from_all_that_a_sampling_run_ends_with_its_noise_is_found_to_rounding(name: str, noise: torch.Tensor) -> None:
    """The second latent of edict and rex, the point before the last of bdia and belm."""
    model, method = mixture(), get_method(name)
    grid = grid_from_scheduler(model.scheduler, STEPS, timestep_spacing=method.timestep_spacing)
    predict = Predict(model, grid, Condition(), None, 1.0, len(noise))
    assert method.fresh is not None
    x, state = walk(method.sample_step, predict, noise, grid, range(STEPS, -1, -1), method.fresh(noise))
    if name in ("edict", "rex"):
        back, _ = walk(method.invert_step, predict, x, grid, range(STEPS + 1), state)
    else:
        first = int(name == "belm")  # its point 1 is the picture
        start, clean = state["noisier"], {"cleaner": x}
        if first:
            below: list[torch.Tensor] = []
            walk(
                method.sample_step, predict, noise, grid, range(STEPS, 0, -1), method.fresh(noise),
                lambda k, j, x, s: (below.append(s["noisier"]), x)[1],
            )  # fmt: skip
            start, clean = below[-1], {"cleaner": x}
        back, _ = walk(method.invert_step, predict, start, grid, range(1 + first, STEPS + 1), clean)
    assert rms(back - noise) < 1e-6  # 1e-16, magnified


def test_a_sampler_is_refused_where_its_inversion_is(noise: torch.Tensor) -> None:
    with pytest.raises(Incompatible, match="a clamp cannot"):
        unsample.sample(mixture(scheduler=DDIMScheduler()), "left", method="edict", noise=noise, clip="config")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unsample.sample(mixture(), "left", method="bdia", noise=noise, num_inference_steps=3)
