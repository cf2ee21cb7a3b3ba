"""Roots that a fixed-point iteration runs away from, found from evaluations of the map alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.problems import normal, rms
from unsample.numbers.solvers.krylov import arnoldi, krylov_solve

SIZE = (1, 4, 4)
ROWS = torch.arange(3)


def linear(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A symmetric matrix a picture (3, 16, 16) whose eigenvalues are of both signs, a root, and a start."""
    vectors = torch.linalg.qr(normal(3, 16, 16, seed=seed).double()).Q
    values = torch.linspace(-1.5, 1.4, 16).double()
    return (
        vectors @ torch.diag(values) @ vectors.mT,
        normal(3, *SIZE, seed=1).double(),
        normal(3, *SIZE, seed=2).double(),
    )


def test_an_indefinite_linear_map_is_solved_in_one_round_of_the_whole_space() -> None:
    matrix, root, start = linear()
    asked: list[int] = []

    def evaluate(y: Tensor, rows: Tensor) -> Tensor:
        asked.append(len(rows))
        return (matrix[rows] @ (y - root[rows]).flatten(1)[:, :, None])[..., 0].reshape(y.shape)

    found, left = krylov_solve(evaluate, start, ROWS, scale=1.0, vectors=16, rounds=1, damping=1e-12, tol=0.0)
    assert rms(found - root) < 1e-6
    assert rms(left) < 1e-6
    assert asked == [3] * (1 + 16 + 3)  # a round asks once a vector, and once a damping
    y = start.clone()
    for _ in range(30):
        y = y + evaluate(y, ROWS)
    assert rms(y - root) > 10 * rms(start - root)  # where y + g(y), the fixed point, runs away


def test_the_projection_is_that_of_the_derivative() -> None:
    matrix, _, start = linear()

    def evaluate(y: Tensor) -> Tensor:
        return (matrix @ y.flatten(1)[:, :, None])[..., 0].reshape(y.shape)

    basis, projected = arnoldi(evaluate, start, evaluate(start), 1.0, 5)
    assert rms(basis @ basis.mT - torch.eye(5).double()) < 1e-12
    assert rms(basis @ matrix @ basis.mT - projected[:, :5]) < 1e-9
    assert projected.tril(-2)[:, :5].abs().max() == 0


def test_a_picture_that_is_done_costs_nothing_more_and_each_has_its_own_steps() -> None:
    matrix, root, start = linear()
    start = torch.cat([root[:1], start[1:]])
    asked = torch.zeros(3, dtype=torch.int64)

    def evaluate(y: Tensor, rows: Tensor) -> Tensor:
        asked[rows] += 1
        bent = (y - root[rows]) + 0.2 * (y - root[rows]).pow(3)
        return (matrix[rows] @ bent.flatten(1)[:, :, None])[..., 0].reshape(y.shape)

    given = {"scale": 1.0, "vectors": 12, "rounds": 4, "damping": 0.1, "tol": 1e-9}
    found, _ = krylov_solve(evaluate, start, ROWS, **given)  # type: ignore[arg-type]
    assert asked.tolist() == [1, 61, 61]
    assert torch.equal(found[0], root[0])
    for k in (1, 2):
        alone, _ = krylov_solve(evaluate, start[k : k + 1], ROWS[k : k + 1], **given)  # type: ignore[arg-type]
        assert rms(alone[0] - found[k]) < 1e-9


@pytest.mark.parametrize("damping", [1e3, 1e-12])
def test_no_round_makes_it_worse(damping: float) -> None:
    """A step that is too long, or hardly one, is kept only where the residual falls."""

    def evaluate(y: Tensor, rows: Tensor) -> Tensor:
        return (6 * y).sin() + 0.1 * y

    start = normal(3, *SIZE, seed=3).double()
    last = evaluate(start, ROWS).flatten(1).norm(dim=1)
    for rounds in (1, 2, 3):
        _, left = krylov_solve(evaluate, start, ROWS, scale=1.0, vectors=6, rounds=rounds, damping=damping, tol=0.0)
        assert (left.flatten(1).norm(dim=1) <= last).all()
        last = left.flatten(1).norm(dim=1)
