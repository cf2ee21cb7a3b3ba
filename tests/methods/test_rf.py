"""RF-Solver, FireFlow and RF-Inversion: orders of convergence on a flow known in closed form, and steps by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

import unsample
from tests.problems import gaussian, gaussian_ode, mixture, normal, predictor, rms, slope
from unsample.errors import BadOption, Incompatible
from unsample.methods import Method, get_method
from unsample.models.base import Condition
from unsample.models.gaussian import GaussianModel
from unsample.numbers.grid import FLOW, Grid
from unsample.numbers.walk import walk

SCHEDULER = FlowMatchEulerDiscreteScheduler()
COUNTS = (20, 40, 80)


def even(steps: int) -> Grid:
    """A flow grid of equal steps, in float64."""
    sigma = tuple(k / steps for k in range(steps + 1))
    alpha = tuple(1 - s for s in sigma)
    return Grid(alpha, sigma, tuple(1000 * s for s in sigma), alpha, sigma, FLOW)


def walked(method: Method, model: GaussianModel, steps: int, up: bool) -> tuple[Tensor, Tensor, Grid, range]:
    """Start and end of a walk between sigma = 1/4 and 1, its grid and points."""
    grid, x = even(steps), normal(4, 1, 1, 1, seed=3)
    points = range(steps // 4, steps + 1) if up else range(steps, steps // 4 - 1, -1)
    step = method.invert_step if up else method.sample_step
    return x, walk(step, predictor(model, grid, 4), x, grid, points)[0], grid, points


@pytest.mark.parametrize("up", [True, False], ids=["inverting", "sampling"])
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("rf_solver", 3), ("fireflow", 2)])
def test_the_order_of_convergence_to_a_gaussians_own_ode(name: str, order: int, up: bool) -> None:
    """x is the root of a quadratic in sigma there, of which the midpoint rule's leading error is 0."""
    model, errors = gaussian(scheduler=SCHEDULER), []
    for steps in COUNTS:
        x, found, grid, points = walked(get_method(name), model, steps, up)
        errors.append(rms(found - gaussian_ode(model, x, grid, points[0], points[-1])))
    assert slope(COUNTS, errors) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("up", [True, False], ids=["inverting", "sampling"])
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("rf_solver", 2), ("fireflow", 2)])
def test_the_order_of_convergence_on_a_mixture(name: str, order: int, up: bool) -> None:
    means = torch.tensor([-0.6, 0.5])[:, None, None, None]
    model = GaussianModel(means, torch.full_like(means, 0.2), SCHEDULER)
    fine = walked(get_method("rf_solver"), model, 1280, up)[1]
    errors = [rms(walked(get_method(name), model, steps, up)[1] - fine) for steps in COUNTS]
    assert slope(COUNTS, errors) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("up", [True, False], ids=["inverting", "sampling"])
def test_the_first_two_steps_by_hand(up: bool) -> None:
    """On a mixture, with the velocity asked at levels between the points of the grid."""
    model, grid = mixture(scheduler=SCHEDULER), even(8)
    predict, start = predictor(model, grid, 2), normal(2, *model.sample_shape, seed=5)

    def v(x: Tensor, sigma: float) -> Tensor:
        return model.network(x, 1000 * sigma, Condition())

    points, h = ((2, 3, 4), 1 / 8) if up else ((4, 3, 2), -1 / 8)
    at = [grid.sigma[k] for k in points]
    taylor, reused, u = start, start, v(start, at[0])
    for k in range(2):
        own = v(taylor, at[k])
        change = (v(taylor + h / 2 * own, at[k] + h / 2) - own) / (h / 2)
        taylor = taylor + h * own + h * h / 2 * change
        u = v(reused + h / 2 * u, at[k] + h / 2)
        reused = reused + h * u
    for name, expected in (("rf_solver", taylor), ("fireflow", reused)):
        method = get_method(name)
        found, _ = walk(method.invert_step if up else method.sample_step, predict, start, grid, points)
        assert rms(found - expected) < 1e-12
    assert rms(taylor - reused) > 1e-4


