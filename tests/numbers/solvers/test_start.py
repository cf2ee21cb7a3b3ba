"""The start of an implicit step: against Uni-Inv written out in float64, at ends and steps of no length, in a batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import (
    PROMPTS,
    SD_TABLE,
    float64_tables,
    gaussian,
    gaussian_grid,
    mixture,
    normal,
    predictor,
    rms,
    slope,
)
from unsample.errors import BadOption
from unsample.methods import METHODS, Method, Walked, fixed_point, get_method, setting_defaults, uni_inv
from unsample.numbers.solvers.start import LAST
from unsample.numbers.walk import walk

TABLES: dict[str, dict[str, Any]] = {
    "linear": {},
    "sd": {**SD_TABLE, "set_alpha_to_one": False, "steps_offset": 1},
    "a step of no length": {"set_alpha_to_one": False},  # timestep 0 is at the level of the clean end
    "zero-snr": {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
}
STARTS = ("fixed_point", "aidi_e", "aidi_a", "renoise", "gnri")
QUIET = pytest.mark.filterwarnings("ignore:invert. .* did not converge", "ignore:the noisiest of")
T = 8
BASE = {"num_iters": 2, "start": "previous"}


def model_of(table: str) -> Any:
    return mixture(scheduler=float64_tables(DDIMScheduler(**({"clip_sample": False} | TABLES[table]))), prompts=False)


def ahead(name: str, start: str = "previous", **settings: Any) -> Method:
    return get_method(name, {"preset": "quick", **settings, "start": start})


@pytest.mark.parametrize("table", TABLES)
def test_uni_inv_is_its_equation_written_out(table: str) -> None:
    """With the last prediction itself, where the method reads it off two points."""
    model = model_of(table)
    grid, x = gaussian_grid(model, T), normal(2, *model.sample_shape, seed=5) * 0.4
    predict = predictor(model, grid, 2)
    found, state = walk(uni_inv().invert_step, predict, x, grid, range(T + 1))
    assert predict.cost.nfe == [T + 1] * 2
    points, last = [x], predict(x, 0).eps
    for j in range(1, T + 1):
        here, i = points[-1], j - 1
        a, s = [math.cos(math.atan2(grid.sigma[k], grid.alpha[k])) for k in (i, j)], [grid.sigma[i], grid.sigma[j]]
        guess = a[1] * ((here - s[0] * last) / a[0]) + s[1] * last
        asked = predict(guess, j)
        if grid.alpha[j] == 0:
            points.append((here - a[0] * asked.x0) / s[0])
        else:
            points.append(here * a[1] / a[0] + (s[1] - s[0] * a[1] / a[0]) * asked.eps)
            last = asked.eps
    assert rms(found - points[-1]) < 1e-11 * rms(found)
    assert found.isfinite().all()
    assert state[LAST].shape == x.shape


@QUIET
@pytest.mark.parametrize("start", ["previous", "extrapolated"])
@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("table", TABLES)
def test_the_start_changes_where_an_iteration_begins_and_one_pass(name: str, table: str, start: str) -> None:
    model = model_of(table)
    x = normal(2, *model.sample_shape, seed=5) * 0.4
    given: dict[str, Any] = {"latents": x, "num_inference_steps": T}
    one, other = (
        unsample.invert(model, method=m, **given) for m in (get_method(name, {"preset": "quick"}), ahead(name, start))
    )
    assert other.nfe == [n + 1 for n in one.nfe]
    assert rms(one.noise - other.noise) > 1e-6
    assert not other.state
    for k in range(2):
        alone = unsample.invert(model, method=ahead(name, start), **given | {"latents": x[k : k + 1]})
        assert rms(alone.noise[0] - other.noise[k]) < 1e-8
        assert alone.nfe == other.nfe[k : k + 1]


@pytest.mark.parametrize(("method", "order"), [("ddim", 1), ("uni_inv", 2)])
def test_its_round_trip_is_of_second_order(method: str, order: int) -> None:
    """The predictor misses the solution of a step by its length squared, the eps asked there too, the step by ^3."""
    model = gaussian()
    errors, steps = [], (125, 250, 500)
    for count in steps:
        x = torch.full((1, 1, 1, 1), 0.9, dtype=torch.float64)
        inversion = unsample.invert(model, latents=x, method=method, num_inference_steps=count)
        errors.append(rms(unsample.reconstruct(model, inversion).latents - x))
    assert slope(steps, errors) == pytest.approx(order, abs=0.15)


@QUIET
@pytest.mark.parametrize("table", ["linear", "a step of no length"])
def test_an_extrapolated_start_is_its_line_written_out(table: str) -> None:
    """eps at log(sigma_j / alpha_j), on the line through the last two steps', no further on than they lie apart."""
    model = model_of(table)
    grid, x = gaussian_grid(model, T), normal(2, *model.sample_shape, seed=5) * 0.4
    predict, along, reaches = predictor(model, grid, 2), {}, []
    found, state = walk(ahead("fixed_point", "extrapolated", num_iters=1).invert_step, predict, x, grid, range(T + 1))
    level = [math.log(s / a) if s > 0 else -math.inf for s, a in zip(grid.sigma, grid.alpha, strict=True)]
    last = predict(x, 0).eps
    for j in range(1, T + 1):
        i, ratio = j - 1, grid.alpha[j] / grid.alpha[j - 1]
        if i - 1 in along and i in along:
            reaches.append((level[j] - level[i]) / (level[i] - level[i - 1]))
            last = along[i] + min(1.0, reaches[-1]) * (along[i] - along[i - 1])
        guess = ratio * x + (grid.sigma[j] - ratio * grid.sigma[i]) * last
        last = predict(guess, j).eps
        x = ratio * x + (grid.sigma[j] - ratio * grid.sigma[i]) * last
        along[j] = last
    assert rms(found - x) < 1e-10 * rms(x)
    assert min(reaches) < 1
    assert torch.allclose(state[LAST], last)


