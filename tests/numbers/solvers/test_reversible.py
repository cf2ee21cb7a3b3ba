"""EDICT, BDIA and O-BELM: each direction against its own derivation, the order, and the round trip of the pair."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import (
    SD_TABLE,
    float64_tables,
    gaussian,
    gaussian_grid,
    gaussian_ode,
    mixture,
    mixture_picture,
    normal,
    predictor,
    rms,
    slope,
    smooth_network,
)
from unsample.errors import BadOption, Diverged, Incompatible
from unsample.methods import Method, Walked, bdia, belm, edict
from unsample.numbers.grid import grid_from_scheduler, transfer
from unsample.numbers.solvers.bdia import bdia_weights
from unsample.numbers.solvers.belm import belm_weights
from unsample.numbers.solvers.edict import edict_steps
from unsample.numbers.solvers.reversible import two_point_steps
from unsample.numbers.walk import walk

METHODS: dict[str, Method] = {"edict": edict(), "bdia": bdia(), "belm": belm()}
EVERY = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
PARTNER = {"edict": "second", "bdia": "cleaner", "belm": "cleaner"}


def linspace(**config: Any) -> Any:
    """The authors' grid for O-BELM: its first step has no length."""
    settings = {"timestep_spacing": "linspace", "set_alpha_to_one": False, "clip_sample": False, **config}
    return float64_tables(DDIMScheduler(**settings))


