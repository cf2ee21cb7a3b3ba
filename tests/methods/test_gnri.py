"""Guided Newton-Raphson: the paper's update with its slope through the network, and the one of the authors' code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import (
    broken_from,
    gaussian,
    gaussian_ddim_step,
    gaussian_grid,
    normal,
    predictor,
    rms,
    smooth_network,
)
from unsample.errors import BadOption
from unsample.methods import Walked, gnri
from unsample.numbers.grid import Grid
from unsample.numbers.solvers.newton import newton_invert, sign_invert

pytestmark = pytest.mark.filterwarnings("ignore:invert. .* did not converge")


def affine(model: Any, x: Tensor, grid: Grid, i: int, j: int) -> tuple[Tensor, Tensor]:
    """(p, q) of the implicit map f(y) = p + q y of a single Gaussian, written out from its eps."""
    mu, v = model.means[0], model.variances[0]
    s = grid.alpha[j] ** 2 * v + grid.sigma[j] ** 2
    gain = grid.sigma[j] - grid.alpha[j] * grid.sigma[i] / grid.alpha[i]
    q = gain * grid.sigma[j] / s  # eps = sigma (y - alpha mu) / s
    return grid.alpha[j] / grid.alpha[i] * x - q * grid.alpha[j] * mu, q


def by_hand(
    x: Tensor, p: Tensor, q: Tensor, grid: Grid, ends: tuple[int, int], how: tuple[int, float, float]
) -> Tensor:
    """The paper's iteration for one picture, with the slope of an affine f."""
    (i, j), (count, weight, eta) = ends, how
    keep = grid.alpha[j] / grid.alpha[i]
    beta = 1 - keep**2
    y, best, lowest = x, x, float("inf")
    for _ in range(count):
        image, away = p + q * y, y - keep * x
        value = float((y - image).abs().sum() + weight * away.norm() / beta)
        slope = (y - image).sign() * (1 - q) + weight * away / (away.norm() * beta)
        if value < lowest:
            best, lowest = image, value
        y = y - value / x.numel() / (slope + eta)
    return best


@pytest.mark.parametrize("ends", [(0, 1), (5, 6), (9, 10)])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_papers_update_is_that_of_the_closed_form(ends: tuple[int, int], count: int, weight: float) -> None:
    model = gaussian(shape=(1, 2, 3))
    grid, x = gaussian_grid(model, 10), normal(2, 1, 2, 3)
    clean = normal(2, 1, 2, 3, seed=1)
    step = newton_invert(count, weight, 1e-3)
    y, _ = step(predictor(model, grid, 2), x, grid, *ends, {"clean": clean})
    for k in range(2):
        p, q = affine(model, x[k], grid, *ends)
        assert rms(y[k] - by_hand(x[k], p[0], q[0], grid, ends, (count, weight, 1e-3))) < 1e-10


def test_one_coordinate_is_solved_by_one_newton_step() -> None:
    """With D = 1, no guidance and eta = 0 it is Newton-Raphson on an affine function: exact."""
    model = gaussian()
    grid, x = gaussian_grid(model, 10), normal(4, 1, 1, 1)
    for ends in [(0, 1), (5, 6), (9, 10)]:
        p, q = affine(model, x, grid, *ends)
        y, state = newton_invert(2, 0.0, 0.0)(predictor(model, grid, 4), x, grid, *ends, {"clean": x})
        assert rms(y - p / (1 - q)) < 1e-12
        assert rms(gaussian_ddim_step(model, y, grid, ends[1], ends[0]) - x) < 1e-11
        assert state["converged"].all()
        coarse, _ = sign_invert(2, 0.0)(predictor(model, grid, 4), x, grid, *ends, {"clean": x})
        assert rms(coarse - p / (1 - q)) > 1e-3 * rms(coarse)  # the code's slope is 1, so it is no Newton step


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_codes_update_moves_along_the_sign_by_the_mean_of_its_objective(count: int) -> None:
    model = gaussian(shape=(1, 2, 3))
    grid, x, clean = gaussian_grid(model, 10), normal(2, 1, 2, 3), normal(2, 1, 2, 3, seed=1)
    ours, _ = sign_invert(count, 0.1)(predictor(model, grid, 2), x, grid, 5, 6, {"clean": clean})
    for k in range(2):
        p, q = affine(model, x[k], grid, 5, 6)
        y, best, lowest = x[k], x[k], float("inf")
        for _ in range(count):
            image = (p + q * y)[0]
            far = (image - grid.alpha[6] * clean[k]) / grid.sigma[6]
            value = float(((image - y).abs() + 0.05 * far**2).mean())
            if value < lowest:
                best, lowest = image, value
            y = y + value * (image - y).sign()
        assert rms(ours[k] - best) < 1e-12