@QUIET
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_start_of_a_stochastic_step_holds_its_own_noise(eta: float) -> None:
    """One renoising step is F(x_i, eps(y)), y with the noise of this step and the eps of the last one."""
    model = model_of("linear")
    grid, x = gaussian_grid(model, T), normal(2, *model.sample_shape, seed=5) * 0.4
    predict, noises = predictor(model, grid, 2), normal(2, T, *model.sample_shape, seed=6)
    settings = {"num_renoise_steps": 0, "early_renoise_steps": 0, "num_reg_steps": 0, "average": False}
    method = ahead("renoise", **settings, eta=eta)
    found, _ = walk(method.invert_step, predict, x, grid, range(T + 1), {"noises": noises})
    last = predict(x, 0).eps
    for j in range(1, T + 1):
        i = j - 1
        ratio = grid.sigma[i] * grid.alpha[j] / (grid.alpha[i] * grid.sigma[j])
        fresh = eta * grid.sigma[i] * math.sqrt(1 - ratio**2)
        along, rest = math.sqrt(grid.sigma[i] ** 2 - fresh**2), x - fresh * noises[:, i]
        last = predict(grid.alpha[j] * (rest - along * last) / grid.alpha[i] + grid.sigma[j] * last, j).eps
        x = grid.alpha[j] * (rest - along * last) / grid.alpha[i] + grid.sigma[j] * last
    assert rms(found - x) < 1e-10 * rms(x)


@QUIET
@pytest.mark.parametrize("wrapper", ["forward_first", "oracle", "gradient"])
def test_after_the_first_steps_of_another_method_a_base_goes_on_along_them(wrapper: str) -> None:
    """The eps is that of the step that the other made, and no pass is spent on it."""
    model = model_of("linear")
    made = unsample.sample(model, noise=normal(2, *model.sample_shape, seed=11), num_inference_steps=T,
                           keep_trajectory=True)  # fmt: skip
    name = "rest" if wrapper == "gradient" else "base"
    own = {
        "forward_first": {"fraction": 0.25},
        "oracle": {"num_steps": 2},
        "gradient": {"first_steps": 2, "num_iters": 3},
    }
    method = get_method(wrapper, {**own[wrapper], name: uni_inv()})
    given = {"trajectory": made.trajectory} if method.needs_trajectory else {}
    points: list[Tensor] = []
    keep = {"callback_on_step_end": lambda model, k, t, state: points.append(state["latents"]) or {}}
    inversion = unsample.invert(model, latents=made.latents, method=method, num_inference_steps=T, **keep, **given)
    assert inversion.nfe == [method.passes(Walked(T))] * 2
    assert method.passes(Walked(T)) == T - 2 + (6 if wrapper == "gradient" else 0)
    grid = gaussian_grid(model, T)
    predict = predictor(model, grid, 2)
    a, s = grid.alpha, grid.sigma
    h = [s[k] / a[k] for k in range(T + 1)]
    eps = (points[1] / a[2] - points[0] / a[1]) / (h[2] - h[1])  # DDIM is Euler in x / alpha over sigma / alpha
    guess = a[3] * (points[1] / a[2] + (h[3] - h[2]) * eps)
    expected = a[3] * (points[1] / a[2] + (h[3] - h[2]) * predict(guess, 3).eps)
    assert rms(points[2] - expected) < 1e-10