def matrix_of(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def pictures(model: Any, count: int = 2) -> Tensor:
    return torch.cat([mixture_picture(model, k, k + 5) for k in range(count)]).double() * 2 - 1


# ---------------------------------------------------------------- the equations


@pytest.mark.parametrize("leapfrog", [True, False])
@pytest.mark.parametrize("p", [0.93, 1.0])
@pytest.mark.parametrize("i", [20, 13, 1])
def test_edict_is_a_two_by_two_matrix_on_a_gaussian_and_its_inverse(p: float, leapfrog: bool, i: int) -> None:
    model = gaussian(mean=0.0)
    grid = gaussian_grid(model, 20)
    a = grid.alpha[i - 1] / grid.alpha[i]
    # eps(x) = sigma x / s: everything is linear
    b = (grid.sigma[i - 1] - a * grid.sigma[i]) * grid.sigma[i] / (grid.alpha[i] ** 2 * 0.25 + grid.sigma[i] ** 2)
    move_x, move_y = matrix_of([[a, b], [0, 1]]), matrix_of([[1, 0], [b, a]])
    mix_x, mix_y = matrix_of([[p, 1 - p], [0, 1]]), matrix_of([[1, 0], [1 - p, p]])
    order = [move_y, move_x] if leapfrog and i % 2 else [move_x, move_y]
    matrix = mix_y @ mix_x @ order[1] @ order[0]
    up, down = edict_steps(p, leapfrog)
    pair, predict = normal(2, 4, 1, 1, 1), predictor(model, grid, 4)
    x, state = down(predict, pair[0], grid, i, i - 1, {"second": pair[1]})
    flat = pair.reshape(2, 4)
    assert rms(torch.stack([x, state["second"]]).reshape(2, 4) - matrix @ flat) < 1e-13
    x, state = up(predict, pair[0], grid, i - 1, i, {"second": pair[1]})
    wanted = torch.linalg.solve(matrix, flat)
    assert rms(torch.stack([x, state["second"]]).reshape(2, 4) - wanted) < 1e-13 * rms(wanted)


@pytest.mark.parametrize("gamma", [1.0, 0.95])
def test_bdia_takes_the_last_step_again_from_its_other_end(gamma: float) -> None:
    model = mixture(prompts=False)
    grid, z = gaussian_grid(model, 20), pictures(model, 2)
    predict = predictor(model, grid, 2)
    up, down = two_point_steps(bdia_weights(gamma))
    noisier = z + 0.1 * normal(*z.shape)
    eps = predict(z, 7).eps
    below, above = transfer(z, eps, grid, 7, 6), transfer(z, eps, grid, 7, 8)
    x, _ = down(predict, z, grid, 7, 6, {"noisier": noisier})
    assert rms(x - (gamma * noisier - gamma * above + below)) < 1e-13
    x, _ = up(predict, z, grid, 7, 8, {"cleaner": noisier})
    assert rms(x - ((noisier - below) / gamma + above)) < 1e-13


def test_belm_is_the_quadratic_through_two_points_with_a_slope() -> None:
    """In y = x / alpha over h = sigma / alpha: y(h_k), y(h_i) and y'(h_i) = eps fix a parabola; its value at h_j."""
    grid = grid_from_scheduler(linspace(), 20)
    k, i, j = 12, 11, 10
    h = [grid.sigma[n] / grid.alpha[n] for n in (k, i, j)]
    noisier, x, eps = normal(3, 5)
    rows = matrix_of([[1, h[0], h[0] ** 2], [1, h[1], h[1] ** 2], [0, 1, 2 * h[1]]])
    fitted = torch.linalg.solve(rows, torch.stack([noisier / grid.alpha[k], x / grid.alpha[i], eps]))
    wanted = grid.alpha[j] * (fitted[0] + fitted[1] * h[2] + fitted[2] * h[2] ** 2)
    p, q, r = belm_weights(grid, k, i, j)
    assert rms(p * noisier + q * x + r * eps - wanted) < 1e-12


def test_belm_goes_up_by_the_inverse_that_the_authors_print() -> None:
    model = mixture(prompts=False, scheduler=linspace())
    grid, x = gaussian_grid(model, 20), pictures(model, 1)
    predict, below = predictor(model, grid, 1), x + 0.1 * normal(*x.shape)
    i = 9
    h = {n: grid.sigma[n] / grid.alpha[n] - grid.sigma[n - 1] / grid.alpha[n - 1] for n in (i, i + 1)}
    ratio, a = h[i + 1] / h[i], grid.alpha
    wanted = ratio**2 * a[i + 1] / a[i - 1] * below + (1 - ratio**2) * a[i + 1] / a[i] * x
    wanted = wanted + ratio * (h[i] + h[i + 1]) * a[i + 1] * predict(x, i).eps
    reached, _ = two_point_steps(belm_weights)[0](predict, x, grid, i, i + 1, {"cleaner": below})
    assert rms(reached - wanted) < 1e-12


@pytest.mark.parametrize(("name", "order"), [("edict", 1), ("belm", 2)])
def test_sampling_converges_to_the_probability_flow_ode(name: str, order: int) -> None:
    model, x0, errors = gaussian(scheduler=linspace()), 0.4 + 0.5 * normal(5, 1, 1, 1), []
    counts = (50, 100, 200)
    for steps in counts:
        grid = gaussian_grid(model, steps)
        top, below = (gaussian_ode(model, x0, grid, 0, n) for n in (steps, steps - 1))
        state = {"second": top} if name == "edict" else {"cleaner": below}
        x, _ = walk(METHODS[name].sample_step, predictor(model, grid, 5), top, grid, range(steps, -1, -1), state)
        errors.append(rms(x - x0))
    assert slope(counts, errors) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["bdia", "belm"])
def test_the_noise_of_a_two_point_method_is_nearer_to_the_truth_than_that_of_ddim(name: str) -> None:
    model, x0 = gaussian(scheduler=linspace()), 0.4 + 0.5 * normal(5, 1, 1, 1)
    for steps in (50, 100, 200):
        wanted = gaussian_ode(model, x0, gaussian_grid(model, steps), 0, steps)
        own, plain = (
            rms(unsample.invert(model, latents=x0, method=m, num_inference_steps=steps).noise - wanted)
            for m in (name, "ddim")
        )
        assert own < 0.3 * plain


# ---------------------------------------------------------------- the round trip


@EVERY
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_round_trip_is_exact_in_float64(method: Method, guidance: float) -> None:
    model = mixture()
    inversion = unsample.invert(model, latents=pictures(model), prompt=["left", "right"], method=method,
                                guidance_scale=guidance)  # fmt: skip
    again = unsample.reconstruct(model, inversion)
    assert rms(again.latents - inversion.latents) <= 1e-8 * rms(inversion.latents)
    assert inversion.status == ["ok", "ok"]


