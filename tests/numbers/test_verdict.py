"""The rule of the grade, and the first step's test."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.problems import gaussian, normal
from unsample.numbers.verdict import first_steps, graded


@pytest.mark.parametrize(
    ("residual", "radius", "grade", "why"),
    [
        (1e-5, 0.2, "recovered", "the first step contracts (spectral radius 0.20)"),
        (1e-3, 0.89, "recovered", "1.0e-03, at step 2"),
        (1e-5, 0.9, "reconstructs only", "the first step hardly contracts (spectral radius 0.90)"),
        (2e-3, 0.2, "reconstructs only", "2.0e-03, at step 2: not at most 0.001"),
        (1e-5, None, "reconstructs only", "takes the first step's spectral radius"),
        (2e-2, 0.2, "neither", "not at most 0.01"),
        (None, 0.2, "neither", "is not finite"),
    ],
)
def test_the_grade_follows_from_the_residual_and_the_radius(
    residual: float | None, radius: float | None, grade: str, why: str
) -> None:
    row = {"residual": residual, "residual_step": 2, "first_step": {"shell": 3.0, "outer": True, "radius": radius}}
    found, reason = graded(row, "ok", None, exact=True, steps=50)
    assert found == grade
    assert why in reason
    of_picture, reason = graded(row, "ok", None, exact=False, steps=50)
    assert of_picture == ("neither" if grade == "neither" else "reconstructs only")
    assert ("rounding" in reason) is (grade != "neither")
    assert graded(row, "ok", None, exact=True, steps=50, guidance=3.0)[0] == grade
    guided, reason = graded(row, "ok", None, exact=True, steps=50, guidance=3.1)
    assert guided == of_picture
    assert ("in 50 steps under guidance 3.1, above 3," in reason) is (grade != "neither")
    assert graded(row, "ok", "it draws", exact=True, steps=50) == (None, "it draws")
    assert graded(row, "diverged", None, exact=True, steps=50) == ("neither", "it diverged")


@pytest.mark.parametrize(
    ("residual", "steps", "guidance", "grade", "why"),
    [
        (1e-4, 49, 1.0, "recovered", "contracts"),
        (1e-4, 20, 0.0, "recovered", "contracts"),
        (2e-4, 20, 1.0, "reconstructs only", "not at most 0.0001 in 20 steps"),
        (1e-5, 20, 1.1, "reconstructs only", "in 20 steps under guidance 1.1, above 1,"),
        (1e-5, 19, 1.0, "reconstructs only", "in fewer than 20 steps no figure tells"),
        (1e-3, 1000, 3.0, "recovered", "contracts"),
    ],
)
def test_fewer_steps_ask_for_more(residual: float, steps: int, guidance: float, grade: str, why: str) -> None:
    row = {"residual": residual, "residual_step": 2, "first_step": {"radius": 0.2}}
    found, reason = graded(row, "ok", None, exact=True, steps=steps, guidance=guidance)
    assert found == grade
    assert why in reason
    if steps >= 50:
        of_flow = graded(row, "ok", None, exact=True, steps=steps, flow=True, guidance=1.0)
        assert of_flow[0] == "reconstructs only"
        assert of_flow[1].endswith("not at most 0.0001 in 1000 steps of a flow")


def test_the_shell_is_the_rms_of_the_eps_of_the_first_step() -> None:
    grid = gaussian().grid(10)
    grid = replace(grid, alpha=(0.995, *grid.alpha[1:]), sigma=((1 - 0.995**2) ** 0.5, *grid.sigma[1:]))
    eps = normal(3, 1, 4, 4, seed=1)
    eps = eps / eps.flatten(1).square().mean(1).sqrt()[:, None, None, None]
    eps = eps * torch.tensor([0.5, 1.2, 1.0])[:, None, None, None]
    x = normal(3, 1, 4, 4)
    x0, x1 = (grid.alpha[i] * x + grid.sigma[i] * eps for i in (0, 1))
    x1[2, 0, 0, 0] = torch.nan
    found = first_steps(x0, x1, grid, torch.tensor([0.3, torch.nan, 0.1]))
    assert [row["shell"] for row in found] == [pytest.approx(0.5), pytest.approx(1.2), None]
    assert [row["outer"] for row in found] == [False, True, False]
    assert [row["radius"] for row in found] == [pytest.approx(0.3), None, pytest.approx(0.1)]
