"""The ledger of a run: one SQLite file (WAL, full sync) with one writer, beside the plan and the artefacts.

A row is JSON with its SHA-256 beside it; the rows of a batch are committed together, after their artefacts lie on the
disk under their names. Resuming asks the ledger what is done. Beside the rows stand the items of the data set, so that
what is missing can be told without it, and the parts of the plan that are not run, each with its reason.

Reading leaves nothing behind: no lock, no journal. So a run on read-only storage is read like any other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from unsample.bench.plan import Plan, make_plan
from unsample.bench.rows import read_plan, read_row
from unsample.errors import BadInput, BadOption
from unsample.media.files import inside, lock, open_inside

FILE, PLAN, LOCK = "ledger.sqlite", "plan.json", "run.lock"
TABLES = {
    "rows": ("cell", "json", "sha256"),
    "broken": ("item", "reason"),
    "items": ("place", "item"),
    "apart": ("model", "method", "guidance", "kind", "reason"),
}
ALWAYS = ("rows", "broken")  # of every version; the others came later
PATIENCE = 5.0  # seconds that another process may hold the file
MAX_PLAN = 64 * 2**20  # bytes of plan.json
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
        there, taken = _database(folder), lock(folder, LOCK, wait=False)
        if taken is None:
            raise BadInput(f"another process is writing the run in {str(folder)!r}; wait for it, or choose another -o")
        self.folder, self._lock = folder, taken
        try:
            with _said(folder):
                if there.exists() and there.stat().st_nlink > 1:
                    raise sqlite3.OperationalError("it has several names (hard links), and SQLite would lose rows")
                self._db = sqlite3.connect(there, PATIENCE, isolation_level=None)
                _check_tables(self._db, whole=os.path.lexists(folder / PLAN))
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("CREATE TABLE IF NOT EXISTS rows (cell TEXT PRIMARY KEY, json TEXT, sha256 TEXT)")
                self._db.execute("CREATE TABLE IF NOT EXISTS broken (item TEXT PRIMARY KEY, reason TEXT)")
                self._db.execute("CREATE TABLE IF NOT EXISTS items (place INTEGER PRIMARY KEY, item TEXT)")
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS apart (model TEXT, method TEXT, guidance REAL, kind TEXT, reason TEXT, "
                    "PRIMARY KEY (model, method, guidance))"
                )
        except BaseException:
            self._lock.close()
            raise

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
        """What is done and what is not to be done; rows that were there before are checked by `read_standing`."""
        with _said(self.folder):
            return replace(_standing(self._db), statuses=_statuses(self._db))

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
        with _said(self.folder):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Fold the write-ahead log in, and let others write."""
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_run(folder: str | os.PathLike[str]) -> RunData:
    """A run, finished or not, as it stands; every row has the columns of `rows.Row`.

    Raises:
        BadInput: the folder holds no run, or a damaged one.
    """
    place = Path(folder)
    raws, standing = read_unchecked(place)
    plan, rows = read_plan_file(place), _checked(place, raws)
    rows.sort(key=lambda row: row["order"])  # as planned, never by who was ready first
    return RunData(plan, rows, list(standing.broken.items()), place, standing.items, standing.apart)


@dataclass(frozen=True)
class Standing:
    """How far a run is, without its rows."""

    statuses: dict[str, str]  # of every cell that has ended
    broken: dict[str, str]  # items that were left out, and why
    items: Sequence[str]
    apart: Sequence[Apart]


Raw = tuple[Any, Any, Any]  # cell, JSON and SHA-256 of a row, unchecked


def read_standing(folder: Path) -> Standing:
    """How far a run is; every row was checked.

    Raises:
        BadInput: the folder holds no run, or a damaged one.
    """
    raws, standing = read_unchecked(folder)
    return replace(standing, statuses={cell_id(row): row["status"] for row in _checked(folder, raws)})