@EVERY
def test_the_round_trip_is_exact_with_a_float32_network(method: Method) -> None:
    torch_net = torch.nn.Conv2d(3, 3, 3, padding=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.nn.init.normal_(torch_net.weight, std=0.25)

    def network(x: Tensor, t: Tensor) -> Tensor:  # of float32 only
        return 0.7 * x + torch.tanh(torch_net(x))

    model = unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=(3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the std
        inversion = unsample.invert(model, latents=normal(2, 3, 8, 8, dtype=torch.float32), method=method)
    again = unsample.reconstruct(model, inversion)
    assert inversion.noise.dtype is torch.float32
    assert rms(again.latents - inversion.latents) <= 1e-4 * rms(inversion.latents)
    torn = replace(inversion, state={**inversion.state, "rest": torch.zeros_like(inversion.state["rest"])})
    assert rms(unsample.reconstruct(model, torn).latents - again.latents) > 0  # what rounding took off matters


@EVERY
def test_without_its_second_state_the_round_trip_is_lost(method: Method) -> None:
    model = mixture(prompts=False)
    inversion = unsample.invert(model, latents=pictures(model), method=method)
    partner = PARTNER[method.name]
    torn = replace(inversion, state={**inversion.state, partner: inversion.noise})
    assert rms(unsample.reconstruct(model, torn).latents - inversion.latents) > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 3])
@EVERY
def test_few_steps_round_trip_too(method: Method, steps: int) -> None:
    for scheduler in (linspace(), float64_tables(DDIMScheduler(**SD_TABLE, steps_offset=1))):
        model = mixture(prompts=False, scheduler=scheduler)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the noise of so few steps holds the picture
            inversion = unsample.invert(model, latents=pictures(model), method=method, num_inference_steps=steps)
        again = unsample.reconstruct(model, inversion)
        assert rms(again.latents - inversion.latents) < 1e-9


# ---------------------------------------------------------------- where and how often the network is asked


class Asked:
    """`smooth_network` that lists the timesteps it is asked at."""

    def __init__(self) -> None:
        self.timesteps: list[int] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.timesteps.append(int(t))
        return smooth_network(x, t)


@pytest.mark.parametrize(
    ("method", "up", "down"),
    [
        (edict(), [1, 1, 251, 251, 501, 501, 751, 751], [751, 751, 501, 501, 251, 251, 1, 1]),
        (bdia(), [0, 1, 251, 501], [501, 251, 1]),  # the kept point costs nothing
        (belm(timestep_spacing=None), [0, 1, 251, 501], [501, 251, 1]),
        (belm(), [0, 333, 666], [666, 333]),  # linspace: 0, 333, 666, 999, and nothing is asked for its first step
    ],
    ids=["edict", "bdia", "belm", "belm linspace"],
)
@pytest.mark.filterwarnings("ignore")
def test_the_network_is_asked_where_the_equations_say(method: Method, up: list[int], down: list[int]) -> None:
    asked = Asked()
    model = unsample.wrap(asked, DDIMScheduler(clip_sample=False, steps_offset=1), sample_shape=(1, 4, 4))
    inversion = unsample.invert(model, latents=normal(1, 1, 4, 4), method=method, num_inference_steps=4)
    assert asked.timesteps == up
    assert inversion.nfe == [method.passes(Walked(4, timesteps=tuple(inversion.meta["grid"]["timesteps"][1:])))]
    asked.timesteps.clear()
    assert unsample.reconstruct(model, inversion).nfe == [len(down)]
    assert asked.timesteps == down


@pytest.mark.parametrize("alpha_to_one", [True, False])
def test_the_first_step_of_linspace_is_passed_through(alpha_to_one: bool) -> None:
    model = mixture(prompts=False, scheduler=linspace(set_alpha_to_one=alpha_to_one))
    inversion = unsample.invert(model, latents=pictures(model), method="belm", keep_trajectory=True)
    assert torch.equal(inversion.trajectory[0], inversion.trajectory[1])  # type: ignore[index]
    assert 0.8 < float(inversion.noise.std()) < 1.25
    assert inversion.nfe == [49, 49]


