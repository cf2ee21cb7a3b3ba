"""The tables as text, cell by cell: what the page and the Markdown file both show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from unsample.bench.ledger import FINISHED
from unsample.report import words
from unsample.report.columns import STAGES, Column, leading
from unsample.report.table import Block, Cell, MethodRow

OUTCOMES = 7  # columns of outcomes, and of the cost of an inversion, before that of an edit


@dataclass(frozen=True)
class Head:
    """The head of a column."""

    text: str
    more: Sequence[str] = ()


@dataclass(frozen=True)
class Text:
    """A cell: its figure, and the smaller ones under it."""

    main: str
    more: Sequence[str] = ()
    bold: bool = False
    bad: bool = False
    order: float | None = None  # what sorting goes by


@dataclass(frozen=True)
class Line:
    """A row."""

    label: str
    cells: Sequence[Text]
    marks: Sequence[str] = ()
    baseline: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table."""

    name: str
    title: str
    heads: Sequence[Head]
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    ranked: bool = False  # whether bold means something in it


def sheets(block: Block) -> list[Sheet]:
    """The tables of a block that have anything in them."""
    stages = [c.stage for c in block.columns]
    found = [outcomes(block)]
    found += [_figures(block, "reconstruction", _reconstruction(block))] if {"record", "noise"} & {*stages} else []
    for stage in dict.fromkeys(s for s in stages if s not in ("record", "noise")):
        found.append(_figures(block, stage, [c for c in block.columns if c.stage == stage]))
    return found


def outcomes(block: Block) -> Sheet:
    """How the cells ended, and what they cost."""
    heads = [
        Head("Finished", ["of the planned cells"]),
        Head("Not converged", ["still finished"]),
        Head("Diverged", ["ranked worst"]),
        Head("Failed", ["no result"]),
        Head("Missing", ["no row yet"]),
        Head("Evaluations", ["a picture"]),
        Head("Backward", ["a picture"]),
        Head("Seconds", ["a picture"]),
        Head("Memory", ["peak, MB"]),
        Head("Stored", ["over the noise"]),
    ]
    costly = any(m.mean("edit_nfe") is not None for m in block.everyone)
    telling = _telling(block) if any(m.edits for m in block.everyone) else []
    heads = [*(head for head, _ in telling), *heads]
    if costly:
        at = len(telling) + OUTCOMES
        heads[at:at] = [Head("Edit evaluations", ["its source’s included"]), Head("Edit backward", ["a picture"])]
    lines = [_line(m, _outcome(m, costly), telling) for m in block.everyone]
    missing = [f"{m.label}: {words.count(m.missing, 'item')}" for m in block.everyone if m.missing]
    notes = [f"No row yet, the run is not complete: {'; '.join(missing)}."] if missing else []
    notes += [f"{m.label} was stopped: {words.line(m.stopped, 500)}" for m in block.everyone if m.stopped]
    left_out = max((m.left_out for m in block.everyone), default=0)
    notes += [f"Left out of every method: {words.count(left_out, 'item')} that cannot be used."] if left_out else []
    return Sheet("outcomes", "Outcomes and cost", heads, lines, notes)


def differences(block: Block) -> Sheet | None:
    """Each method less the best of each column, over the items that both finished."""
    ranked = [
        c for c in block.columns if c.ranks and any(m.cells[c.key].gap for m in block.methods if c.key in m.cells)
    ]
    if not ranked or len(block.methods) < 2:
        return None
    telling = _telling(block) if any(c.stage == "edit" for c in ranked) else []
    rows = [_line(m, [_difference(c, m.cells.get(c.key)) for c in ranked], telling) for m in block.methods]
    lines = [replace(line, marks=()) for line in rows]
    heads = [head for head, _ in telling] + [
        Head(f"{c.metric} {c.arrow}", [STAGES.get(c.stage, c.stage), *_unit(c)]) for c in ranked
    ]
    return Sheet("differences", "Paired differences from the best", heads, lines)


def _figures(block: Block, name: str, of: Sequence[Column]) -> Sheet:
    columns = [c for c in of if _measured(c, block)]
    by = leading(columns, "noise" if name == "reconstruction" else name)
    order = [*block.ordered(by), *block.baselines]
    telling = _telling(block) if name == "edit" else []
    heads = [head for head, _ in telling] + [_head(c, block) for c in columns]
    lines = []
    for method in order:
        if any(c.key in method.cells for c in columns):
            cells = [_cell(c, method.cells.get(c.key), method) for c in columns]
            lines.append(_line(method, cells, telling))
    ranked = any(c.ranks for c in columns)
    title = "Reconstruction" if name == "reconstruction" else STAGES.get(name, name.capitalize())
    return Sheet(name, title, heads, lines, [*_uneven(block, columns), *_unmeasured(block, of)], ranked)


def _telling(block: Block) -> list[tuple[Head, Callable[[MethodRow], str]]]:
    """Columns that say how was edited, and whether by a mask that was given: that supplies much of what is kept."""
    found: list[tuple[Head, Callable[[MethodRow], str]]] = [
        (Head("Editor"), lambda m: m.editor),
        (Head("Mask", ["given: the item’s own"]), lambda m: m.mask),
    ]
    if len({m.edited_at for m in block.methods}) > 1:
        found.append((Head("Edit w"), lambda m: words.NOTHING if m.edited_at is None else f"{m.edited_at:g}"))
    return found


def _line(m: MethodRow, cells: Sequence[Text], telling: Sequence[tuple[Head, Callable[[MethodRow], str]]]) -> Line:
    """A row; how was edited stands in columns of its own."""
    told = [Text(words.NOTHING if m.baseline else words.line(of(m), 200)) for _, of in telling]
    return Line(m.method, [*told, *cells], _marks(m), m.baseline)


