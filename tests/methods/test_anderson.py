"""Inversion to a tolerance: what it ends at, what it costs, and when it says that it did not come there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import unsample
from tests.problems import gaussian_grid, mixture, normal, predictor, rms
from unsample.errors import UnsampleWarning
from unsample.methods import Walked, anderson, fixed_point, get_method
from unsample.numbers.grid import Grid
from unsample.numbers.prediction import Prediction
from unsample.numbers.solvers.ddim import carry
from unsample.numbers.solvers.leaving import leave, shell

T = 20


def made(count: int = 3, **more: Any) -> tuple[Any, Any]:
    model = mixture(prompts=False)
    return model, unsample.sample(
        model, noise=normal(count, *model.sample_shape, seed=11).double(), num_inference_steps=T, **more
    )


def test_every_step_ends_at_the_root_of_its_equation() -> None:
    model, sampled = made()
    points: list[Tensor] = []
    keep = {"callback_on_step_end": lambda model, k, t, state: points.append(state["latents"]) or {}}
    found = unsample.invert(model, latents=sampled.latents, method=anderson(tol=1e-9),
                            num_inference_steps=T, **keep)  # fmt: skip
    grid = gaussian_grid(model, T)
    predict, before = predictor(model, grid, 3), sampled.latents
    for j, point in enumerate(points, start=1):
        left = carry(before, predict(point, j), grid, j - 1, j) - point
        assert rms(left) < 2e-9 * grid.sigma[j] * 10
        before = point
    assert found.status == ["ok"] * 3
    again = unsample.reconstruct(model, found)
    assert rms(again.latents - sampled.latents) < 1e-8


def test_it_finds_the_noise_for_less_than_half_of_ten_iterations_a_step() -> None:
    model, sampled = made()
    ours, plain = (
        unsample.invert(model, latents=sampled.latents, method=m, num_inference_steps=T)
        for m in (anderson(), fixed_point(10))
    )
    off = [rms(one.noise - sampled.noise) for one in (ours, plain)]
    assert off[0] < off[1] / 10
    assert max(ours.nfe) < min(plain.nfe) / 2
    assert max(ours.nfe) <= anderson().passes(Walked(T))


def test_a_smaller_tolerance_costs_more_and_ends_nearer() -> None:
    model, sampled = made()
    loose, strict = (
        unsample.invert(model, latents=sampled.latents, method=anderson(tol=t), num_inference_steps=T)
        for t in (1e-2, 1e-8)
    )
    assert sum(loose.nfe) < sum(strict.nfe)
    assert rms(strict.noise - sampled.noise) < rms(loose.noise - sampled.noise) / 100


def test_what_it_says_of_a_picture_that_did_not_converge() -> None:
    model, sampled = made()
    with pytest.warns(UnsampleWarning, match="anderson did not converge"):
        short = unsample.invert(model, latents=sampled.latents, method=anderson(first_iters=1, max_iters=1),
                                num_inference_steps=4)  # fmt: skip
    assert "not_converged" in short.status


# One step at which F(y) = x + eps(y), and an eps with a root that repels, at .5, and one outside, at 2
LINE = Grid((1.0, 1.0), (0.0, 1.0), (0, 10), (1.0, 1.0), (0.1, 1.0))


def two_roots(x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
    return Prediction(x, x - 0.8 + 0.5 * (x - 0.5) * (2 - x))


@pytest.mark.parametrize(("restart", "root"), [(False, 2.0), (True, 0.5)])
def test_a_picture_that_ends_outside_begins_again_where_it_is_asked_to(restart: bool, root: float) -> None:
    """The iteration leaves .8 upwards and ends at 2, at an eps of 1.2; Newton's step goes down to .5."""
    x = torch.full((2, 1, 4, 4), 0.8, dtype=torch.float64)
    found, told = leave(60, 1, 1e-6, restart)(two_roots, x, LINE, 0, 1, {})
    assert torch.allclose(found, torch.full_like(found, root), atol=1e-5)
    assert told["converged"].all()
    assert told["residual"].max() < 1e-5
    assert torch.allclose(shell(x, found, LINE, 0, 1), torch.full((2,), abs(root - 0.8)).double(), atol=1e-5)


@pytest.mark.parametrize("wrapper", ["forward_first", "oracle", "easyinv"])
def test_it_goes_on_from_another_methods_first_steps(wrapper: str) -> None:
    model, sampled = made(keep_trajectory=True)
    method = get_method(wrapper, {"base": "anderson"})
    given = {"trajectory": sampled.trajectory} if method.needs_trajectory else {}
    found = unsample.invert(model, latents=sampled.latents, method=method, num_inference_steps=T, **given)
    assert not found.state
    assert max(found.nfe) <= method.passes(Walked(T))


def test_counts_are_each_pictures_own() -> None:
    model, sampled = made()
    together = unsample.invert(model, latents=sampled.latents, method="anderson", num_inference_steps=T)
    for k in range(3):
        alone = unsample.invert(model, latents=sampled.latents[k : k + 1], method="anderson", num_inference_steps=T)
        assert alone.nfe == together.nfe[k : k + 1]
        assert rms(alone.noise[0] - together.noise[k]) < 1e-8
