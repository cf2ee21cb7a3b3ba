"""A run on read-only storage: everything that only reads it works, and leaves nothing behind.

Permissions do not bind root, so the storage is made read-only as the code meets it: within the folder Python's ways of
writing are refused, and SQLite opens nothing that it is not told to take as it is, as it does on such storage.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unsample.bench.checking import merge, verify
from unsample.bench.export import as_text, write
from unsample.bench.ledger import FILE, read_run
from unsample.bench.plan import make_plan
from unsample.bench.run import How, run_plan
from unsample.errors import BadInput
from unsample.report import write_report

PLAN = make_plan(
    {
        "dataset": "scenes:2,split=tune",
        "models": ["scenes-mixture"],
        "methods": ["ddim"],
        "metrics": ["psnr"],
        "steps": 2,
    }
)
HOW = How(batch_size=1, threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    run_plan(PLAN, folder, HOW)
    return folder


@pytest.fixture
def frozen(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The run on storage that cannot be written; the test fails where something tried to change it all the same."""
    folder = tmp_path / "frozen"
    shutil.copytree(made, folder)
    freeze(folder, monkeypatch)
    before = {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
    yield folder
    assert {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))} == before


def freeze(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more writing there."""
    connect = sqlite3.connect

    def connecting(path: Any, *args: Any, **more: Any) -> Any:
        if str(folder) in str(path) and "immutable=1" not in str(path):
            raise sqlite3.OperationalError("attempt to write a readonly database")
        return connect(path, *args, **more)

    monkeypatch.setattr(sqlite3, "connect", connecting)

    def guarded(call: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def refusing(path: Any, *args: Any, **more: Any) -> Any:
            inside = isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(folder)
            if inside and writes(*args, **more):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return call(path, *args, **more)

        return refusing

    def by_mode(mode: str = "r", *args: Any, **more: Any) -> bool:
        return bool({*mode} & {*"wax+"})

    def by_flags(flags: int, *args: Any, **more: Any) -> bool:
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    for place, name, writes in (
        (builtins, "open", by_mode), (io, "open", by_mode), (os, "open", by_flags),
        *((os, name, lambda *args, **more: True) for name in ("mkdir", "unlink", "replace", "rename", "remove")),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, guarded(getattr(place, name), writes))


def test_a_whole_run_is_read_verified_exported_merged_and_reported(frozen: Path, tmp_path: Path) -> None:
    assert len(read_run(frozen).rows) == 2
    assert verify(frozen).sound
    assert "record.psnr" in as_text(read_run(frozen), "csv")
    write(read_run(frozen), tmp_path / "rows.json", "json")
    assert len(merge([frozen], tmp_path / "merged").rows) == 2
    assert [f.name for f in write_report(frozen, tmp_path / "report")] == ["report.html", "report.md", "report.csv"]
    with pytest.raises(BadInput, match="read-only"):
        write_report(frozen)


def test_a_run_that_is_complete_is_said_to_be(frozen: Path) -> None:
    summary = run_plan(PLAN, frozen, HOW)
    assert summary.counts.told() == "2 of 2 cells finished"
    with pytest.raises(BadInput, match="another plan"):
        run_plan(make_plan({"dataset": "scenes:2", "methods": ["ddim"]}), frozen, HOW)


def test_a_run_with_cells_to_do_cannot_be_gone_on_with_there(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "part"
    run_plan(PLAN, folder, How(batch_size=1, threads=1, shard=(1, 2)))
    freeze(folder, monkeypatch)
    with pytest.raises(BadInput, match="read-only"):
        run_plan(PLAN, folder, HOW)
    assert len(read_run(folder).rows) == 1


def test_a_killed_run_is_read_with_its_log(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = tmp_path / "live"
    shutil.copytree(made, live)
    writer = sqlite3.connect(live / FILE)
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("DELETE FROM rows WHERE cell LIKE '%tune-1'")
    writer.commit()  # stands in the write-ahead log only
    folder = tmp_path / "killed"
    folder.mkdir()
    for file in live.iterdir():
        if file.is_file() and not file.name.endswith("-shm"):
            shutil.copy(file, folder)
    writer.close()
    assert (folder / f"{FILE}-wal").stat().st_size > 0
    freeze(folder, monkeypatch)
    assert [row["item"] for row in read_run(folder).rows] == ["tune-0"]


def test_reading_a_run_leaves_no_file_beside_it(made: Path) -> None:
    before = sorted(made.rglob("*"))
    read_run(made)
    verify(made)
    assert sorted(made.rglob("*")) == before
    assert not list(made.glob("*-wal"))
