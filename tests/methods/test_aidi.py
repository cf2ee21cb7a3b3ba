"""AIDI against Anderson's least squares written out, and against sequences whose limits are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import unsample
from tests.problems import gaussian, gaussian_ddim_step, gaussian_grid, mixture, mixture_picture, normal, predictor, rms
from unsample.errors import BadOption
from unsample.methods import aidi_a, aidi_e, fixed_point
from unsample.numbers.grid import Grid
from unsample.numbers.prediction import Prediction
from unsample.numbers.solvers.anderson import anderson, average_two, mixing_weights
from unsample.numbers.solvers.fixed_point import fixed_point_invert

# one step at which F(y) = y_i + eps(y): the test chooses the map itself
LINE = Grid((1.0, 1.0), (0.0, 1.0), (0, 10), (1.0, 1.0), (0.1, 1.0))
PLAIN = pytest.mark.filterwarnings("ignore:invert. .* did not converge")


def predict_of(eps: Any) -> Any:
    def predict(x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        found = eps(x, torch.arange(len(x)) if rows is None else rows)
        return Prediction(x - found, found)

    return predict


def pictures(model: Any, count: int = 2) -> Tensor:
    return torch.cat([mixture_picture(model, k, k + 5) for k in range(count)]).double() * 2 - 1


@PLAIN
@pytest.mark.parametrize("method", [aidi_e(1), aidi_a(1), aidi_a(1, memory=1)])
def test_one_iteration_is_ddim_digit_for_digit(method: Any) -> None:
    model = mixture()
    x = pictures(model)
    plain = unsample.invert(model, latents=x, num_inference_steps=10)
    once = unsample.invert(model, latents=x, method=method, num_inference_steps=10)
    assert torch.equal(once.noise, plain.noise)
    assert once.nfe == plain.nfe


@PLAIN
def test_a_memory_of_one_is_the_naive_iteration() -> None:
    model = mixture()
    x = pictures(model)
    naive, mixed = (
        unsample.invert(model, latents=x, method=m, num_inference_steps=10) for m in (fixed_point(4), aidi_a(4, 1))
    )
    assert torch.equal(naive.noise, mixed.noise)


def test_the_empirical_iterates_are_the_transfer_of_averaged_predictions() -> None:
    """x3 by hand: eps is averaged, not images, and the transfer of the average taken; equal since it is affine."""
    model = mixture(prompts=False)
    grid, x = gaussian_grid(model, 10), pictures(model)
    predict = predictor(model, grid, 2)
    for i, j in [(0, 1), (4, 5)]:
        first = predict(x, j).eps
        x1 = unsample.numbers.grid.transfer(x, first, grid, i, j)
        second = predict(x1, j).eps
        x2 = unsample.numbers.grid.transfer(x, (first + second) / 2, grid, i, j)
        third = predict(x2, j).eps
        x3 = unsample.numbers.grid.transfer(x, (second + third) / 2, grid, i, j)
        found, _ = fixed_point_invert(3, None, average_two, 2)(predict, x, grid, i, j, {})
        assert rms(found - x3) < 1e-13


def test_anderson_with_two_iterates_is_the_secant_method_on_a_line() -> None:
    """A linear map of one unknown: parallel residuals, and the exact solution in the third call."""
    gains = torch.tensor([0.9, -3.0, 0.2]).double()[:, None, None, None]  # the second diverges by itself
    x = normal(3, 1, 2, 2)
    y, state = fixed_point_invert(3, None, anderson(1e-10), 2)(
        predict_of(lambda y, rows: 1 + gains[rows] * y), x, LINE, 0, 1, {}
    )
    assert rms(y - (x + 1) / (1 - gains)) < 1e-8
    assert state["converged"].all()


def test_the_weights_are_those_of_the_constrained_least_squares() -> None:
    """The second derivation: Lagrange's equations of min |sum w r| under sum w = 1, by a general solver."""
    residuals = [normal(2, 3, 4, 4, seed=k) for k in range(3)]
    weights = mixing_weights(residuals, 0.0)
    for b in range(2):
        rows = torch.stack([r[b].flatten() for r in residuals])
        system = torch.zeros(4, 4).double()
        system[:3, :3], system[:3, 3], system[3, :3] = 2 * rows @ rows.T, 1, 1
        wanted = torch.linalg.solve(system, torch.tensor([0.0, 0, 0, 1]).double())[:3]
        assert rms(weights[b] - wanted) < 1e-12
    assert rms(weights.sum(1) - 1) < 1e-14


def test_each_picture_has_weights_of_its_own_and_a_singular_one_takes_the_plain_step() -> None:
    residuals = [normal(3, 1, 4, 4, seed=k) for k in range(3)]
    residuals[0][1] = residuals[1][1] = residuals[2][1]  # no difference: singular
    residuals[0][2] = torch.nan
    weights = mixing_weights(residuals, 0.0)
    assert torch.equal(weights[1:], torch.tensor([[0.0, 0, 1], [0, 0, 1]]).double())
    alone = mixing_weights([r[:1] for r in residuals], 0.0)
    assert rms(weights[0] - alone[0]) < 1e-14
    images = [normal(3, 1, 4, 4, seed=k + 7) for k in range(3)]
    images[0][2] = torch.nan
    mixed = anderson(0.0)(images, residuals)
    assert torch.equal(mixed[1:], images[-1][1:])


def test_anderson_needs_fewer_iterations_than_the_naive_one_and_finds_the_closed_form() -> None:
    model, tol = gaussian(shape=(1, 4, 4)), 1e-12
    grid, x = gaussian_grid(model, 10), 0.4 + 0.5 * normal(3, 1, 4, 4)
    spent = {}
    for name, step in {
        "naive": fixed_point_invert(200, tol),
        "anderson": fixed_point_invert(200, tol, anderson(1e-10), 3),
    }.items():
        predict = predictor(model, grid, 3)
        y, state = step(predict, x, grid, 4, 5, {})
        assert state["converged"].all()
        assert rms(gaussian_ddim_step(model, y, grid, 5, 4) - x) < 1e-10
        spent[name] = predict.cost.nfe
    assert max(spent["anderson"]) < min(spent["naive"])


def test_a_lost_picture_does_not_reach_the_history_of_its_neighbours() -> None:
    """Rows leave the loop at different iterations; the others' memory must follow them."""
    gains = torch.tensor([0.0, 0.5, 0.8]).double()[:, None, None, None]
    x, solution = normal(3, 1, 2, 2), None
    for accelerate, memory in ((average_two, 2), (anderson(1e-10), 3)):
        step = fixed_point_invert(100, 1e-10, accelerate, memory)
        together, _ = step(predict_of(lambda y, rows: 1 + gains[rows] * y.tanh()), x, LINE, 0, 1, {})
        for k in range(3):
            alone, _ = step(predict_of(lambda y, rows, k=k: 1 + gains[k] * y.tanh()), x[k : k + 1], LINE, 0, 1, {})
            assert rms(alone[0] - together[k]) < 1e-13
        solution = together if solution is None else solution
        assert rms(together - solution) < 1e-8  # and both accelerators find the same point


@pytest.mark.parametrize("settings", [{"num_iters": 0}, {"memory": 0}, {"ridge": -1.0}, {"ridge": 2.0}, {"tol": -1.0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=rf"aidi_a: {next(iter(settings))} must be"):
        aidi_a(**settings)
    if set(settings) <= {"num_iters", "tol"}:
        with pytest.raises(BadOption, match="aidi_e"):
            aidi_e(**settings)
