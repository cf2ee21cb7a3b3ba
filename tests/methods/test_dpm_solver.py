"""DPM-Solver++ against diffusers' own scheduler, and its exact inversion against closed forms of a single Gaussian."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepInverseScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
)
from torch import Tensor

import unsample
from tests.problems import (
    SD_TABLE,
    broken_from,
    float64_tables,
    gaussian,
    gaussian_ddim_step,
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
from unsample.errors import BadOption, Incompatible
from unsample.methods import Walked, dpm_solver, fixed_point
from unsample.numbers.grid import Grid, grid_from_scheduler
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.solvers.dpm_exact import Correction, dpm_exact, fine_steps, finer
from unsample.numbers.solvers.dpm_solver import dpm_reverse, dpm_sample, weights
from unsample.numbers.walk import walk

pytestmark = pytest.mark.filterwarnings("ignore:invert. .* did not converge")

TO_ZERO = {"timestep_spacing": "trailing"}
TO_SIGMA_MIN = {**SD_TABLE, "set_alpha_to_one": False, "steps_offset": 1}
ALL = Correction(max_iters=60, tol=None)


class Wide(Tensor):
    """A tensor that diffusers' casts to float32 leave in float64."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return self


def theirs(kind: Any, model: Any, grid: Grid, x: Tensor, points: range, **config: Any) -> Tensor:
    """diffusers' scheduler walked over our grid's levels, in float64."""
    up = points[0] < points[-1]
    scheduler = kind(algorithm_type="dpmsolver++", **config)
    levels = [grid.eval_sigma[k] / grid.eval_alpha[k] if up else grid.sigma[k] / grid.alpha[k] for k in points]
    scheduler.timesteps = torch.tensor([grid.timesteps[k] for k in points[:-1]])
    scheduler.sigmas = torch.tensor(levels, dtype=torch.float64)
    scheduler.num_inference_steps = grid.num_steps
    scheduler._step_index, scheduler.lower_order_nums, scheduler.model_outputs = None, 0, [None, None]
    predict = predictor(model, grid, len(x))
    x = x.as_subclass(Wide)
    for k, t in zip(points[:-1], scheduler.timesteps, strict=True):
        eps = predict(x.as_subclass(Tensor), k).eps.as_subclass(Wide)
        x = scheduler.step(eps, t, x).prev_sample.as_subclass(Wide)
    return x.as_subclass(Tensor)


@pytest.mark.parametrize("steps", [1, 2, 10, 20])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("table", [TO_ZERO, TO_SIGMA_MIN])
def test_sampling_is_that_of_diffusers(steps: int, order: int, table: dict[str, Any]) -> None:
    """Where sigma does not end at 0 and there are 15 steps, diffusers' `euler_at_final` is what we do."""
    model = mixture(scheduler=float64_tables(DDIMScheduler(**{"clip_sample": False} | table)), prompts=False)
    grid, x = gaussian_grid(model, steps), normal(2, *model.sample_shape)
    points = range(steps, -1, -1)
    ours, _ = walk(dpm_sample(order), predictor(model, grid, 2), x, grid, points)
    final = "zero" if table is TO_ZERO else "sigma_min"
    config = {"solver_order": order, "final_sigmas_type": final, "euler_at_final": final == "sigma_min"}
    other = theirs(DPMSolverMultistepScheduler, model, grid, x, points, **config)
    assert other.dtype is torch.float64
    assert rms(ours - other) < 1e-10  # 1 / alpha up to 160 on rounding


FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
OWN = [{}, {"timestep_spacing": "leading", "steps_offset": 1}, {"use_karras_sigmas": True}, {"use_lu_lambdas": True}]


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("config", [*OWN, FLOW])
def test_sampling_on_its_own_grid_is_that_of_diffusers(config: dict[str, Any], order: int, steps: int) -> None:
    betas = {k: v for k, v in SD_TABLE.items() if k.startswith("beta")}
    scheduler = DPMSolverMultistepScheduler(**betas, solver_order=order, **config)
    grid, x = grid_from_scheduler(scheduler, steps), normal(2, 3, 4, 4)
    model = unsample.wrap(smooth_network, DDIMScheduler(), sample_shape=(3, 4, 4))
    ours, _ = walk(dpm_sample(order), predictor(model, grid, 2), x, grid, range(steps, -1, -1))
    scheduler.set_timesteps(steps)
    scheduler.sigmas = scheduler.sigmas.double()
    x = x.as_subclass(Wide)
    for t in scheduler.timesteps:
        answer = smooth_network(x.as_subclass(Tensor), t).as_subclass(Wide)
        x = scheduler.step(answer, t, x).prev_sample.as_subclass(Wide)
    assert rms(ours - x.as_subclass(Tensor)) < 1e-9 * rms(ours)


