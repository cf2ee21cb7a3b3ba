"""Two folders measured without the command line: matched, read as their turn comes, summed up."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unsample.datasets.pairs import match
from unsample.metrics import METRICS, Settings
from unsample.metrics.facts import resolve
from unsample.metrics.folders import measure_pairs


def test_folders_are_measured_and_what_cannot_be_is_told_at_once_and_is_not_in_the_mean(tmp_path: Path) -> None:
    for folder, level in (("a", 100), ("b", 110)):
        (tmp_path / folder).mkdir()
        for k in range(4):
            Image.fromarray(np.full((16, 16, 3), level + k * (folder == "a"), np.uint8)).save(
                tmp_path / folder / f"{k}.png"
            )
    (tmp_path / "a" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    matched = match({"images": str(tmp_path / "a"), "reference": str(tmp_path / "b")})
    asked = [resolve(name, METRICS, Settings()) for name in ("mse", "psnr", "fd[pixels]")]
    told: list[str] = []
    steps: list[int] = []
    found = measure_pairs(asked, matched.pairs, failed=told.append, step=steps.append)
    assert sum(steps) == 4
    assert list(found.failed) == ["2.png"]
    assert told == [found.failed["2.png"]]
    errors = [((10 - k) / 255) ** 2 for k in (0, 1, 3)]
    summaries = found.summaries()
    assert summaries["mse"]["mean"] == pytest.approx(np.mean(errors), rel=1e-6)  # float32 pictures
    assert summaries["psnr"]["mean"] == pytest.approx(-10 * np.log10(np.mean(errors)), rel=1e-6)
    assert (summaries["mse"]["n"], summaries["mse"]["missing"], summaries["fd[pixels]"]["n"]) == (3, 1, 3)
    rows = list(csv.DictReader(found.csv().splitlines()))
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    assert [bool(row["reasons"]) for row in rows] == [False, False, True, False]