@QUIET
@pytest.mark.parametrize("name", [n for n, facts in METHODS.items() if "base" in setting_defaults(facts.factory)])
def test_every_method_around_another_takes_it_and_keeps_nothing_of_it(name: str) -> None:
    model = mixture()
    noise = normal(2, *model.sample_shape, seed=11)
    made = unsample.sample(model, list(PROMPTS), noise=noise, num_inference_steps=T, keep_trajectory=True)
    method = get_method(name, {"preset": "quick", "base": {"name": "fixed_point", "settings": BASE}})
    given = {"trajectory": made.trajectory} if method.needs_trajectory else {}
    walk = {"num_inference_steps": T, "guidance_scale": 2, "sampling_guidance_scale": 2, "strength": 1.0}
    inversion = unsample.invert(model, latents=made.latents, prompt=list(PROMPTS), method=method, **walk, **given)
    pairs = Walked(T, 2, 2, gaussian_grid(model, T).timesteps[1:])
    assert max(inversion.nfe) <= method.passes(pairs)
    assert method.needs_grad or inversion.nfe == [method.passes(pairs)] * 2
    assert set(inversion.state) == set(method.keeps)
    assert inversion.meta["method"]["settings"]["base"]["settings"]["start"] == "previous"


@QUIET
def test_a_blend_moves_the_point_and_not_the_eps_of_the_step_before() -> None:
    """EasyInv around Uni-Inv: the last eps is the network's, not what two blended points would imply."""
    model = model_of("linear")
    grid, x = gaussian_grid(model, T), normal(2, *model.sample_shape, seed=5) * 0.4
    predict = predictor(model, grid, 2)
    method = get_method("easyinv", {"base": uni_inv(), "eta": 0.5, "start": 0.1, "stop": 0.9})
    found, _ = walk(method.invert_step, predict, x, grid, range(T + 1))
    last = predict(x, 0).eps
    for j in range(1, T + 1):
        i, before = j - 1, x
        slope = grid.alpha[j] / grid.alpha[i]
        last = predict(slope * x + (grid.sigma[j] - slope * grid.sigma[i]) * last, j).eps
        x = slope * x + (grid.sigma[j] - slope * grid.sigma[i]) * last
        x = (x + before) / 2 if 0.1 * T < i < 0.9 * T else x
    assert rms(found - x) < 1e-10 * rms(x)


@QUIET
def test_a_picture_that_stops_early_or_is_lost_leaves_the_others_alone() -> None:
    model = model_of("linear")
    x = normal(3, *model.sample_shape, seed=5) * 0.4
    method = fixed_point(6, tol=1e-2, start="previous")
    alone = [unsample.invert(model, latents=x[k : k + 1], method=method, num_inference_steps=T) for k in range(3)]
    together = unsample.invert(model, latents=x, method=method, num_inference_steps=T)
    assert together.nfe == [a.nfe[0] for a in alone]
    assert max(rms(together.noise[k] - alone[k].noise[0]) for k in range(3)) < 1e-8
    grid = gaussian_grid(model, T)
    bad = x.clone()
    bad[1, 0, 0, 0] = torch.nan
    found, _ = walk(method.invert_step, predictor(model, grid, 3), bad, grid, range(T + 1))
    assert found.flatten(1).isfinite().all(1).tolist() == [True, False, True]
    assert rms(found[[0, 2]] - together.noise[[0, 2]]) < 1e-8


def test_another_start_is_refused() -> None:
    for name in (*STARTS, "hybrid"):
        with pytest.raises(
            BadOption, match=f"{name}: start must be one of source, previous, extrapolated; got 'middle'"
        ):
            get_method(name, {"start": "middle"})


def test_hybrid_starts_from_its_first_step_and_pays_nothing_for_it() -> None:
    walked = Walked(10)
    assert ahead("hybrid").passes(walked) == get_method("hybrid", {"preset": "quick"}).passes(walked)
    assert get_method("gradient", {"first_steps": 0, "rest": uni_inv()}).passes(walked) == 11
    assert uni_inv().passes(Walked(0)) == 0
