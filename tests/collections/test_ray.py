"""A collection by actors of Ray: the same inversions as in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import unsample
from tests.cli.conftest import draw


@pytest.mark.filterwarnings("ignore")
def test_ray_makes_what_this_process_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="pip install 'unsample[ray]'")
    monkeypatch.undo()  # Ray's processes speak over the loopback interface
    for name, colour in (("a", "red"), ("b", "lime"), ("c", "blue")):
        draw(tmp_path / "photos" / f"{name}.png", (32, 32), colour)
    given: dict[str, Any] = {"prompt": "a red circle", "num_inference_steps": 2, "batch_size": 2, "threads": 1}
    ray, local = (
        unsample.invert_collection(
            "scenes-mixture", tmp_path / "photos", tmp_path / name, engine=name, workers=1, **given
        )
        for name in ("ray", "local")
    )
    assert len(ray) == len(local) == 3
    for name in "abc":
        assert torch.equal(ray[name].noise, local[name].noise)  # type: ignore[union-attr]
