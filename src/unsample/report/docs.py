"""The tables of runs in a Markdown document, each between `<!-- table NAME -->` and `<!-- end NAME -->`.

What the plan of a run says in `[docs]` (`bench/docs.py`) is written between the markers of its table, all in one step;
the rest of the document stays as it is. A row that no run holds whole stays as the document has it, as long as the
plan lists it and the columns are the same: so a table can be made again piece by piece, and says when each row was.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.bench.docs import COSTS, TELLING, Docs, Shown, read_docs
from unsample.bench.entries import split_outside
from unsample.bench.parts import Part, others
from unsample.errors import BadInput, BadOption
from unsample.experiment.setup import STAGES
from unsample.report import statistics, words
from unsample.report.about import settings_of
from unsample.report.columns import column

if TYPE_CHECKING:
    from unsample.bench.ledger import RunData

LARGEST = 2**24  # bytes of a document
UNGUIDED = ("identity", "vae(source)", "vae(truth)", "zero")  # baselines that no guidance changes: a row each
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Filled:
    """What became of a table."""

    table: str
    made: Sequence[str]  # rows of the runs
    kept: Sequence[str]  # rows as the document had them
    dropped: Sequence[str]  # rows of the document that the plan does not list, or whose columns are other ones
    lacking: Sequence[str]  # rows of the plan that neither has


@dataclass(frozen=True)
class PlannedRow:
    """A row that the plan lists: what tells it from others, and its cells as far as they are done."""

    part: Part  # the first of them, where a plan has several data sets
    name: str  # of the method, without its settings
    baseline: bool
    free: bool  # no guidance changes it
    inversion_guidance: float
    whole: bool  # every cell has ended
    rows: Sequence[Row]


def write_docs(folders: Sequence[str | os.PathLike[str]], document: str | os.PathLike[str]) -> list[Filled]:
    """Put the tables of runs into a Markdown document; runs of one plan, such as shards, fill one table together.

    Raises:
        BadInput: a folder is no run or its plan has no `[docs]`, runs of two plans want one table, two runs disagree,
            the document has no markers for a table, or it cannot be written; nothing is written then.
    """
    from unsample.bench.ledger import read_run

    path = Path(document)
    text = _read(path)
    filled: list[Filled] = []
    for docs, run in _together([read_run(folder) for folder in folders]):
        before, inside, after = _section(text, docs.table, path)
        section, what = _made(docs, planned_rows(run), inside)
        text, filled = _with_section(before, section, after), [*filled, what]
    _write(path, text)
    return filled


def write_section(document: Path, name: str, text: str) -> None:
    """Put a text between the markers of a table, and leave the rest of the document as it is.

    Raises:
        BadInput: it has no such markers, or cannot be read or written.
    """
    before, _, after = _section(_read(document), name, document)
    _write(document, _with_section(before, text, after))


def check_section(document: Path, name: str) -> None:
    """Refuse a document that has no place for a table.

    Raises:
        BadInput: it has no such markers, or cannot be read.
    """
    _section(_read(document), name, document)


def table_of(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    head, *body = (f"| {' | '.join(line)} |" for line in (titles, *rows))
    return "\n".join([head, f"|{'---|' * len(titles)}", *body])


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        if len(content) > LARGEST:
            raise BadInput(f"cannot read {str(path)!r}: a document of over {LARGEST // 2**20} MB")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {str(path)!r}: {error}") from error


def _write(path: Path, text: str) -> None:
    from unsample.media.files import atomic_write

    target = os.path.realpath(path)  # so that a link stays one, and what it points to is written
    atomic_write(target, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def _section(text: str, name: str, path: Path) -> tuple[str, str, str]:
    """What stands up to the markers of a table, between them, and after."""
    begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
    begins = list(re.finditer(rf"{re.escape(begin)}\r?\n", text))
    ends = list(re.finditer(rf"(\r?\n){re.escape(end)}", text))
    if len(begins) != 1 or len(ends) != 1 or begins[0].end() > ends[0].end(1):
        raise BadInput(
            f"{str(path)!r} has no place for the table {name}: put the lines {begin} and {end} "
            "where it shall stand, once and in this order"
        )
    start, stop = begins[0].end(), ends[0].start()  # of nothing between them, the line end is of both
    return text[:start], text[start:stop], text[stop:]


def _with_section(before: str, section: str, after: str) -> str:
    """A document with another section, whose lines end as that of the marker before it does."""
    return before + section.replace("\n", "\r\n" if before.endswith("\r\n") else "\n") + after


def _together(runs: Sequence[RunData]) -> list[tuple[Docs, RunData]]:
    """Each table with the runs that fill it, as one run."""
    tables: dict[str, tuple[Docs, RunData]] = {}
    for run in runs:
        settings = settings_of(run.plan)
        if not settings.get("docs"):
            raise BadInput(f"the plan of {str(run.folder)!r} has no [docs], so no table of a document is its; add one")
        try:
            docs = read_docs(settings["docs"], [str(m) for m in settings.get("metrics") or ()], list(STAGES))
        except BadOption as error:
            raise BadInput(f"{str(run.folder)!r} is no run that can be read: {error}") from error
        if docs.table not in tables:
            tables[docs.table] = docs, run
            continue
        first = tables[docs.table][1]
        if first.plan.get("fingerprint") != run.plan.get("fingerprint"):
            raise BadInput(
                f"{str(first.folder)!r} and {str(run.folder)!r} are runs of two plans, and both fill the table "
                f"{docs.table}: give one of them, or another name in [docs]"
            )
        tables[docs.table] = docs, _joined(first, run)
    return list(tables.values())


def _joined(first: RunData, other: RunData) -> RunData:
    """Two runs of one plan as one."""
    from unsample.bench.parts import cell_id

    rows = {cell_id(row): row for row in first.rows}
    for row in other.rows:
        mine = rows.setdefault(cell_id(row), row)
        if mine["values"] != row["values"]:
            raise BadInput(f"{str(first.folder)!r} and {str(other.folder)!r} disagree on the cell {cell_id(row)[:200]}")
    statuses = {**first.standing.statuses, **other.standing.statuses}
    standing = replace(first.standing, statuses=statuses, broken={**first.standing.broken, **other.standing.broken})
    return replace(first, rows=sorted(rows.values(), key=lambda row: row["order"]), standing=standing)


def _made(docs: Docs, planned: Sequence[PlannedRow], inside: str) -> tuple[str, Filled]:
    """The section with every row that is there to be had, in the order of the plan."""
    telling = [k for k, c in enumerate(docs.columns) if c in TELLING]
    titles, *there = _cells(inside) or [[]]
    same = titles == docs.titles
    known = {_key(row, telling): row for row in there} if same else {}
    made: list[str] = []
    kept: list[str] = []
    lacking: list[str] = []
    rows: list[list[str]] = []
    for one in planned:
        row = [_cell(c, one, planned, said="inverting w" in docs.columns) for c in docs.columns]
        key = _key(row, telling)
        found = row if one.whole and one.rows else known.get(key)
        (made if found is row else lacking if found is None else kept).append(" ".join(key))
        known.pop(key, None)
        rows += [] if found is None else [found]
    dropped = [" ".join(key) for key in known] if same else [" ".join(row) for row in there]
    return f"{docs.note}\n\n{table_of(docs.titles, rows)}", Filled(docs.table, made, kept, dropped, lacking)


def _key(row: Sequence[str], telling: Sequence[int]) -> tuple[str, ...]:
    return tuple(row[k] if k < len(row) else "" for k in telling)


def _cells(section: str) -> list[list[str]]:
    """Head and rows of the table in a section, without the line between them."""
    lines = [line.strip() for line in section.splitlines() if line.strip().startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return cells[:1] + cells[2:]


def _cell(asked: str | Shown, one: PlannedRow, planned: Sequence[PlannedRow], said: bool) -> str:
    """The text of a cell; `said`: the guidance of inversion has a column of its own."""
    if isinstance(asked, Shown):
        return _figure(asked, one.rows) if asked.against is None else _ratio(asked, one, planned)
    if asked in COSTS:
        found = [row[COSTS[asked]] for row in one.rows if row.get(COSTS[asked]) is not None]
        return f"{sum(found) / len(found):.0f}" if found else "0"
    counts = Counter(row["dataset"] for row in one.rows if row["status"] != "failed")
    inverted = next((row["inversion_guidance"] for row in one.rows), one.inversion_guidance)
    plain = {
        "model": words.line(one.part.model),
        "method": _without_guidance(words.line(one.part.method)) if said else words.line(one.part.method),
        "steps": str(one.part.steps),
        "w": words.NOTHING if one.free else f"{one.part.guidance:g}",
        "editor": words.NOTHING if one.baseline else words.line(one.part.editor),
        "mask": words.NOTHING if one.baseline else words.line(one.part.mask),
        "edit w": words.NOTHING if one.free else f"{one.part.edited_at:g}",
        "inverting w": words.NOTHING if one.baseline else f"{inverted:g}",
        "n": str(max(counts.values(), default=0)),
        "made": _made_on(one.rows),
    }
    return plain[asked].replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _without_guidance(label: str) -> str:
    """A label without the guidance of inversion."""
    name, _, inner = label.removesuffix("]").partition("[")
    kept = [part for part in split_outside(inner, ",") if not part.startswith("inversion_guidance=")]
    return f"{name}[{','.join(kept)}]" if any(kept) else name


def _made_on(rows: Sequence[Row]) -> str:
    """The day of the last cell, and the accelerators that made any: `2026-11-27 on H100`."""
    day = max((str(row["finished"])[:10] for row in rows if row.get("finished")), default="")
    names = dict.fromkeys(str(row["device"]) for row in rows if row.get("device") not in (None, "cpu"))
    short = [next((part for part in name.split() if re.search(r"\d", part)), name) for name in names]
    return words.line(f"{day} on {', '.join(short)}" if short else day, 80)


def _figure(asked: Shown, rows: Sequence[Row]) -> str:
    """One number of the cells' values; how many diverged stands beside it."""
    found, weights, lost = [], [], 0
    for row in (row for row in rows if asked.of in (None, row.get("changed"))):
        entry = row["values"].get(asked.value) or {}
        value = math.inf if entry.get("exact") else entry.get("value")
        if value is None:
            lost += row["status"] == "diverged"
            continue
        found.append(value if asked.most is None else min(value, asked.most))
        weights.append((row["values"].get(asked.weight or "") or {}).get("value"))
    if not found:
        return "diverged" if lost else words.NOTHING
    said = _said(asked, found, weights, lost)
    return f"{said}, {lost} diverged" if lost else said


