"""Steps on a flow grid, alpha = 1 - sigma, each against its equation written out in velocities."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from tests.problems import mixture, normal, predictor, rms
from unsample.numbers.grid import Grid, grid_from_scheduler
from unsample.numbers.prediction import Prediction, direction, output_from_prediction
from unsample.numbers.solvers.belm import belm_weights
from unsample.numbers.solvers.ddim import ddim_invert_at_source, ddim_invert_at_target, ddim_sample
from unsample.numbers.solvers.edict import edict_steps
from unsample.numbers.solvers.newton import newton_invert
from unsample.numbers.solvers.reversible import check_reversible, line
from unsample.numbers.solvers.start import starting
from unsample.numbers.solvers.stochastic import joining, mean_of, noisy_carry, shares

SCHEDULER = FlowMatchEulerDiscreteScheduler(shift=3.0)


@pytest.fixture(scope="module")
def asked() -> tuple[Any, Grid, Tensor]:
    """predict, its grid of ten steps whose last alpha is 0, and two points."""
    model = mixture(scheduler=SCHEDULER)
    grid = grid_from_scheduler(SCHEDULER, 10)
    return predictor(model, grid, 2), grid, normal(2, *model.sample_shape, seed=4)


def velocity(predict: Any, x: Tensor, i: int) -> Tensor:
    """What the network answers."""
    return output_from_prediction(predict(x, i), predict.grid, i)


@pytest.mark.parametrize("i", [0, 1, 4, 9])
def test_ddim_is_eulers_method_in_sigma_both_ways_and_at_alpha_0(i: int, asked: Any) -> None:
    predict, grid, x = asked
    j, rise = i + 1, grid.sigma[i + 1] - grid.sigma[i]
    source, _ = ddim_invert_at_source(predict, x, grid, i, j, {})
    target, _ = ddim_invert_at_target(predict, x, grid, i, j, {})
    down, _ = ddim_sample(predict, x, grid, j, i, {})
    assert rms(source - (x + rise * velocity(predict, x, i))) < 1e-14
    assert rms(target - (x + rise * velocity(predict, x, j))) < 1e-14
    assert rms(down - (x - rise * velocity(predict, x, j))) < 1e-14
    assert grid.alpha[10] == 0


def test_a_start_from_the_step_before_follows_its_velocity(asked: Any) -> None:
    predict, grid, x = asked
    seen: list[Tensor] = []

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: Any, start: Tensor) -> Any:
        seen.append(start)
        return x + (grid.sigma[j] - grid.sigma[i]) * normal(*x.shape, seed=j), state  # by a velocity of its own

    ahead, state = starting(step, "previous"), {}
    for i in (8, 9):  # into alpha = 0 too
        before, (x, state) = x, ahead(predict, x, grid, i, i + 1, state)
    along = normal(*x.shape, seed=9)
    assert rms(seen[1] - (before + (grid.sigma[10] - grid.sigma[9]) * along)) < 1e-13


def test_two_points_fix_the_velocity_between_them(asked: Any) -> None:
    _, grid, x = asked
    other = normal(*x.shape, seed=6)
    found = direction(joining(x, other, grid, 9, 10), grid)
    assert rms(found - (other - x) / (grid.sigma[10] - grid.sigma[9])) < 1e-12


def test_belm_is_exact_where_x_is_quadratic_in_sigma() -> None:
    grid = grid_from_scheduler(SCHEDULER, 10)
    a, b, c = 0.3, -1.7, 2.2
    x = [a + b * s + c * s * s for s in grid.sigma]
    for i in range(1, 10):
        p, q, r = belm_weights(grid, i + 1, i, i - 1)
        assert p * x[i + 1] + q * x[i] + r * (b + 2 * c * grid.sigma[i]) == pytest.approx(x[i - 1], abs=1e-12)


def test_edict_moves_each_latent_by_the_others_velocity(asked: Any) -> None:
    predict, grid, x = asked
    y, p, fall = x + 0.1 * normal(*x.shape, seed=8), 0.93, grid.sigma[9] - grid.sigma[10]
    _, down = edict_steps(p, leapfrog=False)
    moved = x + fall * velocity(predict, y, 10)
    other = y + fall * velocity(predict, moved, 10)
    mixed = p * moved + (1 - p) * other
    found, state = down(predict, x, grid, 10, 9, {"second": y})
    assert rms(found - mixed) < 1e-14
    assert rms(state["second"] - (p * other + (1 - p) * mixed)) < 1e-14
    assert line(grid, 9, 10) == (1.0, -fall)
    check_reversible("edict", grid, 10)  # nothing of it divides by alpha


def test_the_ancestral_step_is_the_posterior_of_the_flows_own_forward_process() -> None:
    grid = grid_from_scheduler(SCHEDULER, 10)
    for i, j in ((1, 2), (4, 5), (9, 10), (0, 3)):
        keep = grid.alpha[j] / grid.alpha[i]
        var = grid.sigma[j] ** 2 - (keep * grid.sigma[i]) ** 2  # of x_j given x_i
        fresh, along = shares(grid, i, j, 1.0)
        assert fresh**2 == pytest.approx(grid.sigma[i] ** 2 * var / grid.sigma[j] ** 2, rel=1e-9, abs=1e-15)
        # the mean of q(x_i | x_j, x0): its weight of x_j is keep sigma_i^2 / sigma_j^2
        assert along / grid.sigma[j] == pytest.approx(keep * grid.sigma[i] ** 2 / grid.sigma[j] ** 2, abs=1e-9)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_stochastic_step_with_a_known_noise_is_undone_also_into_alpha_0(eta: float, asked: Any) -> None:
    _, grid, x = asked
    noise = normal(*x.shape, seed=12)
    for i in (0, 3, 9):
        v = normal(*x.shape, seed=13)
        p = Prediction(x - grid.sigma[i + 1] * v, x + grid.alpha[i + 1] * v)  # what a network answers at x
        cleaner = mean_of(p, grid, i, i + 1, eta) + shares(grid, i, i + 1, eta)[0] * noise
        assert rms(noisy_carry(cleaner, p, grid, i, i + 1, eta, noise) - x) < 1e-12


def test_gnri_is_guided_by_the_flows_own_forward_process(asked: Any) -> None:
    """Its prior is read off the step: one iteration more, from the first point that the paper's update gives."""
    predict, grid, x = asked
    i, j, weight = 4, 5, 0.1
    keep = (1 - grid.sigma[j]) / (1 - grid.sigma[i])
    var = grid.sigma[j] ** 2 - (keep * grid.sigma[i]) ** 2
    assert abs(var - (1 - keep**2)) > 0.1  # the variance of a diffusion that preserves it would be another
    at = x.clone().requires_grad_(True)
    image = x + (grid.sigma[j] - grid.sigma[i]) * velocity(predict, at, j)
    value = (at - image).flatten(1).abs().sum(1) + weight * (at - keep * x).flatten(1).norm(dim=1) / var
    (slope,) = torch.autograd.grad(value.sum(), at)
    y = (x - (value / x[0].numel())[:, None, None, None] / (slope + 1e-6)).detach()
    second = x + (grid.sigma[j] - grid.sigma[i]) * velocity(predict, y, j)
    found, _ = newton_invert(2, weight, 1e-6)(predict, x, grid, i, j, {"clean": x})
    score = (value / x[0].numel()).tolist()
    again = (y - second).flatten(1).abs().sum(1) + weight * (y - keep * x).flatten(1).norm(dim=1) / var
    for k in range(2):
        best = second if float(again[k]) / x[0].numel() < score[k] else image
        assert rms(found[k] - best[k].detach()) < 1e-12


def test_a_diffusion_that_preserves_the_variance_still_goes_along_eps(asked: Any) -> None:
    _, grid, x = asked
    angle = dataclasses.replace(
        grid,
        alpha=tuple(math.sqrt(1 - s * s) for s in grid.sigma),
        prediction_type="v_prediction",
    )
    assert torch.equal(direction(Prediction(x, 2 * x), angle), 2 * x)