def test_one_iteration_is_ddim_digit_for_digit() -> None:
    model = unsample.wrap(smooth_network, DDIMScheduler(), sample_shape=(3, 4, 4))
    x = normal(2, 3, 4, 4)
    plain = unsample.invert(model, latents=x, num_inference_steps=5)
    for variant in ("paper", "code"):
        once = unsample.invert(model, latents=x, method=gnri(variant, 1), num_inference_steps=5)
        assert torch.equal(once.noise, plain.noise)


def test_the_variants_cost_what_they_say() -> None:
    model = unsample.wrap(smooth_network, DDIMScheduler(), sample_shape=(3, 4, 4))
    for variant, backward in (("paper", 12), ("code", 0)):
        made = gnri(variant, 3)
        inversion = unsample.invert(model, latents=normal(2, 3, 4, 4), method=made, num_inference_steps=4)
        assert inversion.nfe == [12] * 2 == [made.passes(Walked(4))] * 2
        assert inversion.backward == [backward] * 2 == [made.backward(Walked(4))] * 2


def test_a_picture_that_is_its_own_solution_stays() -> None:
    """Zeros: the residual and its slope are 0 there, and so is the code's divisor."""
    model = unsample.wrap(lambda x, t: 0.5 * x, DDIMScheduler(), sample_shape=(3, 4, 4))
    for variant in ("paper", "code"):
        made = gnri(variant, prior_weight=0.0)
        inversion = unsample.invert(model, latents=torch.zeros(1, 3, 4, 4), method=made, num_inference_steps=4)
        assert inversion.noise.abs().max() == 0
        assert inversion.status == ["ok"]


def test_a_picture_that_is_not_finite_leaves_the_others_alone() -> None:
    network = broken_from(500, lambda x: x.flatten(1).mean(1) > 0.5)
    model = unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=(3, 4, 4))
    x = torch.cat([normal(1, 3, 4, 4) * 0.1, 3 + normal(1, 3, 4, 4)])
    for variant in ("paper", "code"):
        with pytest.warns(UserWarning, match="picture 1 diverged"):
            together = unsample.invert(model, latents=x, method=gnri(variant), num_inference_steps=4)
        alone = unsample.invert(model, latents=x[:1], method=gnri(variant), num_inference_steps=4)
        assert torch.equal(alone.noise[0], together.noise[0])


def test_a_step_of_zero_length_moves_nothing() -> None:
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, timestep_spacing="linspace")
    model = gaussian(shape=(1, 2, 2), scheduler=scheduler)
    grid, x = gaussian_grid(model, 10), normal(2, 1, 2, 2)
    assert grid.alpha[0] == grid.alpha[1]
    for step in (newton_invert(2, 0.1, 1e-6), sign_invert(2, 0.0)):
        y, _ = step(predictor(model, grid, 2), x, grid, 0, 1, {"clean": x})
        assert rms(y - x) < 1e-14


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "v2"},
        {"num_iters": 0},
        {"prior_weight": -0.1},
        {"eta": -1.0},
        {"gradient_checkpointing": "yes"},
        {"eta": 0.1, "variant": "code"},
        {"gradient_checkpointing": True, "variant": "code"},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(settings))):
        gnri(**settings)