@pytest.mark.parametrize("scheduler", [FlowMatchEulerDiscreteScheduler(shift=3.0), EulerDiscreteScheduler()])
def test_other_grids_round_trip(scheduler: Any) -> None:
    model = mixture(scheduler=scheduler)
    x = mixture_picture(model).double() * 2 - 1
    errors = []
    for how in (dpm_solver(1, tol=1e-22), dpm_solver(fine_step=2), dpm_solver(fine_step=1000), dpm_solver(exact=False)):
        inversion = unsample.invert(model, latents=x, prompt="left", method=how, num_inference_steps=20)
        errors.append(rms(unsample.reconstruct(model, inversion).latents - x))
    assert errors[0] < 1e-8
    assert errors[1] < 0.6 * errors[2]
    assert max(errors) < 0.1


def test_levels_between_the_points_of_a_flow_lie_on_its_line() -> None:
    grid = grid_from_scheduler(FlowMatchEulerDiscreteScheduler(), 10)
    fine = finer(grid, None, 3, 4, 30)
    assert fine.num_steps == fine_steps(grid.timesteps[3], grid.timesteps[4], 30) == 4
    assert fine.sigma == pytest.approx([t / 1000 for t in fine.timesteps])
    assert all(a + s == pytest.approx(1) for a, s in zip(fine.alpha, fine.sigma, strict=True))


def test_levels_between_points_that_no_table_has_are_refused() -> None:
    grid = grid_from_scheduler(IPNDMScheduler(), 2)
    with pytest.raises(Incompatible, match="order=1"):
        finer(grid, None, 1, 2, 10)


@pytest.mark.parametrize("order", [1, 2])
def test_the_naive_inversion_is_that_of_diffusers(order: int) -> None:
    scheduler = float64_tables(DDIMScheduler(**TO_SIGMA_MIN))
    model = mixture(scheduler=scheduler, prompts=False)
    grid = gaussian_grid(model, 10)
    x = torch.cat([mixture_picture(model, k) for k in (0, 4)]).double() * 2 - 1
    ours, _ = walk(dpm_reverse(order), predictor(model, grid, 2), x, grid, range(11))
    config = {"solver_order": order, "lower_order_final": False}
    other = theirs(DPMSolverMultistepInverseScheduler, model, grid, x, range(11), **config)
    assert rms(ours - other) < 1e-10


def test_order_one_is_ddim() -> None:
    model = mixture(scheduler=float64_tables(DDIMScheduler(clip_sample=False, **TO_ZERO)), prompts=False)
    grid, x = gaussian_grid(model, 10), normal(2, *model.sample_shape)
    for i in range(10, 0, -1):
        ours, _ = dpm_sample(1)(predictor(model, grid, 2), x, grid, i, i - 1, {})
        assert rms(ours - ddim_sample(predictor(model, grid, 2), x, grid, i, i - 1, {})[0]) < 1e-10


@pytest.mark.parametrize("order", [1, 2])
def test_sampling_and_inversion_converge_with_the_order_of_the_solver(order: int) -> None:
    """From strength .7 on, to leave out the first step out of the noisiest point, which is of order 1."""
    model, x0 = gaussian(), 0.4 + 0.5 * normal(5, 1, 1, 1)
    counts, errors, ways_up = (20, 40, 80), [], []
    for steps in counts:
        grid = gaussian_grid(model, steps)
        a, b = steps // 4, 7 * steps // 10  # between them: both ends of the schedule are singular
        noise = gaussian_ode(model, x0, grid, 0, b)
        state = {"pred_x0": predictor(model, grid, 5)(gaussian_ode(model, x0, grid, 0, b + 1), b + 1).x0}
        x, _ = walk(dpm_sample(order), predictor(model, grid, 5), noise, grid, range(b, a - 1, -1), state)
        errors.append(rms(x - gaussian_ode(model, x0, grid, 0, a)))
        start = gaussian_ode(model, x0, grid, 0, a)
        stop = {"stop": torch.full((5,), grid.num_steps)}
        up, _ = walk(
            dpm_exact(order, Correction(40, None)), predictor(model, grid, 5), start, grid, range(a, b + 1), stop
        )
        ways_up.append(rms(up - noise))
    assert slope(counts, errors) == pytest.approx(order, abs=0.3)
    assert slope(counts, ways_up) == pytest.approx(order, abs=0.3)


