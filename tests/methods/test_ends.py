"""Schedules that end at alpha = 0 or nearly so: what divides by it says so before any work, with what helps."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

import unsample
from tests.problems import mixture, normal, rms
from unsample.errors import Incompatible
from unsample.methods import METHODS, get_method

COSINE = {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "linspace"}
ENDS: dict[str, dict[str, Any]] = {
    "cosine, epsilon": COSINE,
    "cosine, v": COSINE | {"prediction_type": "v_prediction"},
    "zero SNR, epsilon": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "zero SNR, v": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
}
STEPS = 6


def model_of(end: str) -> Any:
    return mixture(scheduler=DDIMScheduler(clip_sample=False, **ENDS[end]))


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """One that the mixture makes, under the schedule without a leap."""
    noise = normal(1, 3, 8, 8, seed=11)
    return unsample.sample(mixture(), "left", num_inference_steps=20, noise=noise).latents


@pytest.mark.parametrize("name", [name for name in METHODS if not get_method(name).refuses_vp])
@pytest.mark.parametrize("end", ENDS)
def test_a_method_comes_back_from_such_an_end_or_says_before_any_work_what_to_do(
    name: str, end: str, picture: torch.Tensor
) -> None:
    model, method, x = model_of(end), get_method(name, {"preset": "quick"}), picture
    loose = METHODS[name].family in ("baseline", "ODE, regularised") or method.needs_trajectory  # far off in 6 steps
    made: Any = {"trajectory": torch.stack([x] * (STEPS + 1))} if method.needs_trajectory else {}
    given: dict[str, Any] = {"latents": x, "prompt": "left", "method": method, "num_inference_steps": STEPS, **made}
    asked: list[int] = []
    network = model.network
    model.network = lambda x, t, c: (asked.append(t), network(x, t, c))[1]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            inversion = unsample.invert(model, **given, strength=1.0, sampling_guidance_scale=1.0)
        except Incompatible as error:
            assert asked == []
            assert "use " in str(error)
            assert "alpha" in str(error)
            return
    told = [str(w.message) for w in said if "sampling magnifies" in str(w.message)]
    assert len(told) == (end == "cosine, epsilon")
    assert end != "zero SNR, epsilon"
    again = unsample.reconstruct(model, inversion)
    assert again.latents.isfinite().all()
    if not loose:
        assert rms(again.latents - x) < 0.7 * float(x.std())


def test_the_remedies_that_belm_names_help() -> None:
    model = model_of("cosine, v")
    noise = normal(1, *model.sample_shape, seed=11)
    x = unsample.sample(model, "left", num_inference_steps=20, noise=noise).latents
    given: dict[str, Any] = {"latents": x, "prompt": "left", "num_inference_steps": 20}
    with pytest.raises(Incompatible, match="belm divides by") as refused:
        unsample.invert(model, method="belm", **given)
    named = re.search(r"timestep_spacing='(\w+)'.*strength=([\d.]+)", str(refused.value))
    assert named is not None
    for method, strength in (
        (unsample.methods.belm(timestep_spacing=named[1]), 1.0),
        (unsample.methods.belm(), float(named[2])),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inversion = unsample.invert(model, method=method, strength=strength, **given)
        assert inversion.meta["stop_index"] == (20 if strength == 1 else 19)
        assert inversion.health[0]["std"] < 2
        assert rms(unsample.reconstruct(model, inversion).latents - x) < 1e-6


def test_errors_of_an_epsilon_network_are_magnified_at_a_cosines_end_and_no_lower() -> None:
    """What the warning says is so: the same network, wrong by 0.02, comes back 100 times worse from the leap."""
    errors = {}
    for spacing in ("linspace", "leading"):
        scheduler = DDIMScheduler(clip_sample=False, **COSINE | {"timestep_spacing": spacing})
        exact = mixture(scheduler=scheduler)

        def network(x: Any, t: Any, exact: Any = exact) -> Any:
            return exact.network(x, int(t), unsample.models.base.Condition()) + 0.02 * torch.tanh(3 * x.roll(1, -1))

        model = unsample.wrap(network, scheduler, sample_shape=(3, 8, 8))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            inversion = unsample.invert(model, latents=exact.means[:1], num_inference_steps=10)
            unsample.sample(model, num_inference_steps=10, noise=normal(1, 3, 8, 8))
        told = [str(w.message) for w in said if "a factor of 3493; use timestep_spacing='leading'" in str(w.message)]
        assert [("strength=0.9" in text) for text in told] == ([True, False] if spacing == "linspace" else [])
        errors[spacing] = rms(unsample.reconstruct(model, inversion).latents - exact.means[:1])
    assert errors["linspace"] > 100 * errors["leading"]


def test_edict_over_many_steps_names_its_mixing_weight_and_one_that_helps(picture: torch.Tensor) -> None:
    model = mixture()
    given: dict[str, Any] = {"latents": picture, "prompt": "left", "num_inference_steps": 200, "strength": 1.0}
    with (
        pytest.warns(UserWarning, match=r"edict: over 200 steps p=0.93 magnifies .* use p=0.982"),
        pytest.raises(unsample.Diverged, match=r"noise std .*try guidance 1, strength below 1"),
    ):
        unsample.invert(model, method="edict", **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="invert: edict recovered a noise of std")
        assert unsample.invert(model, method=unsample.methods.edict(p=0.982), **given).health[0]["std"] < 2


def test_the_naive_inversion_of_dpm_solver_reaches_alpha_0(picture: torch.Tensor) -> None:
    model, method = model_of("zero SNR, v"), unsample.methods.dpm_solver(exact=False)
    inversion = unsample.invert(model, latents=picture, prompt="left", method=method, num_inference_steps=20)
    assert rms(unsample.reconstruct(model, inversion).latents - picture) < 0.3 * float(picture.std())