def read_unchecked(folder: Path) -> tuple[list[Raw], Standing]:
    """Every row as it stands there, and all else checked; it knows no statuses.

    Raises:
        BadInput: the folder holds no run, or one whose other tables are damaged.
    """
    with _reading(folder) as db:
        return db.execute("SELECT cell, json, sha256 FROM rows").fetchall(), _standing(db)


def raw_rows(folder: Path) -> list[Raw]:
    """Cell, JSON and SHA-256 of every row, unchecked."""
    return read_unchecked(folder)[0]


class Altered(BadInput):
    """A row is not what was written."""


def row_of(cell: object, text: object, sha: object) -> dict[str, Any]:
    """A row of the table, checked.

    Raises:
        Altered: its hash is another one. BadInput: which column is wrong, and how.
    """
    try:
        _check_texts("rows", (cell, text, sha))
    except sqlite3.DataError as error:
        raise BadInput(str(error)) from error
    if row_sha(str(text)) != sha:
        raise Altered("it is not what was written")
    row = read_row(str(text))
    if cell_id(row) != cell:
        raise BadInput(f"column cell: it is the row of {cell_id(row)[:200]}")
    return row


def _checked(folder: Path, raws: Iterable[Raw]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for number, (cell, text, sha) in enumerate(raws, 1):
        try:
            if cell in rows:
                raise BadInput("it stands there twice")
            rows[cell] = row_of(cell, text, sha)
        except BadInput as error:
            which = f"of {cell[:200]}" if isinstance(cell, str) else str(number)
            raise BadInput(
                f"{folder}: the row {which} is damaged: {error}; 'unsample bench verify {folder}' says more"
            ) from error
    return list(rows.values())


def _check_texts(table: str, cells: Sequence[object]) -> None:
    for name, value in zip(TABLES[table], cells, strict=True):
        if not isinstance(value, str):
            found = {type(None): "null", bytes: "a blob"}.get(type(value), f"the number {value!r:.40}")
            raise sqlite3.DataError(f"column {name} of the table {table}: it is {found}, not a text")


def read_plan_file(folder: Path) -> dict[str, Any]:
    """What plan.json holds.

    Raises:
        BadInput: none, or a damaged one.
    """
    try:
        with open_inside(folder, PLAN) as file:
            content = file.read(MAX_PLAN + 1)
        if len(content) > MAX_PLAN:
            raise BadInput(f"it has over {MAX_PLAN // 2**20} MB")
        return read_plan(content.decode("utf-8"))
    except FileNotFoundError as error:
        raise BadInput(
            f"{str(folder)!r} is no run: it has no {PLAN}; give what 'unsample bench run -o' made"
        ) from error
    except (OSError, ValueError, BadInput) as error:
        raise BadInput(f"{str(folder)!r} is no run that can be read: {PLAN} is damaged ({error})") from error


def plan_of(folder: Path) -> Plan:
    """The plan of a run.

    Raises:
        BadInput: none, a damaged one, or one that this version cannot make.
    """
    try:
        return make_plan(read_plan_file(folder)["plan"])
    except BadOption as error:
        raise BadInput(f"{str(folder)!r} is no run that can be read: {PLAN} is damaged ({error})") from error


def row_sha(text: str) -> str:
    """What stands beside a row."""
    return hashlib.sha256(text.encode()).hexdigest()


def _database(folder: Path) -> Path:
    """The ledger's file; it, and what SQLite keeps beside it, are files and no links.

    Raises:
        BadInput: they are not.
    """
    try:
        for beside in ("-wal", "-shm", "-journal"):
            inside(folder, FILE + beside)
        return inside(folder, FILE)
    except BadInput as error:
        raise BadInput(f"cannot use {str(folder / FILE)!r}: {error}") from error


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """The ledger, to be read; nothing is written beside it.

    Without a write-ahead log the file is whole and is opened as it is. With one, somebody is writing or was killed:
    SQLite then needs its index beside the file, and where that cannot be had both are read from a copy.
    """
    path = _database(folder)
    if not path.is_file():
        raise BadInput(f"{str(folder)!r} is no run: it has no {FILE}; give what 'unsample bench run -o' made")
    log = path.with_name(f"{FILE}-wal")
    try:
        with _said(folder):
            if not log.is_file() or not log.stat().st_size:
                with closing(_opened(path, "mode=ro&immutable=1")) as db:
                    yield db
                    return
            with tempfile.TemporaryDirectory(prefix="unsample-") as elsewhere:
                try:
                    db = _opened(path, "mode=ro")
                except sqlite3.OperationalError as error:
                    if "locked" in str(error):
                        raise
                    copied = [shutil.copy2(file, elsewhere) for file in (path, log)]
                    db = _opened(Path(copied[0]), "mode=rw")
                with closing(db):
                    yield db
    except OSError as error:
        raise BadInput(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _opened(path: Path, how: str) -> sqlite3.Connection:
    """A connection that was tried."""
    db = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", PATIENCE, uri=True)
    try:
        _check_tables(db, whole=True)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _check_tables(db: sqlite3.Connection, whole: bool) -> None:
    """The tables are ours and nothing else is there: a view or a trigger would run what somebody else wrote.

    Args:
        db: may be empty.
        whole: whether the tables of every version must be there.
    """
    db.execute("PRAGMA trusted_schema=OFF")
    there = {name: (kind, str(sql)) for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master")}
    for name, (kind, sql) in there.items():
        ours = kind == "table" and name in TABLES and not sql.upper().startswith("CREATE VIRTUAL")
        if not ours and not str(name).startswith("sqlite_"):
            raise sqlite3.DatabaseError(f"it holds the {kind} {name!r}, which is no part of a ledger")
    for name, columns in TABLES.items():
        if name not in there and whole and name in ALWAYS:
            raise sqlite3.DatabaseError(f"it has no table {name!r}; it is damaged, or was cut short")
        hidden = {column: how for _, column, *_, how in db.execute(f"PRAGMA table_xinfo({name})")}
        lacking = [column for column in columns if hidden.get(column, 1)] if hidden else []
        if lacking:
            raise sqlite3.DatabaseError(f"its table {name!r} has no column {lacking[0]!r}")


def _standing(db: sqlite3.Connection) -> Standing:
    """All but the rows."""
    broken = db.execute("SELECT item, reason FROM broken ORDER BY item").fetchall()
    items = db.execute("SELECT item FROM items ORDER BY place").fetchall() if _has(db, "items") else []
    for pair in broken:
        _check_texts("broken", pair)
    for (item,) in items:
        _check_texts("items", ("", item))
    return Standing({}, dict(broken), [item for (item,) in items], _apart(db))


def _statuses(db: sqlite3.Connection) -> dict[str, str]:
    status = "CASE WHEN json_valid(json) THEN json_extract(json, '$.status') END"
    return {str(cell): str(status) for cell, status in db.execute(f"SELECT cell, {status} FROM rows")}


def _apart(db: sqlite3.Connection) -> list[Apart]:
    if not _has(db, "apart"):
        return []
    found = db.execute("SELECT model, method, guidance, kind, reason FROM apart ORDER BY rowid").fetchall()
    for model, method, guidance, kind, reason in found:
        _check_texts("apart", (model, method, "", kind, reason))
        if not isinstance(guidance, float) or not math.isfinite(guidance):
            raise sqlite3.DataError(f"column guidance of the table apart: {guidance!r:.40} is no finite number")
    return [Apart(*row) for row in found]


def _has(db: sqlite3.Connection, table: str) -> bool:
    """Whether a ledger has a table; earlier versions did not make all."""
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchall())


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    """What SQLite says, and what is wrong with its tables, with the file named."""
    try:
        yield
    except sqlite3.Error as error:
        what = str(error)
        if "full" in what:
            what = "the disk is full; free some space and start the same command again, it goes on where it was"
        elif "locked" in what:
            what = "another process holds it (database is locked); wait for it"
        raise BadInput(f"cannot use {str(folder / FILE)!r}: {what}") from error
