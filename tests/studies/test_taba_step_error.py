"""The error of each step against networks that err at a step and in an area that we chose."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler

from unsample.models.gaussian import GaussianModel
from unsample.numbers.grid import grid_from_scheduler
from unsample.numbers.prediction import Prediction
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.walk import walk
from unsample.studies import taba_step_error as study
from unsample.studies.asking import asking
from unsample.studies.base import Asked

GRID = grid_from_scheduler(DDIMScheduler(clip_sample=False), 10)


class Constant:
    """A network of one eps for every point, but where it is asked for `level` at the point of another level."""

    def __init__(self, level: int, where: torch.Tensor) -> None:
        self.grid, self.level, self.where = GRID, level, where
        self.at: dict[float, int] = {}
        self.eps = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def __call__(self, x: torch.Tensor, i: int) -> Prediction:
        near = min(self.at, key=lambda total: abs(total - float(x.sum())), default=None)  # up to rounding
        own = near is None or self.at[near] == i
        eps = self.eps + (0.5 * self.where if i == self.level and not own else 0)
        return Prediction(lambda: (x - self.grid.sigma[i] * eps) / self.grid.alpha[i], eps)


def sampled(predict: Any, noise: torch.Tensor) -> torch.Tensor:
    points = [noise]
    walk(ddim_sample, predict, noise, GRID, range(10, -1, -1), None, lambda k, j, x, s: points.append(x) or x)
    return torch.stack(points[::-1])


def test_a_planted_error_is_found_at_its_step_and_in_its_area() -> None:
    where = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    where[..., :3] = 1
    predict = Constant(4, where)
    trajectory = sampled(
        predict, torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    )
    predict.at = {float(x.sum()): i for i, x in enumerate(trajectory)}
    found, truth = study.errors(predict, trajectory)
    assert torch.allclose(truth, predict.eps.expand_as(truth), atol=1e-9)
    expected = torch.zeros(10, 1, 3, 8, 8, dtype=torch.float64)
    expected[3] = 0.5 * where
    assert torch.allclose(found["target"], expected, atol=1e-9)
    assert float(found["source"].max()) < 1e-9  # that convention never asks at another point's level


def test_the_truth_is_what_the_network_said_and_the_source_is_one_step_behind() -> None:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(3, 3, 4, 4, generator=generator)
    model = GaussianModel(means, torch.full_like(means, 0.1), DDIMScheduler(clip_sample=False))
    with asking(model, 10, None, 2) as predict:
        noise = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
        trajectory = sampled(predict, noise)
        found, truth = study.errors(predict, trajectory)
        for j in range(1, 11):
            said = predict(trajectory[j], j).eps
            assert torch.allclose(truth[j - 1], said, atol=1e-8)
            assert torch.allclose(
                found["source"][j - 1], (predict(trajectory[j - 1], j - 1).eps - said).abs(), atol=1e-8
            )
            assert torch.allclose(found["target"][j - 1], (predict(trajectory[j - 1], j).eps - said).abs(), atol=1e-8)


def test_an_inversion_from_after_the_planted_error_is_the_truth_and_one_from_before_is_off_where_it_was() -> None:
    where = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    where[..., :3] = 1
    predict = Constant(4, where)
    trajectory = sampled(
        predict, torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    )
    predict.at = {float(x.sum()): i for i, x in enumerate(trajectory)}
    assert torch.allclose(study.inverted_from(predict, trajectory, 4), trajectory[-1], atol=1e-9)
    off = (study.inverted_from(predict, trajectory, 0) - trajectory[-1]).abs()
    a, s = GRID.alpha, GRID.sigma
    assert torch.allclose(off, 0.5 * where * a[10] * (s[4] / a[4] - s[3] / a[3]), atol=1e-9)


def test_sums_are_over_the_first_tenth_and_the_rest() -> None:
    error = [4.0] + [1.0] * 19
    areas = dict.fromkeys(("plain", "textured", "all"), error)
    probed = {"target": areas, "source": areas, "norm": [2.0] * 20, "moves": [0.5] * 20}
    cell = {"model": "m", "item": "a", "steps": 20, "probed": probed}
    asked = Asked(models=("m",), num_samples=1, steps=20)
    rows = [r for r in study.rows([cell], asked) if r["kind"] == "sum" and r["eps_at"] == "target"]
    assert {(r["area"], r["part"]): (r["error"], r["moved"]) for r in rows} == {
        (area, part): value for area in areas for part, value in (("first", (2.5, 2.5)), ("rest", (9.0, 9.0)))
    }
    assert [r["error"] for r in study.rows([cell], asked) if r["kind"] == "step"][:2] == [2.0, 0.5]
