"""What the studies of the first steps compute, against answers that are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unsample.bench.run import How
from unsample.studies import get_study
from unsample.studies.base import packed
from unsample.studies.first_steps import jackknifed, levels_of, mean_absolute, rows_by_level, sharpness, top_correlation
from unsample.studies.running import asked_of, run_study


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_a_planted_correlation_is_found_and_white_noise_has_only_its_floor() -> None:
    white = noise(60)
    planted = white.clone()
    for k in range(20):  # in each patch the first values of 20 neighbouring pairs share most of what they are
        y, x = divmod(k, 4)
        planted[..., y::8, 2 * x + 1 :: 8] = (
            0.9 * white[..., y::8, 2 * x :: 8] + 0.19**0.5 * white[..., y::8, 2 * x + 1 :: 8]
        )
    assert top_correlation(planted) == pytest.approx(0.9, abs=0.02)
    floor = top_correlation(white)
    assert floor is not None
    assert 0.15 < floor < 0.3  # 240 patches


def test_the_correlation_is_that_of_numpy_over_all_patches() -> None:
    latents = noise(5, 3)
    rows = [p[y : y + 8, x : x + 8].ravel() for (p,) in latents.numpy() for y in (0, 8) for x in (0, 8)]
    found = np.corrcoef(np.array(rows, dtype=np.float64).T)
    largest = sorted((abs(found[a, b]) for a, b in itertools.combinations(range(64), 2)), reverse=True)[:20]
    assert top_correlation(latents) == pytest.approx(np.mean(largest), abs=1e-12)
    assert top_correlation(torch.zeros(4, 1, 16, 16)) is None


def test_pseudo_values_of_a_mean_are_the_pictures_own_means() -> None:
    latents = noise(6)
    parts = jackknifed(latents, lambda some: float(some.double().mean()))
    assert parts == pytest.approx(latents.double().flatten(1).mean(1).tolist())
    assert jackknifed(latents[:1], top_correlation) == [None]


def test_sharpness_and_error_of_stripes() -> None:
    stripes = torch.zeros(1, 3, 4, 4)
    stripes[..., ::2] = 1  # every step to the right is one of 1, none down
    assert sharpness(stripes) == [0.5]
    assert mean_absolute(stripes, torch.zeros_like(stripes)) == [0.5]


def test_levels_and_their_rows_keep_what_belongs_together() -> None:
    levels = levels_of((0.0, 0.04, 0.1, 1.0), 50)
    assert levels == {"0 %": 0, "4 %": 2, "10 %": 5, "100 %": 50}
    assert levels_of((0.0, 0.04, 0.1), 4) == {"0 %": 0, "4 %": 1, "10 %": 1}
    cells = []
    for k, scale in ((0, 0.5), (2, 1.0), (5, 1.0), (50, 1.0)):
        for n, one in enumerate(noise(4)):
            told = {
                "k": k,
                "latent": packed(scale * one),
                "true": packed(one),
                "kl": 0.25 * (k == 0),
                "kl_noise": 0.125,
            }
            cells.append({"model": "m", "item": f"i{n}", "status": "ok", "probed": told | {"noise_mae": 1.0 - scale}})
    rows = list(rows_by_level(cells, (0.0, 0.04, 0.1, 1.0), 50, ("kl", "noise_mae", "edit_mae")))
    assert [row["replaced"] for row in rows[::4]] == ["0 %", "4 %", "10 %", "100 %", "noise"]
    first, last = rows[0], rows[-1]
    assert (first["kl"], first["noise_mae"], first["edit_mae"]) == (0.25, 0.5, None)
    assert (last["kl"], last["noise_mae"], last["edit_mae"]) == (0.125, 0.0, None)
    assert first["correlation"] == pytest.approx(rows[16]["correlation"])  # a scale correlates nothing


def test_true_predictions_in_every_step_are_the_true_noise_and_all_that_follows(tmp_path: Path) -> None:
    asked = asked_of(get_study("taba_replacement"), ["scenes-mixture"], num_samples=2, steps=2)
    found = run_study("taba_replacement", asked, tmp_path, How(artefacts="none", batch_size=2, threads=1))
    rows = [row for row in found.rows if row["replaced"] == "100 %"]
    assert len(rows) == 2
    for row in rows:
        assert [row[name] for name in ("noise_mae", "image_mae", "interpolation_mae", "edit_mae")] == pytest.approx(
            [0, 0, 0, 0], abs=1e-4
        )
        assert row["interpolation_sharpness"] == pytest.approx(1, abs=1e-3)
    assert all(row["noise_mae"] > 0.01 for row in found.rows if row["replaced"] == "0 %")