# ---------------------------------------------------------------- the exact inversion


def affine_x0(model: Any, grid: Grid, j: int) -> tuple[Tensor, Tensor]:
    """(p, q) of x0(y, t_j) = p + q y."""
    mu, v = model.means[0], model.variances[0]
    q = grid.alpha[j] * v / (grid.alpha[j] ** 2 * v + grid.sigma[j] ** 2)
    return mu * (1 - q * grid.alpha[j]), q


def ddim_up(model: Any, x: Tensor, grid: Grid, i: int, j: int) -> Tensor:
    """Naive DDIM inversion of a single Gaussian, eps at (x_i, t_j), written out."""
    mu, v = model.means[0], model.variances[0]
    eps = grid.sigma[j] * (x - grid.alpha[j] * mu) / (grid.alpha[j] ** 2 * v + grid.sigma[j] ** 2)
    return grid.alpha[j] / grid.alpha[i] * x + (grid.sigma[j] - grid.alpha[j] / grid.alpha[i] * grid.sigma[i]) * eps


@pytest.mark.parametrize("table", [TO_ZERO, TO_SIGMA_MIN])
def test_order_one_solves_the_ddim_step_of_the_closed_form(table: dict[str, Any]) -> None:
    model = gaussian(shape=(1, 2, 2), scheduler=float64_tables(DDIMScheduler(**{"clip_sample": False} | table)))
    grid, x = gaussian_grid(model, 10), normal(3, 1, 2, 2)
    for i in (0, 5, 9):
        stop = {"stop": torch.full((3,), 10)}
        y, state = dpm_exact(1, Correction(200, None))(predictor(model, grid, 3), x, grid, i, i + 1, stop)
        assert rms(gaussian_ddim_step(model, y, grid, i + 1, i) - x) < 1e-12
        assert state["converged"].all()


def test_order_one_finds_what_the_fixed_point_finds() -> None:
    model = mixture()
    x = torch.cat([mixture_picture(model, k) for k in (0, 4)]).double() * 2 - 1
    ours = unsample.invert(model, latents=x, method=dpm_solver(1, tol=1e-22), num_inference_steps=50)
    other = unsample.invert(model, latents=x, method=fixed_point(60, 1e-13), num_inference_steps=50)
    assert ours.status == other.status == ["ok", "ok"]
    assert rms(ours.noise - other.noise) < 1e-9


@pytest.mark.parametrize("i", [1, 4, 8])
def test_order_two_solves_backward_euler_with_the_high_order_term_of_the_anchors(i: int) -> None:
    """Everything is affine: the fine runs, the anchors' predictions and the solution are written out here."""
    model = gaussian(shape=(1, 2, 2), scheduler=float64_tables(DDIMScheduler(**TO_SIGMA_MIN)))
    grid, x = gaussian_grid(model, 10), normal(3, 1, 2, 2)
    j = i + 1
    anchors = []
    y = x
    for k in (i, j):
        fine = finer(grid, model.scheduler.alphas_cumprod, k, k + 1, 10)
        assert fine.timesteps == tuple(range(grid.timesteps[k], grid.timesteps[k + 1] + 1, 10))
        for m in range(fine.num_steps):
            y = ddim_up(model, y, fine, m, m + 1)
        p, q = affine_x0(model, grid, k + 1)
        anchors.append(p + q * y)
    snr = [torch.tensor(grid.alpha[k] / grid.sigma[k], dtype=torch.float64).log() for k in (i, j, j + 1)]
    phi = -grid.alpha[i] * torch.expm1(snr[1] - snr[0])  # as the paper writes it
    ratio = (snr[1] - snr[2]) / (snr[0] - snr[1])
    high = 0.5 * phi * (anchors[0] - anchors[1]) / ratio
    p, q = affine_x0(model, grid, j)
    exact = (x - high - phi * p) / (grid.sigma[i] / grid.sigma[j] + phi * q)
    step = dpm_exact(2, Correction(200, None))
    ours, _ = step(predictor(model, grid, 3), x, grid, i, j, {"stop": torch.full((3,), 10)})
    assert rms(ours - exact) < 1e-11