def test_a_tiny_first_step_is_magnified_and_said() -> None:
    scheduler = float64_tables(DDIMScheduler(**SD_TABLE, set_alpha_to_one=False, steps_offset=1))
    grid = grid_from_scheduler(scheduler, 10)
    length = [grid.sigma[n + 1] / grid.alpha[n + 1] - grid.sigma[n] / grid.alpha[n] for n in (0, 1)]
    up = 1 / belm_weights(grid, 2, 1, 0)[0] * grid.alpha[0] / grid.alpha[2]
    assert up == pytest.approx((length[1] / length[0]) ** 2)
    assert up > 500
    model = mixture(prompts=False, scheduler=scheduler)
    given: dict[str, Any] = {"latents": pictures(model), "num_inference_steps": 10}
    with pytest.warns(UserWarning, match="belm recovered a noise of std"):
        tiny = unsample.invert(model, method=belm(timestep_spacing=None), **given)
    assert rms(unsample.reconstruct(model, tiny).latents - given["latents"]) < 1e-9  # exact all the same
    assert float(tiny.noise.std()) > 1.5 * float(unsample.invert(model, method=belm(), **given).noise.std())


def test_the_roles_of_the_two_latents_alternate_with_the_grid_index() -> None:
    """The first call is for the latent that moves first, with the eps of the other one."""
    for leapfrog, wanted in ((True, ["y", "x", "y", "x"]), (False, ["y"] * 4)):
        seen: list[str] = []
        model = mixture(prompts=False)
        grid, x = gaussian_grid(model, 4), pictures(model, 1)
        predict = predictor(model, grid, 1)
        down, state = edict_steps(1.0, leapfrog)[1], {"second": x + 0.1}
        for i in range(4, 0, -1):
            given: list[Tensor] = []
            pair = {"x": x, "y": state["second"]}

            def noted(z: Tensor, k: int, given: list[Tensor] = given, ask: Any = predict) -> Any:
                given.append(z)
                return ask(z, k)

            x, state = down(noted, x, grid, i, i - 1, state)  # type: ignore[assignment]
            seen.append(next(n for n, z in pair.items() if torch.allclose(z, given[0], atol=1e-12)))
        assert seen == wanted


# ---------------------------------------------------------------- wrong use


@EVERY
def test_alpha_zero_and_a_clamp_are_refused_before_the_network_is_asked(method: Method) -> None:
    asked = Asked()
    zero = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing")
    model = unsample.wrap(asked, zero, sample_shape=(1, 4, 4))
    given = {"latents": normal(1, 1, 4, 4), "num_inference_steps": 10}
    with pytest.raises(Incompatible, match=f"{method.name} divides by alpha, which is 0"):
        unsample.invert(model, method=method, **given)
    clipped = unsample.wrap(asked, DDIMScheduler(clip_sample=True), sample_shape=(1, 4, 4))
    with pytest.raises(Incompatible, match=f"{method.name} is exact because every step can be undone"):
        unsample.invert(clipped, method=method, clip="config", **given)
    assert asked.timesteps == []


def test_weights_that_blow_up_the_noise_warn_and_do_not_claim_exactness() -> None:
    for factory, setting in ((bdia, "gamma"), (edict, "p")):
        with pytest.warns(UserWarning, match="not exact"):
            loose = factory(**{setting: 0.5})
        assert not loose.exact
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert factory(**{setting: 0.9}).exact
    model = mixture(prompts=False)
    with pytest.warns(UserWarning, match="bdia: gamma=0.5"):
        loose_bdia = bdia(0.5)
    with pytest.raises(Diverged):
        unsample.invert(model, latents=pictures(model), method=loose_bdia)


@pytest.mark.parametrize("value", [0, -0.1, 1.1, float("nan"), "1", True])
def test_weights_out_of_range_are_refused(value: Any) -> None:
    with pytest.raises(BadOption, match="edict: p must be"):
        edict(p=value)
    with pytest.raises(BadOption, match="bdia: gamma must be"):
        bdia(gamma=value)


def test_other_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadOption, match="leapfrog must be true or false"):
        edict(leapfrog=1)  # type: ignore[arg-type]
    with pytest.raises(BadOption, match="timestep_spacing must be one of leading, linspace, trailing"):
        belm(timestep_spacing="karras")  # type: ignore[arg-type]
