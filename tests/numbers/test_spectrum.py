"""The first step's spectral radius, where it is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.problems import gaussian, normal, predictor
from unsample.numbers.spectrum import PRODUCTS, first_step_radius, spectral_radius


def matrices() -> Tensor:
    """Symmetric matrices (3, 64, 64) of radius 0.4, 1.3 (of the other sign) and 2, the rest in a smooth spectrum."""
    found = []
    for k, largest in enumerate((0.4, -1.3, 2.0)):
        basis = torch.linalg.qr(normal(64, 64, seed=k)).Q
        own = torch.cat([torch.tensor([largest]).double(), 0.5 * largest * torch.linspace(-0.9, 1, 63).double()])
        found.append(basis @ torch.diag(own) @ basis.mT)
    return torch.stack(found)


def test_the_radius_of_known_matrices_alone_as_in_a_batch() -> None:
    matrix, at = matrices(), normal(3, 1, 8, 8, seed=9)
    asked: list[int] = []

    def curved(rows: list[int]):  # type: ignore[no-untyped-def]
        def evaluate(y: Tensor) -> Tensor:
            asked.append(len(y))
            off = (y - at[rows]).flatten(1)
            return ((matrix[rows] @ off[:, :, None])[..., 0] + off.square()).view_as(y)

        return evaluate

    found = spectral_radius(curved([0, 1, 2]), at, 0.01)
    assert found.tolist() == pytest.approx([0.4, 1.3, 2.0], rel=0.02)
    assert asked == [3] * (PRODUCTS + 1)
    for k in range(3):
        assert float(spectral_radius(curved([k]), at[[k]], 0.01)) == pytest.approx(float(found[k]), abs=1e-9)


def test_a_picture_that_is_not_finite_has_no_radius_and_leaves_the_others_alone() -> None:
    matrix, at = matrices(), normal(3, 1, 8, 8, seed=9)

    def linear(y: Tensor) -> Tensor:
        return (matrix @ y.flatten(1)[:, :, None])[..., 0].view_as(y)

    sound = spectral_radius(linear, at, 1.0)
    lost = at.clone()
    lost[1, 0, 0, 0] = torch.inf
    found = spectral_radius(linear, lost, 1.0)
    assert math.isnan(float(found[1]))
    assert found[[0, 2]].tolist() == pytest.approx(sound[[0, 2]].tolist(), abs=1e-9)


def test_the_radius_of_a_gaussians_first_step() -> None:
    """eps(x, t) = sigma (x - alpha mu) / (alpha^2 v + sigma^2), so that F is linear with one slope."""
    model = gaussian(variance=1e-4, shape=(1, 4, 4))
    predict = predictor(model, model.grid(10), 2)
    grid = predict.grid
    a, s = grid.alpha[1], grid.sigma[1]
    slope = (s - a * grid.sigma[0] / grid.alpha[0]) * s / (a * a * 1e-4 + s * s)
    x0, x1 = normal(2, 1, 4, 4, seed=1), normal(2, 1, 4, 4, seed=2)
    assert first_step_radius(predict, x0, x1).tolist() == pytest.approx([abs(slope)] * 2, rel=1e-6)
    assert predict.cost.nfe == [PRODUCTS + 1] * 2
