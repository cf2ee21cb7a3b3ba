"""The ledger of a run: one SQLite file (WAL, full sync) with one writer, beside the plan and the artefacts.

A row is JSON with its SHA-256 beside it; the rows of a batch are committed together, after their artefacts lie on the
disk under their names. Resuming asks the ledger what is done. Beside the rows stand those of whole sets, the items of
each data set, so that what is missing can be told without them, and the parts of the plan that are not run, each with
its reason.

Reading leaves nothing behind: no lock, no journal. So a run on read-only storage is read like any other. A ledger that
an earlier version laid out (`layout.OLD`) is read too, and not written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from unsample.bench.layout import (
    BEFORE_EDITORS,
    LAYOUT,
    TABLES,
    Broken,
    Items,
    Standing,
    check_tables,
    check_texts,
    create,
    standing_of,
    upgrade,
)
from unsample.bench.parts import STOPPED, Apart, cell_id, part_of
from unsample.bench.plan import Plan, make_plan
from unsample.bench.rows import read_plan, read_row, read_set
from unsample.errors import BadInput, BadOption
from unsample.media.files import inside, lock, open_inside

FILE, PLAN, LOCK = "ledger.sqlite", "plan.json", "run.lock"
Raw = tuple[Any, Any, Any]  # name, JSON and SHA-256 of a row, unchecked
PATIENCE = 5.0  # seconds that another process may hold the file
MAX_PLAN = 64 * 2**20  # bytes of plan.json
VOLATILE = ("seconds", "peak_memory_mb", "started", "finished")  # of a row that is run again
FINISHED = ("ok", "not_converged")  # the states of a cell that gave a finite result
RUNNING = ("batch_size", "engine", "workers", "threads", "device", "attempts", "deaths")  # how, not what


@dataclass(frozen=True)
class RunData:
    """A run as it stands."""

    plan: dict[str, Any]  # what plan.json holds: plan, versions, command
    rows: list[dict[str, Any]]
    broken: list[tuple[str, str]] = field(default_factory=list)  # items, and why
    folder: Path = Path()
    standing: Standing = field(default_factory=Standing)
    sets: list[dict[str, Any]] = field(default_factory=list)  # rows of whole sets, one a part

    @property
    def items(self) -> Items:
        """Of every data set."""
        return self.standing.items

    @property
    def apart(self) -> Sequence[Apart]:
        """What is not run."""
        return self.standing.apart


class Ledger:
    """The one writer of a run folder; a second one is refused.

    Args:
        folder: of the run.
        plan: the file that says what the run is of.
        name_of: what a row is called, by which it stands there once.

    Raises:
        BadInput: another process writes this run, or the file cannot be used.
    """

    def __init__(self, folder: Path, plan: str = PLAN, name_of: Callable[[Mapping[str, Any]], str] = cell_id) -> None:
        there, taken = _database(folder), lock(folder, LOCK, wait=False)
        if taken is None:
            raise BadInput(f"another process is writing the run in {str(folder)!r}; wait for it, or choose another -o")
        self.folder, self._lock, self._name_of = folder, taken, name_of
        try:
            with _said(folder):
                if there.exists() and there.stat().st_nlink > 1:
                    raise sqlite3.OperationalError("it has several names (hard links), and SQLite would lose rows")
                self._db = sqlite3.connect(there, PATIENCE, isolation_level=None)
                layout = check_tables(self._db, whole=os.path.lexists(folder / plan))
                if layout not in (None, BEFORE_EDITORS, LAYOUT):
                    raise BadInput(f"{str(folder)!r} holds a run of an earlier version, which is read and not written")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
            if layout is None:
                with self._changing():
                    for name in TABLES:
                        create(self._db, name)
                    self._db.execute(f"PRAGMA user_version={LAYOUT}")
            elif layout == BEFORE_EDITORS:
                with self._changing():
                    upgrade(self._db)
        except BaseException:
            self._lock.close()
            raise

    def note(self, items: Items, broken: Broken, apart: Iterable[Apart]) -> None:
        """Note what there is to do: the items of each data set in order, those of no use, and what is not run."""
        with self._changing():
            self._db.execute("DELETE FROM items")
            self._put("items", [(data, *pair) for data, ids in items.items() for pair in enumerate(ids)])
            self._put("broken", [(*key, reason) for key, reason in broken.items()])
            self._put("apart", [(*part, a.kind, a.reason) for part, a in {a.part: a for a in apart}.items()])

    def take_up(self) -> None:
        """Forget what was stopped, and the cells that had failed by then, so that they are tried again."""
        with self._changing():
            stopped = tuple(a.part.cell("") for a in standing_of(self._db, None).apart if a.kind == STOPPED)
            failed = [cell for cell, status in _statuses(self._db).items() if status == "failed"]
            self._db.executemany("DELETE FROM rows WHERE cell = ?", [(c,) for c in failed if c.startswith(stopped)])
            self._db.execute("DELETE FROM apart")

    def stop(self, apart: Iterable[Apart]) -> None:
        """Note what is run no further."""
        with self._changing():
            self._put("apart", [(*a.part, a.kind, a.reason) for a in apart])

    @property
    def standing(self) -> Standing:
        """What is done and what is not to be done; rows that were there before are checked by `read_run`."""
        with _said(self.folder):
            return replace(standing_of(self._db, None), statuses=_statuses(self._db))

    def add(self, rows: Iterable[dict[str, Any]], broken: Broken | None = None) -> None:
        """Commit the rows of a batch together.

        Raises:
            BadInput: the disk is full, or the file cannot be written.
        """
        texts = [_text(self._name_of(row), row) for row in rows]
        with self._changing():
            self._put("rows", texts)
            self._put("broken", [(*key, reason) for key, reason in (broken or {}).items()])

    def told(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        """The name of every row, in order, with some of its columns."""
        paths = [f"$.{column}" for column in columns]
        wanted = ", ".join(["cell", *["json_extract(json, ?)"] * len(paths)])
        with _said(self.folder):
            yield from self._db.execute(f"SELECT {wanted} FROM rows ORDER BY cell", paths)

    def row(self, name: str) -> dict[str, Any]:
        """A row that was added, by its name."""
        with _said(self.folder):
            ((text,),) = self._db.execute("SELECT json FROM rows WHERE cell = ?", (name,))
        found: dict[str, Any] = json.loads(text)
        return found

    def add_sets(self, rows: Iterable[dict[str, Any]]) -> None:
        """Commit rows of whole sets; one that is there is replaced."""
        texts = [_text(part_of(row).cell(""), row) for row in rows]
        with self._changing():
            self._put("sets", texts)

    def _put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(TABLES[table]))
        self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)

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
    """A run, finished or not, as it stands; every row has the columns of `rows.Row`, or of `rows.SetRow`.

    Raises:
        BadInput: the folder holds no run, or a damaged one.
    """
    place = Path(folder)
    raws, sets, standing = read_unchecked(place)
    plan, (rows, wrong), (measured, more) = read_plan_file(place), checked(raws, row_of), checked(sets, set_of)
    for which, error in (*wrong, *more):
        more_said = f"'unsample bench verify {place}' says more"
        raise BadInput(f"{place}: the row {which} is damaged: {error}; {more_said}") from error
    statuses = {name: str(row["status"]) for name, row in rows.items()}
    in_order = sorted(rows.values(), key=lambda row: row["order"])  # as planned, never by who was ready first
    broken = list(dict.fromkeys((item, reason) for (_, item), reason in standing.broken.items()))
    of_sets = sorted(measured.values(), key=lambda row: part_of(row).cell(""))
    return RunData(plan, in_order, broken, place, replace(standing, statuses=statuses), of_sets)


def read_unchecked(folder: Path) -> tuple[list[Raw], list[Raw], Standing]:
    """Every row, and every row of a whole set, as it stands there, and all else checked; it knows no statuses.

    Raises:
        BadInput: the folder holds no run, or one whose other tables are damaged.
    """
    with _reading(folder) as db:
        before = _old_place(db, folder)
        standing = standing_of(db, before)
        rows = db.execute("SELECT cell, json, sha256 FROM rows").fetchall()
        if before is None:
            return rows, db.execute("SELECT part, json, sha256 FROM sets").fetchall(), standing
        data, steps = before
        return [(f"{data}|{steps}|{c}" if isinstance(c, str) else c, t, sha) for c, t, sha in rows], [], standing


def each_row(folder: Path) -> Iterator[dict[str, Any]]:
    """Every row of a run that is no benchmark's, by its name, one in memory at a time.

    Raises:
        BadInput: the folder holds no run. Altered: a row is not what was written.
    """
    with _reading(folder) as db:
        for name, text, sha in db.execute("SELECT cell, json, sha256 FROM rows ORDER BY cell"):
            if row_sha(str(text)) != sha:
                raise Altered(f"{folder}: the row of {str(name)[:200]} is not what was written")
            yield json.loads(text)


def raw_rows(folder: Path) -> list[Raw]:
    """Cell, JSON and SHA-256 of every row, unchecked."""
    return read_unchecked(folder)[0]


def _text(name: str, row: Mapping[str, Any]) -> tuple[str, str, str]:
    text = json.dumps(row, sort_keys=True, allow_nan=False)
    return name, text, row_sha(text)


class Altered(BadInput):
    """A row is not what was written."""


def row_of(cell: object, text: object, sha: object) -> dict[str, Any]:
    """A row of the table, checked.

    Raises:
        Altered: its hash is another one. BadInput: which column is wrong, and how.
    """
    return _read("rows", (cell, text, sha), read_row, cell_id)


def set_of(part: object, text: object, sha: object) -> dict[str, Any]:
    """A row of a whole set, checked likewise."""
    return _read("sets", (part, text, sha), read_set, lambda row: part_of(row).cell(""))


def _read(
    table: str, raw: Raw, read: Callable[[str], dict[str, Any]], name_of: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    name, text, sha = raw
    try:
        check_texts(table, dict(zip(TABLES[table], raw, strict=True)))
    except sqlite3.DataError as error:
        raise BadInput(str(error)) from error
    if row_sha(str(text)) != sha:
        raise Altered("it is not what was written")
    row = read(str(text))
    if name_of(row) != name:
        raise BadInput(f"column {TABLES[table][0]}: it is the row of {name_of(row)[:200]}")
    return row


def checked(
    raws: Iterable[Raw], read: Callable[..., dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, BadInput]]]:
    """The rows that can be used, by their name (`read`: `row_of`, `set_of`); and which others there are, and why."""
    rows: dict[str, dict[str, Any]] = {}
    wrong: list[tuple[str, BadInput]] = []
    for number, (name, text, sha) in enumerate(raws, 1):
        try:
            if name in rows:
                raise BadInput("it stands there twice")
            rows[name] = read(name, text, sha)
        except BadInput as error:
            wrong.append((f"of {name[:200]}" if isinstance(name, str) else str(number), error))
    return rows, wrong


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
        check_tables(db, whole=True)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _old_place(db: sqlite3.Connection, folder: Path) -> tuple[str, int] | None:
    """Data set and number of steps of every row of an earlier layout, which had one of each; None for this layout."""
    ((layout,),) = db.execute("PRAGMA user_version")
    if layout:
        return None
    plan = read_plan_file(folder)["plan"]
    steps = plan.get("steps", 50)
    return str(plan.get("dataset", "")), steps[0] if isinstance(steps, list) else steps


def _statuses(db: sqlite3.Connection) -> dict[str, str]:
    status = "CASE WHEN json_valid(json) THEN json_extract(json, '$.status') END"
    return {str(cell): str(status) for cell, status in db.execute(f"SELECT cell, {status} FROM rows")}


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
