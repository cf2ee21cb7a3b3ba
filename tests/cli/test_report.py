"""`unsample report`: three files of a run, and a clear end for a folder that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.report.runs import plan, values_of

ledger: Any = pytest.importorskip("unsample.bench.ledger", reason="the benchmark's ledger is not in this package yet")

NAMES = ("report.html", "report.md", "report.csv")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small run, in which one picture diverged."""
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    rows = [*values_of("ddim", [20.0, 21.0, 22.0]), *values_of("easyinv", [23.0, None, 25.0])]
    found = ledger.RunData(plan=plan(), rows=rows, broken=[], folder=folder)
    monkeypatch.setattr(ledger, "read_run", lambda place: found)
    return folder


def test_report_writes_three_files_into_the_run(run: Run, finished: Path) -> None:
    ended = run("report", finished)
    assert ended.code == 0, ended.err
    assert ended.out == ""
    for name in NAMES:
        assert f"{finished}/{name}" in ended.err
        assert "easyinv" in (finished / name).read_text()
    before = (finished / "report.html").read_bytes()
    assert run("report", finished).code == 0
    assert (finished / "report.html").read_bytes() == before


def test_report_writes_elsewhere_and_says_where_as_json(run: Run, finished: Path) -> None:
    ended = run("report", finished, "-o", "shared/here", "--json")
    assert ended.code == 0, ended.err
    assert ended.json == {"run": str(finished), "files": [f"shared/here/{name}" for name in NAMES]}
    assert not (finished / "report.html").exists()
    assert all(Path(f).is_file() for f in ended.json["files"])


def test_a_folder_that_is_no_run_ends_with_4_and_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for place in ("empty", "file", "gone"):
        ended = run("report", place, "--json")
        assert ended.code == 4, place
        assert ended.json["error"]["code"] == 4
        assert place in ended.json["error"]["message"]
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "gone").exists()


def test_an_output_that_cannot_be_written_ends_with_4(run: Run, finished: Path) -> None:
    Path("taken").write_text("")
    ended = run("report", finished, "-o", "taken")
    assert ended.code == 4
    assert "taken" in ended.err


def test_docs_fills_a_table_and_takes_nothing_that_it_would_not_use(run: Run, tmp_path: Path) -> None:
    from tests.report.test_docs import AROUND, DDIM_ROW
    from tests.report.test_docs import run as made

    folder, document = made(tmp_path / "r", {("ddim", 1.0): [20.0, 24.0]}), tmp_path / "docs.md"
    document.write_text(AROUND.format("| method |\n|---|\n| gone |"))
    ended = run("report", folder, "--docs", document, "--json")
    assert ended.code == 0, ended.err
    assert DDIM_ROW in document.read_text()
    assert "dropped: gone" in ended.err
    assert ended.json["tables"][0]["made"] == ["ddim 1 1"]
    assert not (folder / "report.html").exists()
    for more in (["-o", "x"], ["--raw-csv"], ["--overwrite"]):
        assert run("report", folder, "--docs", document, *more).code == 2
    assert run("report", folder, folder).code == 2
    assert run("report", folder, "--docs", tmp_path / "none.md").code == 4