@pytest.mark.parametrize("name", ["rf_solver", "fireflow"])
def test_noise_that_it_samples_from_is_found_better_than_by_ddim(name: str) -> None:
    model = gaussian(shape=(3, 4, 4), scheduler=SCHEDULER)
    noise, steps = normal(2, *model.sample_shape, seed=7), 20

    def missed(method: str) -> float:
        made = unsample.sample(model, method=method, noise=noise, num_inference_steps=steps)
        back = unsample.invert(model, latents=made.latents, method=method, num_inference_steps=steps)
        assert rms(unsample.reconstruct(model, back).latents - made.latents) > 1e-12  # and not exactly
        return rms(back.noise - noise)

    assert missed(name) < missed("ddim") / 5


# ---------------------------------------------------------------- RF-Inversion


def test_the_controlled_steps_by_hand() -> None:
    model, grid = mixture(scheduler=SCHEDULER), even(8)
    predict, x = predictor(model, grid, 2), normal(2, *model.sample_shape, seed=5)
    drawn, picture = normal(*x.shape, seed=6), normal(*x.shape, seed=7)
    method = get_method("rf_inversion", {"gamma": 0.3, "eta": 0.8, "start": 0.25, "stop": 0.75, "decay": 1.0})
    v = model.network(x, 375.0, Condition())
    up, _ = method.invert_step(predict, x, grid, 3, 4, {"drawn_noise": drawn, "picture": picture})
    assert rms(up - (x + (0.7 * v + 0.3 * (drawn - x) / 0.625) / 8)) < 1e-12
    state: Any = {"picture": picture}
    for k in range(8):  # the window holds the steps 2 to 5 of 8
        i = 8 - k
        weight = 0.8 * (1 - k / 8) if 2 <= k < 6 else 0.0
        v = model.network(x, 125.0 * i, Condition())
        wanted = x - ((1 - weight) * v + weight * (x - picture) / (i / 8)) / 8
        x, state = method.sample_step(predict, x, grid, i, i - 1, state)
        assert rms(x - wanted) < 1e-12


def test_its_ends_are_euler_the_drawn_noise_and_the_picture() -> None:
    model = mixture(scheduler=SCHEDULER)
    picture = normal(1, *model.sample_shape, seed=8) * 0.3
    given: dict[str, Any] = {"latents": picture, "num_inference_steps": 10, "guidance_scale": 1.0, "prompt": "left"}
    free = unsample.invert(model, method=get_method("rf_inversion", {"gamma": 0.0}), **given)
    euler = unsample.invert(model, method=unsample.methods.ddim(eps_at="source"), **given)
    assert rms(free.noise - euler.noise) < 1e-12
    pulled = [
        unsample.invert(model, method=get_method("rf_inversion", {"gamma": 1.0}), **given | {"latents": latents})
        for latents in (picture, picture)
    ]
    assert torch.equal(pulled[0].noise, pulled[1].noise)
    assert rms(pulled[0].noise - free.noise) > 0.1
    full = get_method("rf_inversion", {"preset": "full_control"})
    assert full.exact
    again = unsample.reconstruct(model, unsample.invert(model, method=full, **given))
    assert rms(again.latents - picture) < 1e-12


def test_a_window_without_steps_and_a_diffusion_are_refused() -> None:
    with pytest.raises(BadOption, match="start must be below stop"):
        get_method("rf_inversion", {"start": 0.5, "stop": 0.5})
    for name in ("rf_solver", "fireflow", "rf_inversion"):
        with pytest.raises(Incompatible, match=f"{name} does not run on a diffusion model: .*use a flow model"):
            unsample.invert(mixture(), latents=normal(1, 3, 8, 8), prompt="left", method=name)