def test_the_first_and_the_last_step_are_of_order_one() -> None:
    model = gaussian(shape=(1, 2, 2), scheduler=float64_tables(DDIMScheduler(**TO_SIGMA_MIN)))
    grid, x = gaussian_grid(model, 10), normal(3, 1, 2, 2)
    stop = {"stop": torch.full((3,), 7)}
    for i, same in ((0, True), (5, False), (6, True)):
        one, two = (dpm_exact(k, ALL)(predictor(model, grid, 3), x, grid, i, i + 1, stop)[0] for k in (1, 2))
        assert (rms(one - two) < 1e-9) is same
    assert weights(grid, 5, 4, None)[2] == 0


def test_order_two_round_trips_but_for_its_anchors_and_strength_is_known_to_it() -> None:
    """The anchors are what is left: finer runs make them better. The naive run stays where it is."""
    model = mixture()
    image = mixture_picture(model, 0)
    errors = {}
    for name, made in {
        "coarse": dpm_solver(max_iters=45, tol=None, fine_step=1000),
        "fine": dpm_solver(max_iters=45, tol=None, fine_step=2),
        "naive": dpm_solver(exact=False),
    }.items():
        inversion = unsample.invert(model, image, "left", method=made, num_inference_steps=50, strength=0.6)
        errors[name] = rms(unsample.reconstruct(model, inversion).latents - inversion.latents)
    assert errors["fine"] < 0.6 * errors["coarse"]
    assert errors["fine"] < 0.6 * errors["naive"]
    exact = unsample.invert(model, image, "left", method=dpm_solver(1, tol=1e-20), num_inference_steps=50, strength=0.6)
    assert rms(unsample.reconstruct(model, exact).latents - exact.latents) < 1e-8


# ---------------------------------------------------------------- cost, per picture, settings


@pytest.mark.parametrize(("steps", "strength"), [(1, 1.0), (2, 1.0), (5, 1.0), (10, 0.6)])
@pytest.mark.parametrize("settings", [{}, {"order": 1}, {"fine_step": 50}])
def test_every_pass_is_declared(steps: int, strength: float, settings: dict[str, Any]) -> None:
    model = unsample.wrap(smooth_network, DDIMScheduler(clip_sample=False), sample_shape=(3, 4, 4))
    made = dpm_solver(**settings, max_iters=3, tol=None)
    x = {"latents": normal(2, 3, 4, 4), "num_inference_steps": steps, "strength": strength}
    inversion = unsample.invert(model, method=made, **x)
    stop = inversion.meta["stop_index"]
    walked = Walked(stop, timesteps=tuple(inversion.meta["grid"]["timesteps"][1 : stop + 1]))
    assert inversion.nfe == [made.passes(walked)] * 2
    assert inversion.backward == [0, 0]
    stopped = unsample.invert(model, method=dataclasses.replace(made), **x)
    assert max(stopped.nfe) <= made.passes(walked)


def test_a_step_is_cut_into_steps_of_at_most_the_fine_one() -> None:
    assert [fine_steps(0, t, 10) for t in (0, 1, 10, 11, 100)] == [1, 1, 1, 2, 10]
    grid = grid_from_scheduler(DDIMScheduler(clip_sample=False), 10)
    fine = finer(grid, DDIMScheduler().alphas_cumprod, 3, 4, 30)
    assert fine.timesteps == (200, 225, 250, 275, 300)
    assert (fine.alpha[0], fine.alpha[-1]) == (grid.alpha[3], grid.alpha[4])


