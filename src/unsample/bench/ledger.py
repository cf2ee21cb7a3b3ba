"""The ledger of a run: one SQLite file (WAL, full sync) with one writer, beside the plan and the artefacts.

A row is JSON with its SHA-256 beside it; the rows of a batch are committed together, after their artefacts lie on the
disk under their names. Resuming asks the ledger what is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from unsample.errors import BadInput
from unsample.files import cannot_write

FILE, PLAN, ARTEFACTS, LOCK = "ledger.sqlite", "plan.json", "artefacts", "run.lock"
VOLATILE = ("seconds", "peak_memory_mb", "started", "finished")  # of a row that is run again
RUNNING = ("batch_size", "engine", "workers", "threads", "attempts", "deaths")  # how, not what


@dataclass(frozen=True)
class RunData:
    """A run as it stands."""

    plan: dict[str, Any]  # what plan.json holds: plan, versions, command
    rows: list[dict[str, Any]]
    broken: list[tuple[str, str]] = field(default_factory=list)
    folder: Path = Path()


def cell_id(row: dict[str, Any]) -> str:
    """What a cell is called within its run."""
    return f"{row['model']}|{row['method']}|{row['guidance']:g}|{row['item']}"


class Ledger:
    """The one writer of a run folder; a second one is refused.

    Raises:
        BadInput: another process writes this run, or the file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock = folder, _locked(folder)
        try:
            self._db = sqlite3.connect(folder / FILE, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("CREATE TABLE IF NOT EXISTS rows (cell TEXT PRIMARY KEY, json TEXT, sha256 TEXT)")
            self._db.execute("CREATE TABLE IF NOT EXISTS broken (item TEXT PRIMARY KEY, reason TEXT)")
        except sqlite3.Error as error:
            self._lock.close()
            raise _unusable(folder, error) from error

    def done(self) -> set[str]:
        """The cells that have ended."""
        return {cell for (cell,) in self._db.execute("SELECT cell FROM rows")}

    def broken(self) -> dict[str, str]:
        """The items that cannot be used, and why."""
        return dict(self._db.execute("SELECT item, reason FROM broken ORDER BY item"))

    def add(self, rows: Iterable[dict[str, Any]], broken: Iterable[tuple[str, str]] = ()) -> None:
        """Commit the rows of a batch together.

        Raises:
            BadInput: the disk is full, or the file cannot be written.
        """
        texts = [(cell_id(row), json.dumps(row, sort_keys=True, allow_nan=False)) for row in rows]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", [(c, t, row_sha(t)) for c, t in texts])
            self._db.executemany("INSERT OR REPLACE INTO broken VALUES (?, ?)", list(broken))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _unusable(self.folder, error) from error

    def close(self) -> None:
        """Fold the write-ahead log in, and let others write."""
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_run(folder: str | os.PathLike[str]) -> RunData:
    """A run, finished or not, as it stands.

    Raises:
        BadInput: the folder holds no run, or a damaged one.
    """
    place = Path(folder)
    rows = []
    for cell, text, sha in raw_rows(place):
        if row_sha(text) != sha:
            raise BadInput(f"{folder}: the row of {cell} is damaged; 'unsample bench verify {folder}' says more")
        rows.append(json.loads(text))
    rows.sort(key=lambda row: row["order"])  # as planned, never by who was ready first
    return RunData(read_plan_file(place), rows, raw_broken(place), place)


def raw_rows(folder: Path) -> list[tuple[str, str, str]]:
    """Cell, JSON and SHA-256 of every row, unchecked."""
    return [(str(c), str(t), str(s)) for c, t, s in _select(folder, "SELECT cell, json, sha256 FROM rows")]


def raw_broken(folder: Path) -> list[tuple[str, str]]:
    """Id and reason of every item that was left out."""
    return [(str(i), str(r)) for i, r in _select(folder, "SELECT item, reason FROM broken ORDER BY item")]


def read_plan_file(folder: Path) -> dict[str, Any]:
    """What plan.json holds.

    Raises:
        BadInput: none, or a damaged one.
    """
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        assert isinstance(found["plan"], dict)
    except FileNotFoundError as error:
        raise BadInput(
            f"{str(folder)!r} is no run: it has no {PLAN}; give what 'unsample bench run -o' made"
        ) from error
    except (OSError, ValueError, KeyError, AssertionError, TypeError) as error:
        raise BadInput(f"{str(folder)!r} is no run that can be read: {PLAN} is damaged ({error})") from error
    return dict(found)


def row_sha(text: str) -> str:
    """What stands beside a row."""
    return hashlib.sha256(text.encode()).hexdigest()


def _select(folder: Path, query: str) -> list[tuple[Any, ...]]:
    if not (folder / FILE).is_file():
        raise BadInput(f"{str(folder)!r} is no run: it has no {FILE}; give what 'unsample bench run -o' made")
    try:
        db = sqlite3.connect(f"file:{(folder / FILE).resolve()}?mode=ro", uri=True)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()
    except sqlite3.Error as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: sqlite3.Error) -> BadInput:
    what = str(error)
    if "full" in what:
        what = "the disk is full; free some space and start the same command again, it goes on where it was"
    return BadInput(f"cannot use {str(folder / FILE)!r}: {what}")


def _locked(folder: Path) -> IO[str]:
    """The lock of a run folder; it goes with its process."""
    try:
        file = open(folder / LOCK, "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise cannot_write(folder / LOCK, error) from error
    try:
        import fcntl
    except ImportError:  # Windows: SQLite's own locks must do
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise BadInput(
            f"another process is writing the run in {str(folder)!r}; wait for it, or choose another -o"
        ) from error
    return file
