"""Rex: orders of convergence on ODEs known in closed form, a step by hand, timesteps between the table's rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from tests.problems import float64_tables, gaussian, gaussian_ode, mixture, normal, predictor, rms, slope
from unsample.errors import BadOption
from unsample.methods import get_method
from unsample.models.base import Condition
from unsample.models.gaussian import GaussianModel
from unsample.numbers.grid import FLOW, Grid, grid_from_scheduler
from unsample.numbers.solvers.midway import MIDDLE, frame, timestep_at, with_middle
from unsample.numbers.walk import walk

ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}
FLOWS = FlowMatchEulerDiscreteScheduler()


def vp() -> Any:
    """The clean end is timestep 0 itself, so that every level between the ends is in the table."""
    return float64_tables(DDIMScheduler(timestep_spacing="linspace", set_alpha_to_one=False, clip_sample=False))


def grid_of(kind: str, steps: int) -> Grid:
    """Equal steps in sigma of a flow, or in timesteps, of which as many as there are steps are whole."""
    if kind == "vp":
        return grid_from_scheduler(vp(), steps)
    sigma = tuple(k / steps for k in range(steps + 1))
    alpha = tuple(1 - s for s in sigma)
    return Grid(alpha, sigma, tuple(1000 * s for s in sigma), alpha, sigma, FLOW)


def model_of(kind: str) -> GaussianModel:
    """A single Gaussian with the levels of the grid."""
    return gaussian(scheduler=vp() if kind == "vp" else FLOWS)


@pytest.mark.parametrize("up", [True, False], ids=["inverting", "sampling"])
@pytest.mark.parametrize("solver", ORDERS)
def test_both_latents_are_of_the_order_of_the_runge_kutta_step(solver: str, up: bool) -> None:
    """On a flow, from sigma 1/4 to 1. Midpoint: 3 there, where its leading error is 0 (`test_rf`)."""
    method, counts, errors = get_method("rex", {"solver": solver}), (16, 32, 64), []
    model, x = model_of("flow"), normal(4, 1, 1, 1, seed=3)
    for steps in counts:
        grid = grid_of("flow", steps)
        points = range(steps // 4, steps + 1) if up else range(steps, steps // 4 - 1, -1)
        step = method.invert_step if up else method.sample_step
        y, state = walk(step, predictor(model, grid, 4), x, grid, points, {"second": x})
        truth = gaussian_ode(model, x, grid, points[0], points[-1])
        errors.append([rms(y + state["rest"] - truth), rms(state["second"] - truth)])
    for latent in zip(*errors, strict=True):
        assert slope(counts, latent) == pytest.approx({1: 1, 2: 3, 4: 4}[ORDERS[solver]], abs=0.3)


@pytest.mark.parametrize("up", [True, False], ids=["inverting", "sampling"])
def test_rk4_is_of_order_4_on_a_diffusion_whose_stages_lie_between_rows_of_the_table(up: bool) -> None:
    method, counts, errors = get_method("rex"), (28, 56, 112), []
    model, x = model_of("vp"), normal(4, 1, 1, 1, seed=3)
    for steps in counts:
        grid = grid_of("vp", steps)
        points = range(steps // 4, steps + 1) if up else range(steps, steps // 4 - 1, -1)
        step = method.invert_step if up else method.sample_step
        y, state = walk(step, predictor(model, grid, 4), x, grid, points, {"second": x})
        errors.append(rms(y + state["rest"] - gaussian_ode(model, x, grid, points[0], points[-1])))
    assert slope(counts, errors) > 3.6


def test_a_step_by_hand() -> None:
    """Midpoint, zeta 0.9, down and undone."""
    model, grid, zeta = mixture(scheduler=FLOWS), grid_of("flow", 8), 0.9
    predict, y = predictor(model, grid, 2), normal(2, *mixture().sample_shape, seed=5)
    z = y + 0.1 * normal(*y.shape, seed=6)

    def psi(z: Tensor, sigma: float, h: float) -> Tensor:
        v = model.network(z, 1000 * sigma, Condition())
        return h * model.network(z + h / 2 * v, 1000 * (sigma + h / 2), Condition())

    method = get_method("rex", {"solver": "midpoint", "zeta": zeta})
    below = zeta * y + (1 - zeta) * z + psi(z, 0.5, -0.125)
    second = z - psi(below, 0.375, 0.125)
    found, state = method.sample_step(predict, y, grid, 4, 3, {"second": z})
    assert rms(found - below) < 1e-12
    assert rms(state["second"] - second) < 1e-12
    back, state = method.invert_step(predict, found, grid, 3, 4, state)
    assert rms(back - y) < 1e-12
    assert rms(state["second"] - z) < 1e-12


def test_the_middle_of_a_step_is_asked_at_the_timestep_of_its_own_level() -> None:
    model, grid = model_of("vp"), grid_of("vp", 28)
    predict = predictor(model, grid, 1)
    for i, j in ((3, 4), (27, 28)):
        near = with_middle(predict, grid, i, j)
        levels = [frame(near.grid, k)[1] for k in range(3)]
        assert levels[1] == pytest.approx((levels[0] + levels[2]) / 2)
        alpha, sigma = model._levels_at(near.grid.timesteps[MIDDLE])
        assert sigma / alpha == pytest.approx(levels[1], rel=1e-9)
        assert grid.timesteps[i] < near.grid.timesteps[MIDDLE] < grid.timesteps[j]
    table = model.scheduler.alphas_cumprod
    least = math.sqrt(float((1 - table[0]) / table[0]))
    assert timestep_at(table, least / 2, grid, 0, 1) == (0.0, pytest.approx(least))  # below the table: timestep 0
    angles = Grid((1.0, 0.6), (0.0, 0.8), (0.0, 0.9273), (1.0, 0.6), (0.0, 0.8), "v_prediction")
    assert timestep_at(None, math.tan(0.3), angles, 0, 1) == (pytest.approx(0.3, abs=1e-4), math.tan(0.3))


def test_a_coupling_of_0_is_refused() -> None:
    with pytest.raises(BadOption, match="zeta must be above 0"):
        get_method("rex", {"zeta": 0.0})
