"""The Ray engine: the same rows as local workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsample.bench.checking import same_table
from unsample.bench.ledger import read_run
from unsample.bench.plan import make_plan
from unsample.bench.run import How, run_plan


def test_ray_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="pip install 'unsample[ray]'")
    monkeypatch.undo()  # Ray's processes speak over the loopback interface
    given = {"dataset": "scenes:3,split=tune", "models": ["scenes-mixture"], "methods": ["ddim"], "steps": 2}
    plan = make_plan(given)
    run_plan(plan, tmp_path / "local", How(batch_size=2, threads=1))
    run_plan(plan, tmp_path / "ray", How(engine="ray", workers=1, batch_size=2, threads=1))
    assert same_table(tmp_path / "ray", tmp_path / "local")
    assert [row["engine"] for row in read_run(tmp_path / "ray").rows] == ["ray"] * 3
