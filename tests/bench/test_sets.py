"""Metrics of whole sets: a row for each part of a plan, once its cells have ended, whatever happened on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unsample.bench import sets
from unsample.bench.checking import merge, verify
from unsample.bench.export import as_text, flat_rows
from unsample.bench.ledger import Ledger, read_run
from unsample.bench.plan import make_plan
from unsample.bench.run import How, run_plan
from unsample.errors import BadOption

PLAN = make_plan(
    {
        "dataset": "scenes:4,split=tune",
        "models": ["scenes-mixture"],
        "methods": ["ddim", "random_noise[items=3]"],
        "metrics": ["psnr", "kd[pixels]"],
        "steps": 2,
        "edit": True,
    }
)
HOW = How(batch_size=2, threads=1)
PARTS = 2 + 4  # methods and baselines


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run; not to be changed."""
    folder = tmp_path_factory.mktemp("sets")
    run_plan(PLAN, folder, HOW)
    return folder


def values(folder: Path) -> dict[tuple[str, str], Any]:
    """Each method's sets."""
    return {(row["method"], name): v for row in read_run(folder).sets for name, v in row["values"].items()}


def test_every_part_has_a_row_that_says_what_measuring_its_pictures_says(whole: Path) -> None:
    import torch

    from unsample.metrics import Subject, measure

    found = values(whole)
    stages = {name.partition(".")[0] for method, name in found if method == "ddim"}
    assert stages == {"record", "noise", "edit"}
    assert {name for method, name in found if method == "identity"} == {"edit.kd[pixels]"}
    assert {n["n"] for (method, _), n in found.items()} == {3, 4}
    rows = [r for r in read_run(whole).rows if r["method"] == "ddim"]
    files = [{a["kind"]: sets._opened(whole, a) for a in row["artefacts"]} for row in rows]
    pictures = {kind: torch.stack([f[kind] for f in files]) for kind in ("edit", "truth")}
    (score,) = measure(["kd[pixels]"], Subject(images=pictures["edit"], reference=pictures["truth"])).values()
    assert found["ddim", "edit.kd[pixels]"]["value"] == pytest.approx(score.values[0])
    assert all("kd[pixels]" not in name for row in read_run(whole).rows for name in row["values"])
    assert verify(whole).sets == PARTS


def test_an_export_has_them_after_the_cells(whole: Path) -> None:
    run = read_run(whole)
    last = flat_rows(run)[-PARTS:]
    assert {row["method"]: row["edit.kd[pixels].n"] for row in last}["random_noise"] == 3
    assert all(row.get("item") is None for row in last)
    assert len(as_text(run, "csv").splitlines()) == 1 + len(run.rows) + PARTS


def test_a_run_that_was_killed_before_them_measures_them_when_gone_on_with(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    own = sets._measured

    def killed(plan: Any, planned: Any, rows: Any, folder: Any) -> dict[str, Any]:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(planned.part.method)
        return own(plan, planned, rows, folder)

    with monkeypatch.context() as patch:
        patch.setattr(sets, "_measured", killed)
        with pytest.raises(KeyboardInterrupt):
            run_plan(PLAN, tmp_path, HOW)
    found = verify(tmp_path)
    assert (found.counts.missing, found.counts.sets_missing, len(found.lost)) == (0, PARTS - 2, PARTS - 2)
    assert "4 whole sets not measured" in found.counts.told()
    run_plan(PLAN, tmp_path, HOW)
    assert values(tmp_path) == values(whole)
    assert verify(tmp_path).lost == []


def test_shards_have_none_of_what_is_not_whole_and_a_merge_has_all(whole: Path, tmp_path: Path) -> None:
    for i in (1, 2):
        run_plan(PLAN, tmp_path / str(i), replace(HOW, shard=(i, 2)))
    assert not values(tmp_path / "1")
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert values(tmp_path / "all") == values(whole)
    assert verify(tmp_path / "all").lost == []


def test_a_row_of_other_pictures_is_lost_and_measured_anew(whole: Path, tmp_path: Path) -> None:
    run_plan(PLAN, tmp_path, HOW)
    row = read_run(tmp_path).sets[0]
    with Ledger(tmp_path) as ledger:
        ledger.add_sets([row | {"of": "0" * 64, "values": {}}])
    assert len(verify(tmp_path).lost) == 1
    run_plan(PLAN, tmp_path, HOW)
    assert values(tmp_path) == values(whole)


def test_a_picture_that_is_gone_is_the_reason(whole: Path, tmp_path: Path) -> None:
    run_plan(PLAN, tmp_path, HOW)
    path = next(a["path"] for a in read_run(tmp_path).rows[0]["artefacts"] if a["kind"] == "edit")
    (tmp_path / path).unlink()
    with Ledger(tmp_path) as ledger:
        ledger.add_sets([row | {"of": "0" * 64} for row in read_run(tmp_path).sets if row["method"] == "ddim"])
    run_plan(PLAN, tmp_path, HOW)
    entry = values(tmp_path)["ddim", "edit.kd[pixels]"]
    assert entry["value"] is None
    assert path in entry["reason"]


def test_pictures_that_it_needs_are_not_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"kd\[pixels\] is measured of the pictures of a run, and --artefacts none"):
        run_plan(PLAN, tmp_path / "x", replace(HOW, artefacts="none"))
    assert not (tmp_path / "x").exists()