def _ratio(asked: Shown, one: PlannedRow, planned: Sequence[PlannedRow]) -> str:
    """A mean over that of the other method, over the items that both have a value of."""
    other = next(iter(others(one.part, str(asked.against), ((p.part, p.name) for p in planned))), None)
    against = next((p for p in planned if p.part == other), None)
    sides: list[dict[tuple[str, str], float]] = []
    for rows in (one.rows, against.rows if against is not None and against.whole else ()):
        kept = (row for row in rows if asked.of in (None, row.get("changed")))
        values = {(row["dataset"], row["item"]): (row["values"].get(asked.value) or {}).get("value") for row in kept}
        sides.append({item: value for item, value in values.items() if value is not None})
    both = sorted(sides[0].keys() & sides[1].keys())
    found = statistics.mean_ratio(*([side[item] for item in both] for side in sides))
    if found is None:
        return words.NOTHING
    return f"{found.value:.3g}" + ("" if found.low is None else f" ({found.low:.3g} to {found.high:.3g})")


def _said(asked: Shown, found: Sequence[float], weights: Sequence[float | None], lost: int) -> str:
    if asked.show == "median":
        higher = column(*asked.value.split(".", 1)).better != "lower"
        middle = statistics.median(found, lost, higher)
        return words.NOTHING if middle is None else f"{middle:.3g}"
    if asked.show == "pooled":
        pairs = [(v, w) for v, w in zip(found, weights, strict=True) if w is not None]
        whole = math.fsum(w for _, w in pairs)
        if not whole:
            return words.NOTHING
        ratio = math.fsum(v * w for v, w in pairs) / whole
        if not asked.interval or len(pairs) < 2:
            return f"{ratio:.3g}"
        spread = math.fsum((w * (v - ratio)) ** 2 for v, w in pairs) * len(pairs) / (len(pairs) - 1)
        return f"{ratio:.3g} ± {1.96 * math.sqrt(spread) / whole:.1g}"
    mean = sum(found) / len(found)
    if asked.show == "share" or not math.isfinite(mean):
        return f"{mean:.3g}"
    half = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in found) / (len(found) - 1) / len(found)) if found[1:] else None
    return f"{mean:.3g}" if half is None else f"{mean:.3g} ± {half:.1g}"


