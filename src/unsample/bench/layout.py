"""The tables of a ledger: what they are called, that they are ours, and what they hold beside the rows."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unsample.bench.parts import Apart, Part

LAYOUT = 3  # of the tables: SQLite's user_version
BEFORE_EDITORS = 2  # has all tables; its parts were not told by how they edit. It is read, and written after `upgrade`
EDITING = tuple(Part._field_defaults)  # columns that came with editors
TABLES: dict[str, tuple[str, ...]] = {
    "rows": ("cell", "json", "sha256"),
    "sets": ("part", "json", "sha256"),
    "broken": ("dataset", "item", "reason"),
    "items": ("dataset", "place", "item"),
    "apart": (*Part._fields, "kind", "reason"),
}
KEYS = {"rows": 1, "sets": 1, "broken": 2, "items": 2, "apart": len(Part._fields)}  # columns of the primary key
OLD = {  # layout 0, of one data set and one number of steps; of its tables only the first two were always there
    "rows": ("cell", "json", "sha256"),
    "broken": ("item", "reason"),
    "items": ("place", "item"),
    "apart": ("model", "method", "guidance", "kind", "reason"),
}
SCALES = ("guidance", "edit_guidance")
ALWAYS = ("rows", "broken")
Items = Mapping[str, Sequence[str]]  # data set to the ids of its items
Broken = dict[tuple[str, str], str]  # data set and item to why it cannot be used


@dataclass(frozen=True)
class Standing:
    """How far a run is, without its rows."""

    statuses: dict[str, str] = field(default_factory=dict)  # of every cell that has ended
    broken: Broken = field(default_factory=dict)  # items that were left out
    items: Items = field(default_factory=dict)  # none where a run of an earlier version did not note them
    apart: Sequence[Apart] = ()
    sets: Sequence[str] = ()  # the parts whose whole sets were measured, by `cell("")`


def tables_of(layout: int) -> dict[str, tuple[str, ...]]:
    """The columns of every table of a layout that is no old one."""
    later = () if layout == LAYOUT else EDITING
    return {name: tuple(c for c in columns if c not in later) for name, columns in TABLES.items()}


def create(db: sqlite3.Connection, name: str) -> None:
    """One of TABLES, empty."""
    columns = TABLES[name]
    db.execute(f"CREATE TABLE {name} ({', '.join(columns)}, PRIMARY KEY ({', '.join(columns[: KEYS[name]])}))")


def upgrade(db: sqlite3.Connection) -> None:
    """Make a ledger of the layout before editors one of this layout; nothing else of it changes."""
    there = standing_of(db, None).apart
    db.execute("DROP TABLE apart")
    create(db, "apart")
    marks = ", ".join("?" * len(TABLES["apart"]))
    db.executemany(f"INSERT INTO apart VALUES ({marks})", [(*a.part, a.kind, a.reason) for a in there])
    db.execute(f"PRAGMA user_version={LAYOUT}")


def check_tables(db: sqlite3.Connection, whole: bool) -> int | None:
    """The layout of the tables, which are ours, and nothing else is there: a view or a trigger would run what somebody
    else wrote.

    Args:
        db: may be empty; then there is no layout yet.
        whole: whether the tables of its layout must be there.
    """
    db.execute("PRAGMA trusted_schema=OFF")
    ((layout,),) = db.execute("PRAGMA user_version")
    if layout not in (0, BEFORE_EDITORS, LAYOUT):
        raise sqlite3.DatabaseError(f"its layout is {layout}, this unsample reads {LAYOUT}; upgrade unsample")
    tables, always = (tables_of(layout), tuple(TABLES)) if layout else (OLD, ALWAYS)
    there = {name: (kind, str(sql)) for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master")}
    for name, (kind, sql) in there.items():
        ours = kind == "table" and name in tables and not sql.upper().startswith("CREATE VIRTUAL")
        if not ours and not str(name).startswith("sqlite_"):
            raise sqlite3.DatabaseError(f"it holds the {kind} {name!r}, which is no part of a ledger")
    for name, columns in tables.items():
        if name not in there and whole and name in always:
            raise sqlite3.DatabaseError(f"it has no table {name!r}; it is damaged, or was cut short")
        hidden = {column: how for _, column, *_, how in db.execute(f"PRAGMA table_xinfo({name})")}
        lacking = [column for column in columns if hidden.get(column, 1)] if hidden else []
        if lacking:
            raise sqlite3.DatabaseError(f"its table {name!r} has no column {lacking[0]!r}")
    return layout if there else None


def standing_of(db: sqlite3.Connection, before: tuple[str, int] | None) -> Standing:
    """All but the rows.

    Args:
        db: the ledger.
        before: data set and number of steps of every row of an earlier layout, which had one of each.
    """
    tables = TABLES
    if before is None:
        ((layout,),) = db.execute("PRAGMA user_version")
        tables = tables_of(layout)
        broken, items, apart = (
            db.execute(f"SELECT {', '.join(tables[name])} FROM {name} ORDER BY {order}").fetchall()
            for name, order in (("broken", "dataset, item"), ("items", "rowid"), ("apart", "rowid"))
        )
        sets = [str(part) for (part,) in db.execute("SELECT part FROM sets")]
    else:
        data, steps = before
        there = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        broken = [(data, *row) for row in db.execute("SELECT item, reason FROM broken ORDER BY item")]
        found = db.execute("SELECT place, item FROM items ORDER BY place").fetchall() if "items" in there else []
        items, sets = [(data, *row) for row in found], []
        kept = db.execute("SELECT * FROM apart ORDER BY rowid").fetchall() if "apart" in there else []
        apart = [(data, model, method, steps, *more) for model, method, *more in kept]
        tables = tables_of(BEFORE_EDITORS)
    for name, rows in (("broken", broken), ("items", items), ("apart", apart)):
        for row in rows:
            columns = dict(zip(tables[name], row, strict=True))
            if columns.get("edit_guidance", 0) is None:
                del columns["edit_guidance"]
            numbers = {key: columns.pop(key) for key in ("place", "steps", *SCALES) if key in columns}
            check_texts(name, columns)
            for key, value in numbers.items():
                if not isinstance(value, float if key in SCALES else int) or not math.isfinite(value):
                    raise sqlite3.DataError(f"column {key} of the table {name}: {value!r:.40} is no finite number")
    ids: dict[str, list[str]] = {}
    for data, _, item in items:
        ids.setdefault(data, []).append(item)
    left_out = {(data, item): reason for data, item, reason in broken}
    return Standing({}, left_out, ids, [Apart(Part(*row[:-2]), *row[-2:]) for row in apart], sets)


def check_texts(table: str, columns: Mapping[str, object]) -> None:
    for name, value in columns.items():
        if not isinstance(value, str):
            found = {type(None): "null", bytes: "a blob"}.get(type(value), f"the number {value!r:.40}")
            raise sqlite3.DataError(f"column {name} of the table {table}: it is {found}, not a text")
