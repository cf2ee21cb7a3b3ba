"""Runs that an earlier version made: read, verified, exported, reported and merged as ever; not gone on with.

`format_1` holds two shards of one, as SQL, made by that version: two items, two methods, at guidance 3.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from unsample.bench.checking import merge, verify
from unsample.bench.coverage import coverage, total
from unsample.bench.export import as_text
from unsample.bench.ledger import FILE, PLAN, read_run
from unsample.bench.plan import make_plan
from unsample.bench.run import How, run_plan
from unsample.errors import BadInput
from unsample.report import write_report

OLD = Path(__file__).parent / "format_1"


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Both of them."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        shutil.copy(OLD / PLAN, tmp_path / name)
        db = sqlite3.connect(tmp_path / name / FILE)
        db.executescript((OLD / f"{name}.sql").read_text())
        db.close()
    return [tmp_path / "1", tmp_path / "2"]


def test_a_run_of_format_1_is_read_by_everything_that_reads(shards: list[Path], tmp_path: Path) -> None:
    run = read_run(shards[0])
    told = [(row["item"], row["method"], row["steps"]) for row in run.rows]
    assert told == [("tune-0", "ddim", 2), ("tune-1", "ddim", 2)]
    found = verify(shards[0])
    assert found.sound
    assert found.counts.told() == "2 of 4 cells finished, 2 missing"
    assert [a.part.method for a in found.apart] == ["edict[inversion_guidance=3]"]
    assert len(as_text(run, "csv").splitlines()) == 3
    write_report(shards[0])
    text = (shards[0] / "report.md").read_text()
    assert "2 items, 2 methods; 2 of 4 cells finished, 2 missing." in text
    assert "| ddim (drifts by guidance) |" in text
    whole = merge(shards, tmp_path / "whole")
    assert [row["order"] for row in whole.rows] == [0, 1, 2, 3]
    assert total(part.counts for part in coverage(whole)).told() == "4 of 4 cells finished"
    assert verify(tmp_path / "whole").sound
    assert merge([tmp_path / "whole", *shards], tmp_path / "again").rows == whole.rows


def test_a_run_of_format_1_is_not_gone_on_with_and_nothing_is_written_there(shards: list[Path], tmp_path: Path) -> None:
    asked = make_plan(read_run(shards[0]).plan["plan"])
    merge(shards, tmp_path / "whole")
    for folder in (shards[0], tmp_path / "whole"):
        before = (folder / FILE).read_bytes()
        with pytest.raises(BadInput, match=r"earlier version \(format 1"):
            run_plan(asked, folder, How())
        assert (folder / FILE).read_bytes() == before
    with pytest.raises(BadInput, match="is read and not written"):
        merge([shards[1]], shards[0])
