"""The ledger of a run: one SQLite file (WAL, full sync) with one writer, beside the plan and the artefacts.

A row is JSON with its SHA-256 beside it; the rows of a batch are committed together, after their artefacts lie on the
disk under their names. Resuming asks the ledger what is done. Beside the rows stand the items of the data set, so that
what is missing can be told without it, and the parts of the plan that are not run, each with its reason.

Reading leaves nothing behind: no lock, no journal. So a run on read-only storage is read like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from unsample.errors import BadInput
from unsample.files import cannot_write

FILE, PLAN, ARTEFACTS, LOCK = "ledger.sqlite", "plan.json", "artefacts", "run.lock"
VOLATILE = ("seconds", "peak_memory_mb", "started", "finished")  # of a row that is run again
FINISHED = ("ok", "not_converged")  # the states of a cell that gave a finite result
STOPPED, NOT_APPLICABLE = "stopped", "not applicable"
RUNNING = ("batch_size", "engine", "workers", "threads", "attempts", "deaths")  # how, not what


@dataclass(frozen=True)
class Apart:
    """Cells that are not run, of one model, method and guidance, and why."""

    model: str
    method: str  # label
    guidance: float
    kind: str  # stopped: its first cells failed, a resumed run tries it again | not applicable: it never is
    reason: str

    @property
    def part(self) -> Part:
        """Whose cells they are."""
        return self.model, self.method, self.guidance

    def told(self) -> str:
        """In words: `null_text with scenes-ddpm at guidance 1: ...`."""
        return f"{self.method} with {self.model} at guidance {self.guidance:g}: {self.reason}"


Part = tuple[str, str, float]  # model, label of the method, guidance


@dataclass(frozen=True)
class RunData:
    """A run as it stands."""

    plan: dict[str, Any]  # what plan.json holds: plan, versions, command
    rows: list[dict[str, Any]]
    broken: list[tuple[str, str]] = field(default_factory=list)
    folder: Path = Path()
    items: Sequence[str] = ()  # ids of the data set; none where a run of an earlier version did not note them
    apart: Sequence[Apart] = ()


def cell_id(row: dict[str, Any]) -> str:
    """What a cell is called within its run."""
    return cell_name((row["model"], row["method"], row["guidance"]), row["item"])


def cell_name(part: Part, item: str) -> str:
    """What the cell of an item is called."""
    model, method, guidance = part
    return f"{model}|{method}|{guidance:g}|{item}"


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
            self._db.execute("CREATE TABLE IF NOT EXISTS items (place INTEGER PRIMARY KEY, item TEXT)")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS apart (model TEXT, method TEXT, guidance REAL, kind TEXT, reason TEXT, "
                "PRIMARY KEY (model, method, guidance))"
            )
        except sqlite3.Error as error:
            self._lock.close()
            raise _unusable(folder, error) from error

    def note(self, items: Sequence[str], broken: Iterable[tuple[str, str]], apart: Iterable[Apart]) -> None:
        """Note what there is to do.

        Args:
            items: ids of the data set, in its order.
            broken: those that are known to be of no use, and why.
            apart: what is not run.
        """
        with self._changing():
            self._db.execute("DELETE FROM items")
            self._db.executemany("INSERT INTO items VALUES (?, ?)", enumerate(items))
            self._db.executemany("INSERT OR REPLACE INTO broken VALUES (?, ?)", list(broken))
            self._put_apart(apart)

    def take_up(self) -> None:
        """Forget what was stopped, and the cells that had failed by then, so that they are tried again."""
        with self._changing():
            stopped = tuple(cell_name(a.part, "") for a in _apart(self._db) if a.kind == STOPPED)
            failed = [cell for cell, status in _statuses(self._db).items() if status == "failed"]
            self._db.executemany("DELETE FROM rows WHERE cell = ?", [(c,) for c in failed if c.startswith(stopped)])
            self._db.execute("DELETE FROM apart")

    def stop(self, apart: Iterable[Apart]) -> None:
        """Note what is run no further."""
        with self._changing():
            self._put_apart(apart)

    def _put_apart(self, apart: Iterable[Apart]) -> None:
        rows = [(*a.part, a.kind, a.reason) for a in apart]
        self._db.executemany("INSERT OR REPLACE INTO apart VALUES (?, ?, ?, ?, ?)", rows)

    @property
    def standing(self) -> Standing:
        """What is done and what is not to be done."""
        return _standing(self._db)

    def add(self, rows: Iterable[dict[str, Any]], broken: Iterable[tuple[str, str]] = ()) -> None:
        """Commit the rows of a batch together.

        Raises:
            BadInput: the disk is full, or the file cannot be written.
        """
        texts = [(cell_id(row), json.dumps(row, sort_keys=True, allow_nan=False)) for row in rows]
        with self._changing():
            self._db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", [(c, t, row_sha(t)) for c, t in texts])
            self._db.executemany("INSERT OR REPLACE INTO broken VALUES (?, ?)", list(broken))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Everything within it, or nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
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
    standing = read_standing(place)
    for cell, text, sha in raw_rows(place):
        if row_sha(text) != sha:
            raise BadInput(f"{folder}: the row of {cell} is damaged; 'unsample bench verify {folder}' says more")
        rows.append(json.loads(text))
    rows.sort(key=lambda row: row["order"])  # as planned, never by who was ready first
    kept = standing.broken.items()
    return RunData(read_plan_file(place), rows, list(kept), place, standing.items, standing.apart)


@dataclass(frozen=True)
class Standing:
    """How far a run is, without its rows."""

    statuses: dict[str, str]  # of every cell that has ended
    broken: dict[str, str]  # items that were left out, and why
    items: Sequence[str]
    apart: Sequence[Apart]


def read_standing(folder: Path) -> Standing:
    """How far a run is.

    Raises:
        BadInput: the folder holds no run, or a damaged one.
    """
    with _reading(folder) as db:
        return _standing(db)


def raw_rows(folder: Path) -> list[tuple[str, str, str]]:
    """Cell, JSON and SHA-256 of every row, unchecked."""
    with _reading(folder) as db:
        return [(str(c), str(t), str(s)) for c, t, s in db.execute("SELECT cell, json, sha256 FROM rows")]


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


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """The ledger, to be read; nothing is written beside it.

    Without a write-ahead log the file is whole and is opened as it is. With one, somebody is writing or was killed:
    SQLite then needs its index beside the file, and where that cannot be had both are read from a copy.
    """
    path = folder / FILE
    if not path.is_file():
        raise BadInput(f"{str(folder)!r} is no run: it has no {FILE}; give what 'unsample bench run -o' made")
    log = path.with_name(f"{FILE}-wal")
    try:
        if not log.is_file() or not log.stat().st_size:
            with closing(_opened(path, "mode=ro&immutable=1")) as db:
                yield db
                return
        with tempfile.TemporaryDirectory(prefix="unsample-") as elsewhere:
            try:
                db = _opened(path, "mode=ro")
            except sqlite3.OperationalError:
                copied = [shutil.copy2(file, elsewhere) for file in (path, log)]
                db = _opened(Path(copied[0]), "mode=rw")
            with closing(db):
                yield db
    except sqlite3.Error as error:
        raise _unusable(folder, error) from error
    except OSError as error:
        raise BadInput(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _opened(path: Path, how: str) -> sqlite3.Connection:
    """A connection that was tried."""
    db = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)
    try:
        db.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.Error:
        db.close()
        raise
    return db


def _standing(db: sqlite3.Connection) -> Standing:
    broken = {str(i): str(r) for i, r in db.execute("SELECT item, reason FROM broken ORDER BY item")}
    items = [str(i) for (i,) in db.execute("SELECT item FROM items ORDER BY place")] if _has(db, "items") else []
    return Standing(_statuses(db), broken, items, _apart(db))


def _statuses(db: sqlite3.Connection) -> dict[str, str]:
    status = "CASE WHEN json_valid(json) THEN json_extract(json, '$.status') END"
    return {str(cell): str(status) for cell, status in db.execute(f"SELECT cell, {status} FROM rows")}


def _apart(db: sqlite3.Connection) -> list[Apart]:
    if not _has(db, "apart"):
        return []
    found = db.execute("SELECT model, method, CAST(guidance AS REAL), kind, reason FROM apart ORDER BY rowid")
    return [Apart(str(m), str(n), float(w or 0), str(kind), str(reason)) for m, n, w, kind, reason in found]


def _has(db: sqlite3.Connection, table: str) -> bool:
    """Whether a ledger has a table; earlier versions did not make all."""
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchall())


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