def _uneven(block: Block, columns: Sequence[Column]) -> list[str]:
    """Where the methods of a table were not tried on the same items, and what of it compares."""
    having = [m for m in block.methods if any(c.key in m.cells for c in columns)]
    tried = {frozenset(row["item"] for row in m.rows) for m in having}
    if len(tried) < 2:
        return []
    common = len(frozenset.intersection(*tried))
    if not common:
        return ["No item was tried by every method of this table: nothing in it ranks them."]
    return [
        f"Not every method was tried on the same items: means and ranks are over the {words.count(common, 'item')} "
        "that all were tried on, or fewer; medians are over each method's own and do not compare."
    ]


def _measured(column: Column, block: Block) -> bool:
    """Whether there is a value, or a divergence; of a column without weights only the reason is shown."""
    values = [m.cells[column.key].values for m in block.everyone if column.key in m.cells]
    sets = any(m.cells[column.key].centre for m in block.everyone if column.key in m.cells)
    return sets or any(v.found for v in values) or not any(v.reasons for v in values)


def _reconstruction(block: Block) -> list[Column]:
    """A metric's two columns beside each other: from the record, from the noise alone."""
    both = [c for c in block.columns if c.stage in ("record", "noise")]
    metrics = list(dict.fromkeys(c.metric for c in both))
    return sorted(both, key=lambda c: metrics.index(c.metric))


def _head(column: Column, block: Block) -> Head:
    source = {"record": "record, not ranked", "noise": "noise alone"}.get(column.stage, "")
    what = "of all pictures" if column.of_set else "of the mean MSE" if column.decibels else "mean"
    more = [source, ", ".join([what, *_unit(column)]), f"n = {block.shared.get(column.key, 0):,}"]
    return Head(f"{column.metric} {column.arrow}".strip(), [m for m in more if m])


def _unit(column: Column) -> list[str]:
    return [column.unit] if column.unit not in ("", "1") else []


def _cell(column: Column, cell: Cell | None, method: MethodRow) -> Text:
    if cell is None:
        return Text(words.NOTHING)
    more = [words.bounds(cell.centre, column.unit)]
    found = cell.values.found
    if cell.median is not None and not _shares(found.values()) and not (cell.centre and cell.centre.value == math.inf):
        more.append(f"median {words.number(cell.median, column.unit)}")
    if 0 < cell.exact < len(found):
        more.append(f"{cell.exact:,} exact")
    if cell.values.diverged:
        more.append(f"{len(cell.values.diverged):,} diverged")
    if cell.values.reasons:
        more.append(f"{len(cell.values.reasons):,} not measured")
    if column.stage == "record" and method.says("exact_by_construction"):
        more.append("exact by construction")
    value = cell.centre.value if cell.centre else None
    main = words.number(value, column.unit)
    return Text(main, [m for m in more if m], cell.bold, value is None, value)


def _shares(values: object) -> bool:
    """Whether a column holds yes and no only, whose median says nothing."""
    return all(v in (0.0, 1.0) for v in values)  # type: ignore[attr-defined]


def _outcome(m: MethodRow, costly: bool) -> list[Text]:
    finished, share = m.count(*FINISHED), m.finished

    def counted(status: str) -> Text:
        many = m.count(status)
        return Text(f"{many:,}", bad=many > 0 and status != "not_converged", order=many)

    def cost(value: float | None, show: Callable[[float | None], str]) -> Text:
        return Text(show(value), order=value)

    return [
        Text(words.percent(share), [f"{finished:,} of {m.planned:,}"], order=share),
        counted("not_converged"),
        counted("diverged"),
        counted("failed"),
        Text(f"{m.missing:,}", bad=m.missing > 0, order=m.missing),
        cost(m.mean("nfe"), words.whole),
        cost(m.mean("backward"), words.whole),
        *([cost(m.mean(name), words.whole) for name in ("edit_nfe", "edit_backward")] if costly else []),
        cost(m.mean("seconds"), lambda v: words.NOTHING if v is None else f"{v:.3g}"),
        cost(m.most("peak_memory_mb"), lambda v: words.NOTHING if v is None else f"{v:,.0f}"),
        _stored(m),
    ]


def _stored(m: MethodRow) -> Text:
    ratio = m.mean("stored_ratio")
    what = words.line(m.says("stores") or "", 60)
    return Text(words.NOTHING if ratio is None else f"{ratio:.3g}×", [what] if what else [], order=ratio)


def _marks(m: MethodRow) -> list[str]:
    marks = {"exact_by_construction": "exact by construction", "fitted": "fitted to the picture"}
    found = [text for name, text in marks.items() if m.says(name)]
    return [*found, "drifts by guidance"] if m.drift else found


def _difference(column: Column, cell: Cell | None) -> Text:
    if cell is None or cell.centre is None:
        return Text(words.NOTHING)
    if cell.best:
        return Text("best", bold=True, order=0.0)
    more = [f"n = {cell.pairs:,}"]
    order = cell.gap.value if cell.gap and math.isfinite(cell.gap.value) else None
    return Text(words.gap(cell.gap, column.unit), more, cell.bold, order=order)


def _unmeasured(block: Block, columns: Sequence[Column]) -> list[str]:
    """Why values are missing: each reason once, with how many it took."""
    counts: dict[tuple[str, str], int] = {}
    for column in columns:
        for method in block.everyone:
            for reason in method.cells[column.key].values.reasons.values() if column.key in method.cells else ():
                counts[column.metric, reason] = counts.get((column.metric, reason), 0) + 1
    return [f"{title}: not measured {many:,}×: {reason}" for (title, reason), many in counts.items()]