def planned_rows(run: RunData) -> list[PlannedRow]:
    """Every row of a run's plan, model by model and method by method, baselines first.

    Raises:
        BadInput: the plan is one that this version cannot make.
    """
    from unsample.bench.coverage import covered
    from unsample.bench.entries import methods_of
    from unsample.bench.parts import parts_of
    from unsample.bench.plan import make_plan
    from unsample.bench.sets import rows_of

    try:
        plan = make_plan(run.plan["plan"])
    except (BadOption, KeyError, TypeError) as error:
        raise BadInput(f"the plan of {str(run.folder)!r} is one that this version cannot make: {error}") from error
    rows = rows_of(run)
    far = {one.part: one.counts for one in covered(plan, run.standing)}
    found: dict[tuple[str, str, int, float | None, str], PlannedRow] = {}
    for planned in parts_of(plan):
        part, named = planned.part, planned.named
        if part in far and not far[part].planned:  # not applicable
            continue
        free = named.name in UNGUIDED
        key = part.model, part.method, part.steps, None if free else part.guidance, part.edits
        if free and key in found and found[key].part.guidance != part.guidance:
            continue
        whole = part in far and not far[part].missing
        own = rows.get(part, [])
        one = found.setdefault(
            key, PlannedRow(part, named.name, named.baseline, free, named.inversion_guidance, True, [])
        )
        found[key] = replace(one, whole=one.whole and whole, rows=[*one.rows, *own])
    labels, order = [named.label for named in methods_of(plan)], list(found)

    def place(key: Any) -> tuple[Any, ...]:
        part = found[key].part
        method = plan.models.index(part.model), not found[key].baseline, labels.index(part.method)
        return *method, part.steps, part.guidance, order.index(key)  # editors in the order of the plan

    return [found[key] for key in sorted(found, key=place)]
