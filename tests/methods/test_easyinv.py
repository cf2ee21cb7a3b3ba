"""EasyInv against its two published loops written out."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import unsample
from tests.problems import gaussian_grid, mixture, mixture_picture, predictor, rms
from unsample.errors import BadOption, Incompatible
from unsample.methods import Walked, easyinv, fixed_point, forward_first, get_method, renoise
from unsample.numbers.grid import transfer
from unsample.numbers.walk import walk

QUIET = pytest.mark.filterwarnings("ignore:invert. .* did not converge")


def pictures(model: Any, count: int = 2) -> Tensor:
    return torch.cat([mixture_picture(model, k, k + 5) for k in range(count)]).double() * 2 - 1


def blended_steps(start: float, stop: float, steps: int) -> list[int]:
    """Which steps differ from DDIM's, counted from the clean end."""
    model = mixture(prompts=False)
    grid, x = gaussian_grid(model, steps), pictures(model, 1)
    predict, method, found = predictor(model, grid, 1), easyinv(start=start, stop=stop), []
    for i in range(steps):
        y, _ = method.invert_step(predict, x, grid, i, i + 1, {})
        if not torch.equal(y, transfer(x, predict(x, i + 1).eps, grid, i, i + 1)):
            found.append(i)
    return found


def test_the_windows_are_those_of_the_authors() -> None:
    assert blended_steps(0.05, 0.25, 50) == list(range(3, 13))
    assert blended_steps(0.85, 0.95, 50) == list(range(43, 48))
    assert blended_steps(0.05, 0.25, 20) == [2, 3, 4]  # 1 and 5 are the ends, and the ends are left out


def by_hand(model: Any, x: Tensor, steps: int, variant: str) -> Tensor:
    """Both loops as published, with eta = 0.7 in the window (0.15 T, 0.75 T)."""
    grid = gaussian_grid(model, steps)
    predict, last = predictor(model, grid, len(x)), x
    for i in range(steps):
        inside = 0.15 * steps < i < 0.75 * steps
        eps = predict(x, i + 1).eps
        if variant == "before":  # the blended latent is stepped with the eps of the one before blending
            x = 0.7 * x + 0.3 * last if inside else x
            last, x = x, transfer(x, eps, grid, i, i + 1)
        else:  # Eq. 16
            x_next = transfer(x, eps, grid, i, i + 1)
            x = 0.7 * x_next + 0.3 * x if inside else x_next
    return x


@pytest.mark.parametrize("variant", ["after", "before"])
def test_a_walk_is_the_published_loop(variant: Any) -> None:
    model = mixture(prompts=False)
    x, grid = pictures(model), gaussian_grid(model, 10)
    method = easyinv(eta=0.7, start=0.15, stop=0.75, variant=variant)
    found, _ = walk(method.invert_step, predictor(model, grid, 2), x, grid, range(11))
    assert rms(found - by_hand(model, x, 10, variant)) < 1e-12
    other = "after" if variant == "before" else "before"
    assert rms(found - by_hand(model, x, 10, other)) > 1e-3  # and the two are not the same


@QUIET
@pytest.mark.parametrize("variant", ["after", "before"])
def test_eta_one_is_the_base_alone(variant: Any) -> None:
    model = mixture()
    x = pictures(model)
    for base in ("ddim", fixed_point(3), renoise()):
        ours, plain = (
            unsample.invert(model, latents=x, method=m, num_inference_steps=10)
            for m in (easyinv(base=base, eta=1.0, variant=variant), base)
        )
        assert rms(ours.noise - plain.noise) < 1e-13
        assert ours.nfe == plain.nfe


def test_it_costs_what_its_base_costs() -> None:
    assert easyinv().passes(Walked(50, 2)) == 100
    assert easyinv(base=fixed_point(5)).passes(Walked(50)) == 250
    assert not easyinv().handles_guidance
    assert easyinv(base="fixed_point").handles_guidance


def test_a_clamp_is_refused_where_the_step_must_be_affine() -> None:
    model = mixture()
    model.scheduler.register_to_config(clip_sample=True)
    given = {"latents": pictures(model), "num_inference_steps": 10, "clip": "config"}
    with pytest.raises(Incompatible, match="affine"):
        unsample.invert(model, method=easyinv(variant="before"), **given)
    assert unsample.invert(model, method=easyinv(), **given).noise.isfinite().all()


def test_presets_are_those_of_the_two_models_in_paper_and_code() -> None:
    assert get_method("easyinv", {"preset": "sdxl"}).settings["eta"] == 0.8
    assert get_method("easyinv", {"preset": "sd14_code"}).settings["variant"] == "before"
    assert get_method("easyinv", {"preset": "sd14"}).settings == easyinv().settings


@pytest.mark.parametrize(
    "settings", [{"eta": 1.5}, {"start": -0.1}, {"stop": 2.0}, {"start": 0.5, "stop": 0.5}, {"variant": "during"}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="easyinv"):
        easyinv(**settings)


@pytest.mark.parametrize("base", ["dpm_solver", "negative_prompt", {"name": "proximal", "settings": {"recon_t": 0}}])
def test_a_base_that_keeps_the_noise_but_plays_it_back_its_own_way_is_refused_with_that_reason(base: Any) -> None:
    with pytest.raises(Incompatible, match="has a playback of its own; use a base"):
        easyinv(base=base)
    with pytest.raises(Incompatible, match=r"keeps more than the noise \(noise and an offset a step\)"):
        easyinv(base="direct")


def test_blending_what_is_blended_already_is_refused() -> None:
    for inner in (easyinv(variant="before"), forward_first(base=easyinv())):
        with pytest.raises(Incompatible, match="blended already"):
            easyinv(base=inner)


def test_a_window_that_holds_no_step_is_said() -> None:
    model = unsample.load("scenes-mixture")
    x = torch.rand(1, 3, 32, 32)
    with pytest.warns(UserWarning, match="easyinv blends nothing: no step of 5 lies between 0.85 and 0.95 of 5"):
        unsample.invert(model, latents=x, method=get_method("easyinv", {"preset": "sdxl"}), num_inference_steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unsample.invert(model, latents=x, method=easyinv(start=0.3, stop=0.7), num_inference_steps=5)
