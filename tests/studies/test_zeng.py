"""The statistics of the studies of Zeng et al., on data whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from unsample.studies import zeng_first_step as first
from unsample.studies import zeng_selfinterpolation as between
from unsample.studies import zeng_table1 as table
from unsample.studies.base import REPELLING, Asked
from unsample.studies.zeng import called, grid_of, hybrid, in_order, on_both, split


@pytest.mark.parametrize("largest", [0.3, -1.8])
def test_the_dominant_eigenvalue_is_that_of_the_matrix(largest: float) -> None:
    generator = torch.Generator().manual_seed(1)
    basis = np.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64).numpy())[0]
    own = np.array([largest, *np.linspace(-0.1, 0.1, 11)])
    matrix = torch.tensor(basis @ np.diag(own) @ basis.T)
    at = torch.randn(3, 3, 2, 2, generator=generator, dtype=torch.float64)

    def curved(x: torch.Tensor) -> torch.Tensor:
        flat = (x - at).flatten(1) @ matrix
        return (flat + flat.square()).view_as(x)  # a square has no derivative where it is 0

    found = first.dominant(curved, at, 0.1)
    exact = max(np.linalg.eigvalsh(matrix.numpy()), key=abs)
    assert exact == pytest.approx(largest)
    assert found.tolist() == pytest.approx([exact] * 3, rel=1e-3)


def test_an_error_that_was_planted_in_the_first_step_is_located() -> None:
    """Of a walk that is exact after its first step all of the error is early; of one that errs evenly a tenth is."""
    steps, sigma = 50, np.linspace(0.02, 1, 51)
    truth = np.random.default_rng(0).standard_normal((51, 4, 1, 6, 6))
    planted = truth + 0.3 * sigma[:, None, None, None, None] * np.sign(truth)
    planted[0] = truth[0]
    errors = [
        first.off(torch.tensor(planted[i]), torch.tensor(truth[i]), sigma[i]) for i in (1, first.tenth(steps), 50)
    ]
    assert [float(e.mean()) for e in errors] == pytest.approx([0.09] * 3)
    grown = truth + (np.arange(51) / 50)[:, None, None, None, None] ** 0.5 * sigma[:, None, None, None, None]
    early, last = (
        first.off(torch.tensor(grown[i]), torch.tensor(truth[i]), sigma[i]) for i in (first.tenth(steps), 50)
    )
    assert float((early / last).mean()) == pytest.approx(0.1)


def test_the_rows_of_a_walk_say_where_it_lost_the_noise() -> None:
    looked = [[i, 0.1 * i, 0.4, 0.5 if i == 1 else 0.01] for i in first.looked_at(10)]
    told = {"sigma1": 0.1, "eigenvalue": -1.3, "fixed_30": 0.5, "steps": 10, "spacing": "leading", "end": "one"}
    cell = {"model": "scenes-mixture", "item": "a", "probed": {"grids": [told | {"looked": looked}]}}
    found = list(first.rows([cell], Asked(models=("scenes-mixture",), num_samples=1, steps=10)))
    grid, local = found[0], {row["where"]: row["local"] for row in found[1:]}
    assert (grid["early"], grid["agrees"], grid["model"]) == (1.0, 1.0, "scenes-mixture")
    assert grid["paper"]
    assert local == {"first": 0.5, "middle": 0.01, "other": 0.01}


def test_the_steps_that_are_looked_at() -> None:
    assert first.looked_at(1) == [1]
    assert first.looked_at(50) == [1, 2, 3, 5, 10, 20, 25, 50]
    asked = Asked(models=("scenes-sd",), num_samples=4, steps=1000)
    assert first.counts(asked) == [10, 50, 200, 1000]
    assert [len(some) for some in first.grids(asked)] == [12, 3, 1]
    assert [plan["datasets"]["recovered"] for plan in first.plans(asked)] == [
        "generated:4,split=report",
        "generated:2,split=report",
        "generated:4,split=report",
    ]


def test_a_picture_is_kept_as_it_is() -> None:
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = between.array(between.pixels(picture))
    assert np.abs(kept / 255 - picture.movedim(0, -1).numpy()).max() <= 0.5 / 255 + 1e-6
    assert between.array(between.pixels(picture.repeat(1, 8, 8))).shape == (32, 32, 3)
    assert float(between.shown(torch.zeros(4, 2, 2)).mean()) == 0.5


def test_bundled_models_are_asked_on_two_grids_and_rows_say_which() -> None:
    given = ("scenes-sd", "google/ddpm-church-256", "scenes-ddpm[timestep_spacing=trailing]")
    asked = Asked(models=given, num_samples=2)
    both = on_both(asked).models
    assert both == ("scenes-sd", "scenes-sd" + REPELLING, *given[1:])
    told = [grid_of(model) for model in both]
    assert told[:2] == [{"model": "scenes-sd", "grid": "own"}, {"model": "scenes-sd", "grid": "trailing"}]
    assert [each["grid"] for each in told[2:]] == ["own", "trailing"]
    assert told[3]["model"] == given[2]
    assert in_order([*reversed(told)], asked) == told


def test_a_row_of_table_1_carries_the_eigenvalue_of_its_picture_and_grid() -> None:
    def cell(model: str, method: str, **probed: float) -> dict[str, Any]:
        about = {"values": {"recovered.e_latent": {"value": 0.5}}, "status": "ok", "nfe": 6, "backward": 0}
        return about | {"model": model, "item": "a", "method": method, "probed": probed}

    longer = "scenes-ddpm" + REPELLING
    cells = [cell(longer, "ddim", eigenvalue=1.2), cell(longer, "hybrid[lr=1]"), cell("scenes-ddpm", "ddim")]
    found = [*table.rows(cells, Asked(models=("scenes-ddpm",), num_samples=1))]
    assert [(r["grid"], r["method"], r["eigenvalue"]) for r in found] == [
        ("own", "ddim", None),
        ("trailing", "ddim", 1.2),
        ("trailing", "hybrid", 1.2),
    ]


def test_the_hybrid_has_the_papers_updates_on_models_that_are_not_ours() -> None:
    asked = Asked(models=("scenes-sd", "mini-ink-linear-epsilon-0", "google/ddpm-church-256"), num_samples=8)
    assert [(own.models, own.num_samples) for own in split(asked)] == [
        (("mini-ink-linear-epsilon-0",), 8),
        (("scenes-sd",), 4),
        (("google/ddpm-church-256",), 8),
    ]
    assert hybrid("google/ddpm-church-256", asked) == "hybrid"
    assert "num_updates=200" in hybrid("scenes-sd", asked)
    assert called("fixed_point[num_iters=10]") == "aidi"
    assert math.isclose(sum(between.ALPHAS), 5.5)
