"""ReNoise against its algorithm written out by hand, its corrections against its own sampler, and plain white."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import SD_TABLE, gaussian_grid, mixture, mixture_picture, normal, predictor, rms
from unsample.errors import BadOption, Incompatible
from unsample.methods import Walked, easyinv, fixed_point, get_method, renoise
from unsample.models.guidance import Predict
from unsample.numbers.grid import transfer
from unsample.numbers.solvers.regularise import match_patches, whiten
from unsample.numbers.solvers.renoise import RenoisePlan
from unsample.numbers.walk import walk

QUIET = pytest.mark.filterwarnings(
    "ignore:invert. .* did not converge", "ignore:the noisiest of", "ignore:renoise does not account for guidance"
)
FEW = {"num_inference_steps": 4}


def pictures(model: Any, count: int = 2) -> Tensor:
    return torch.cat([mixture_picture(model, k, k + 5) for k in range(count)]).double() * 2 - 1


def sd_mixture() -> Any:
    return mixture(scheduler=DDIMScheduler(**SD_TABLE, set_alpha_to_one=False, steps_offset=1))


@QUIET
def test_without_regularisation_and_mean_it_is_the_naive_fixed_point() -> None:
    model = mixture(prompts=False)
    x = pictures(model)
    plain = renoise(3, early_renoise_steps=3, average=False, num_reg_steps=0)
    ours, naive = (unsample.invert(model, latents=x, method=m, num_inference_steps=50) for m in (plain, fixed_point(4)))
    same = [k for k in range(2) if naive.status[k] == "ok"]
    assert same
    assert all(rms(ours.noise[k] - naive.noise[k]) < 1e-12 for k in same)


@QUIET
def test_the_authors_recipe_for_plain_ddim_is_plain_ddim() -> None:
    model = mixture()
    x = pictures(model)
    recipe = renoise(num_renoise_steps=0, num_reg_steps=0)
    ours, plain = (unsample.invert(model, latents=x, method=m, num_inference_steps=10) for m in (recipe, "ddim"))
    assert rms(ours.noise - plain.noise) < 1e-12


@QUIET
def test_a_step_is_algorithm_one_by_hand() -> None:
    """Early: window 0 to 5 of K = 2, every iterate after a regularised eps; the mean of the raw ones at the end."""
    model = mixture(prompts=False)
    grid, x = gaussian_grid(model, 10), pictures(model)
    predict = predictor(model, grid, 2)
    method = renoise(2, num_reg_steps=2, num_ac_rolls=3)
    rolls = torch.randint(0, 4, (2, 10, 4, 2, 3, 3, 1), generator=torch.Generator().manual_seed(0))
    noise, x0 = normal(2, 3, 8, 8, seed=8), x
    state = {"renoise_x0": x0, "renoise_noise": noise, "renoise_rolls": rolls}
    i, j = 1, 2
    assert grid.timesteps[j] < 250
    reference = predict(grid.alpha[j] * x0 + grid.sigma[j] * noise, j).eps

    def pulled(eps: Tensor, k: int) -> Tensor:
        for outer in range(2):
            eps = match_patches(eps, reference, 0.065)
            for inner in range(3):
                eps = whiten(eps, rolls[:, j - 1, k, outer, inner], 20 / 3)
        return eps

    seen, guess = [], x
    for k in range(3):
        seen.append(predict(guess, j).eps)
        guess = transfer(x, pulled(seen[k], k), grid, i, j)
    wanted = transfer(x, pulled(sum(seen) / 3, 3), grid, i, j)
    found, after = method.invert_step(predict, x, grid, i, j, state)
    assert after["converged"].all()
    assert rms(found - wanted) < 1e-12
    # late, K = 2 ends before the window at 8: three raw iterates and no regularisation
    j, guess = 9, x
    for _ in range(3):
        guess = transfer(x, predict(guess, j).eps, grid, 8, j)
    found, after = method.invert_step(predict, x, grid, 8, j, state)
    assert after["converged"].all()
    assert rms(found - guess) < 1e-12


@QUIET
@pytest.mark.parametrize("settings", [{}, {"preset": "few_step"}, {"num_renoise_steps": 3, "average": False}])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_its_cost_follows_the_timesteps(settings: dict[str, Any], guidance: float) -> None:
    model = sd_mixture()
    method = get_method("renoise", settings)
    for steps in (1, 4, 9):
        inversion = unsample.invert(
            model,
            latents=pictures(model),
            prompt="left",
            method=method,
            num_inference_steps=steps,
            guidance_scale=guidance,
        )
        pair = 1 if guidance == 1 else 2
        timesteps = tuple(inversion.meta["grid"]["timesteps"][1:])
        assert inversion.nfe == [method.passes(Walked(steps, pair, pair, timesteps))] * 2
        assert inversion.backward == [0, 0]


def test_the_published_counts_of_sdxl_turbo() -> None:
    few = get_method("renoise", {"preset": "few_step"})
    # three late steps of 9 + 1 and one early one of 5 + 1, a reference each, and a correction each
    assert few.passes(Walked(4, timesteps=(249, 499, 749, 999))) == 3 * 11 + 7 + 4


@QUIET
@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("make", [mixture, sd_mixture])
def test_the_exact_correction_reconstructs_and_the_drawn_noises_do_not(make: Any, eta: float) -> None:
    """At both kinds of clean end: where no fresh noise enters the last step, an offset is stored."""
    model = make()
    x = pictures(model)
    errors = {}
    for how in (None, "optimised", "exact"):
        method = renoise(3, eta=eta, noise_correction=how)
        inversion = unsample.invert(model, latents=x, prompt="left", method=method, num_inference_steps=10)
        assert inversion.state["noises"].shape == (2, 10, 3, 8, 8)
        assert inversion.meta["stored"]["size_over_noise"] == pytest.approx(11)
        errors[how] = rms(unsample.reconstruct(model, inversion).latents - x)
    assert errors["exact"] < 1e-10
    assert errors["optimised"] < errors[None]
    assert errors[None] > 1e-3


@QUIET
def test_the_correction_is_exact_under_the_guidance_of_sampling_and_bound_to_it() -> None:
    model = sd_mixture()
    x = pictures(model)
    method = renoise(eta=1.0, noise_correction="exact")
    inversion = unsample.invert(
        model, latents=x, prompt="left", method=method, num_inference_steps=10, sampling_guidance_scale=3.0
    )
    assert rms(unsample.reconstruct(model, inversion).latents - x) < 1e-10
    with pytest.raises(Incompatible, match="holds under no other"):
        unsample.reconstruct(model, inversion, guidance_scale=1.0)


@QUIET
def test_the_noises_kept_are_those_drawn_unless_corrected() -> None:
    model = sd_mixture()
    x = pictures(model)
    kept = {
        how: unsample.invert(model, latents=x, method=renoise(eta=1.0, noise_correction=how), generator=3, **FEW).state[
            "noises"
        ]
        for how in (None, "optimised")
    }
    assert abs(float(kept[None].std()) - 1) < 0.05
    moved = (kept["optimised"] - kept[None]).flatten(2).norm(dim=2)
    assert float(moved.max()) <= 18 + 1e-4  # ten steps of 1.8
    assert float(moved.min()) > 0


def test_with_a_deterministic_sampler_it_can_be_a_base_and_with_a_stochastic_one_it_cannot() -> None:
    assert renoise().stepwise
    assert not easyinv(base=renoise()).keeps
    with pytest.raises(Incompatible, match="keeps more than the noise"):
        easyinv(base=renoise(eta=1.0))


@QUIET
@pytest.mark.parametrize("settings", [{}, {"preset": "few_step"}])
@pytest.mark.parametrize("value", [1.0, -0.95])
def test_a_plain_picture_ends_neither_black_nor_lost(settings: dict[str, Any], value: float) -> None:
    model = unsample.load("scenes-ddpm")
    x = torch.full((1, 3, 32, 32), value)
    inversion = unsample.invert(model, latents=x, method=get_method("renoise", settings), **FEW)
    assert inversion.noise.isfinite().all()
    assert inversion.status != ["diverged"]
    made = unsample.reconstruct(model, inversion).latents
    assert float((made - x).abs().mean()) < 0.4  # of a range of 2


@QUIET
def test_what_a_picture_gets_does_not_depend_on_its_neighbours() -> None:
    model = sd_mixture()
    x = pictures(model, 3)
    method = get_method("renoise", {"preset": "few_step"})
    together = unsample.invert(model, latents=x, method=method, **FEW)
    for k in range(3):
        alone = unsample.invert(model, latents=x[k : k + 1], method=method, **FEW)
        assert rms(alone.noise[0] - together.noise[k]) < 1e-9
        assert rms(alone.state["noises"][0] - together.state["noises"][k]) < 1e-8


def test_a_residual_that_grows_keeps_the_best_iterate() -> None:
    model = mixture(prompts=False)
    grid, x = gaussian_grid(model, 10), pictures(model)
    method = renoise(4, num_reg_steps=0, average=False)
    explosive = predictor(model, grid, 2)
    explosive.model = unsample.wrap(lambda y, t: 30 * y, DDIMScheduler(), sample_shape=(3, 8, 8))
    found, state = method.invert_step(explosive, x, grid, 5, 6, {})
    assert not state["converged"].any()
    assert rms(found - transfer(x, 30 * x, grid, 5, 6)) < 1e-12  # DDIM's point, whose residual is the smallest


WRONG: list[dict[str, Any]] = [
    {"num_renoise_steps": -1},
    {"eta": 1.5},
    {"noise_correction": "none", "eta": 1.0},
    {"noise_correction": "exact"},
    {"lowest_roll": 2},
    {"early_from": 5},
    {"late_to": 8},
    {"average": 1},
    {"lambda_kl": -0.1},
    {"num_ac_rolls": 0},
]


@pytest.mark.parametrize("settings", WRONG)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="renoise"):
        renoise(**settings)


def test_latents_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(Incompatible, match="patches of 4 x 4"):
        unsample.invert(mixture((3, 2, 2)), latents=normal(1, 3, 2, 2), method="renoise", **FEW)


@QUIET
def test_a_stochastic_walk_with_the_kept_noises_is_the_samplers_own() -> None:
    model = sd_mixture()
    grid = gaussian_grid(model, 10)
    inversion = unsample.invert(model, latents=pictures(model), method=renoise(eta=1.0), num_inference_steps=10)
    predict: Predict = predictor(model, grid, 2)
    predict.condition = inversion_condition(model)
    made, _ = walk(renoise(eta=1.0).sample_step, predict, inversion.noise, grid, range(10, -1, -1), inversion.state)
    assert rms(made - unsample.reconstruct(model, inversion).latents) < 1e-12


def inversion_condition(model: Any) -> Any:
    """The condition of a missing prompt."""
    from unsample.verbs.prompts import Prompts

    return Prompts(None, None, None, None, None).conditions(model, 2, 1.0)[0]


@QUIET
@pytest.mark.parametrize("how", ["exact", "optimised"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_last_step_of_no_length_is_corrected_by_an_offset(how: Any, eta: float) -> None:
    """`set_alpha_to_one=False` without offset: timestep 0 is at the level of the clean end, and no noise enters."""
    model = mixture(scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False))
    x = pictures(model)
    made = unsample.invert(model, latents=x, method=renoise(eta=eta, noise_correction=how), num_inference_steps=6)
    assert made.status == ["ok", "ok"]
    error = rms(unsample.reconstruct(model, made).latents - x)
    assert error < 1e-12 if how == "exact" else error < 0.5
    drawn = unsample.invert(model, latents=x, method=renoise(eta=eta), num_inference_steps=6)
    assert not drawn.state["noises"][:, 0].any()


@pytest.mark.parametrize(
    ("average", "timestep", "first"), [(True, 100, 0), (True, 500, 8), (False, 100, 0), (False, 500, 1)]
)
def test_the_first_prediction_that_is_regularised_is_that_of_the_authors(
    average: bool, timestep: int, first: int
) -> None:
    """Their condition: `i >= window[0] or (not average and i > 0)`."""
    plan = RenoisePlan(9, 5, 250, (0, 5), (8, 10), average, 20.0, 0.065, 4, 5, 0.0)
    assert plan.regularises_from(timestep) == first