def test_a_picture_stops_at_its_tolerance_whatever_its_neighbours_do() -> None:
    model = mixture()
    x = torch.cat([mixture_picture(model, k, k) for k in (0, 2, 4)]).double() * 2 - 1
    for made in (dpm_solver(), dpm_solver(1)):
        together = unsample.invert(model, latents=x, method=made, num_inference_steps=10)
        assert together.status == ["ok"] * 3
        assert len(set(together.nfe)) > 1
        for k in range(3):
            alone = unsample.invert(model, latents=x[k : k + 1], method=made, num_inference_steps=10)
            assert rms(alone.noise[0] - together.noise[k]) < 1e-10
            assert alone.nfe == together.nfe[k : k + 1]


def test_the_tolerance_is_a_mean_square_and_the_first_iterate_within_it_is_kept() -> None:
    model = gaussian(shape=(1, 2, 2))
    grid, x = gaussian_grid(model, 10), normal(3, 1, 2, 2)
    for tol in (1e-4, 1e-10):
        y, state = dpm_exact(1, Correction(500, tol))(
            predictor(model, grid, 3), x, grid, 5, 6, {"stop": torch.tensor([10] * 3)}
        )
        left = (gaussian_ddim_step(model, y, grid, 6, 5) - x).flatten(1).square().mean(1)
        assert (left <= tol).all()
        assert (left > tol * 1e-3).any()  # and not run on
        assert state["converged"].all()


def test_rho_is_halved_when_nothing_is_gained() -> None:
    """f has slope 5, so rho 0.5 runs away and 0.25 too; the plateau rule comes down to one that converges."""
    grid = Grid((1.0, 1.0), (0.0, 1.0), (0, 10), (1.0, 1.0), (0.1, 1.0))
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)

    def predict(y: Tensor, i: int, rows: Tensor | None = None) -> Any:
        from unsample.numbers.prediction import Prediction

        return Prediction(5 * y, -4 * y)

    stop = {"stop": torch.tensor([1])}
    fixed, lost = dpm_exact(1, Correction(400, None, 0.5, 0, 10**6))(predict, x, grid, 0, 1, stop)
    assert not lost["converged"].any()
    y, state = dpm_exact(1, Correction(400, None, 0.5, 0, 5))(predict, x, grid, 0, 1, stop)
    assert rms(y - 0.2) < 1e-8
    assert state["converged"].all()
    assert rms(fixed - 0.2) > rms(y - 0.2)


def test_a_picture_that_is_not_finite_leaves_the_others_alone() -> None:
    network = broken_from(500, lambda x: x.flatten(1).mean(1) > 2)
    model = unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=(3, 4, 4))
    x = torch.cat([normal(1, 3, 4, 4) * 0.1, 9 + normal(1, 3, 4, 4)])
    made = dpm_solver(max_iters=10)
    with pytest.warns(UserWarning, match="picture 1 diverged"):
        together = unsample.invert(model, latents=x, method=made, num_inference_steps=4)
    alone = unsample.invert(model, latents=x[:1], method=made, num_inference_steps=4)
    assert rms(alone.noise[0] - together.noise[0]) < 1e-12


@pytest.mark.parametrize(
    "settings",
    [
        {"order": 3},
        {"order": True},
        {"exact": 1},
        {"max_iters": 0},
        {"tol": -1.0},
        {"step_size": 0},
        {"warmup": -1},
        {"patience": 1.5},
        {"fine_step": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(settings))):
        dpm_solver(**settings)


def test_the_naive_run_takes_no_settings_of_the_iteration() -> None:
    for settings in ({"max_iters": 3}, {"tol": None}, {"fine_step": 5}):
        with pytest.raises(BadOption, match="exact=False iterates nothing"):
            dpm_solver(exact=False, **settings)  # type: ignore[arg-type]


def test_zero_terminal_snr_round_trips() -> None:
    scheduler = DDIMScheduler(
        clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    model = mixture(scheduler=float64_tables(scheduler))
    x = mixture_picture(model).double() * 2 - 1
    for made, bound in ((dpm_solver(1, tol=1e-22), 1e-8), (dpm_solver(), 0.1)):
        inversion = unsample.invert(model, latents=x, method=made, num_inference_steps=50)
        assert rms(unsample.reconstruct(model, inversion).latents - x) < bound
