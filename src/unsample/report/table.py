"""A run's rows as tables: for each model, data set, count of steps and guidance the methods, and their figures.

Means are over the items that all methods finished, medians over all of a method's own, in which diverged ones count as
worse than any value. What diverged is held against a method only on items that every method has a row of. The best
method of a column has the best mean among those that did not diverge more often than chance allows; in bold stands
every method that the paired interval cannot tell from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from unsample.bench.coverage import Covered
from unsample.bench.entries import Named, drift_of
from unsample.bench.ledger import FINISHED
from unsample.bench.parts import edits_of
from unsample.errors import UnsampleError
from unsample.experiment.setup import NO_MASK, PLAIN_EDIT
from unsample.numeric import is_real
from unsample.report import statistics, words
from unsample.report.columns import Column, columns
from unsample.report.statistics import Interval

EDITED_AT = ("edited_at", "edit_guidance", "guidance")  # the guidance of an edit: as it was, else as it was asked for
Row = Mapping[str, Any]
Where = tuple[str, str, int, float | None]  # model, data set, steps and guidance of a table


@dataclass(frozen=True)
class Values:
    """What a method got in a column, by item; infinite is exact."""

    found: Mapping[str, float]
    diverged: frozenset[str]  # items without a value because they diverged
    reasons: Mapping[str, str]  # finished, but not measured
    everywhere: Set[str]  # items that every method of the table has a row of

    @property
    def lost(self) -> frozenset[str]:
        """What diverged where every method was tried: only there can methods be compared by it."""
        return self.diverged & self.everywhere

    @property
    def compared(self) -> int:
        """How many items it has a value of, or diverged on, where every method was tried."""
        return len((self.found.keys() | self.diverged) & self.everywhere)


@dataclass(frozen=True)
class Cell:
    """A method's figures in a column."""

    values: Values
    centre: Interval | None = None  # the mean, or the PSNR of the mean MSE, over the items that all finished
    median: float | None = None  # over its own items
    best: bool = False
    bold: bool = False
    gap: Interval | None = None  # its mean less the best method's, over the items that both finished
    pairs: int = 0
    pictures: int | None = None  # of a whole set, whose one value `centre` is

    @property
    def exact(self) -> int:
        """How many pictures came back exactly."""
        return sum(v == float("inf") for v in self.values.found.values())


@dataclass(frozen=True)
class MethodRow:
    """A row of the tables."""

    method: str  # its label in the plan
    rows: Sequence[Row]
    missing: int  # items that it shall have a row of, and has none
    baseline: bool = False
    left_out: int = 0  # items that cannot be used
    stopped: str = ""  # why it was run no further
    drift: str = ""  # why its reconstructions are off, whatever the inversion was worth
    cells: Mapping[str, Cell] = field(default_factory=dict)
    editor: str = PLAIN_EDIT
    mask: str = NO_MASK
    edits: str = ""  # `p2p, mask given, w 3`; nothing of what is as it is without editors
    edited_at: float | None = None  # the guidance of the edit

    @property
    def label(self) -> str:
        """What it is called where a row stands alone."""
        return f"{self.method} + {self.edits}" if self.edits else self.method

    def count(self, *statuses: str) -> int:
        """How many of its cells ended so."""
        return sum(row["status"] in statuses for row in self.rows)

    @property
    def planned(self) -> int:
        """How many cells it shall have, those of items that cannot be used apart."""
        return len(self.rows) + self.missing

    @property
    def success(self) -> float | None:
        """The share of its cells that gave a finite result, of those that have ended."""
        return self.count(*FINISHED) / len(self.rows) if self.rows else None

    @property
    def finished(self) -> float | None:
        """The share of its planned cells that gave one."""
        return self.count(*FINISHED) / self.planned if self.planned else None

    def mean(self, name: str) -> float | None:
        """The mean of a cost over its finished cells."""
        found = self._costs(name)
        return sum(found) / len(found) if found else None

    def most(self, name: str) -> float | None:
        """The largest of them."""
        return max(self._costs(name), default=None)

    def says(self, name: str) -> Any:
        """What its rows say of the method itself."""
        return next((row[name] for row in self.rows if row.get(name) is not None), None)

    def _costs(self, name: str) -> list[float]:
        return [float(r[name]) for r in self.rows if r["status"] in FINISHED and r.get(name) is not None]


@dataclass(frozen=True)
class Block:
    """The methods of one model on one data set, at one count of steps and one guidance."""

    model: str
    guidance: float | None
    title: str
    columns: Sequence[Column]
    methods: Sequence[MethodRow]
    baselines: Sequence[MethodRow]
    shared: Mapping[str, int]  # column to how many items all methods finished
    dataset: str
    steps: int

    @property
    def everyone(self) -> list[MethodRow]:
        """Methods, then baselines."""
        return [*self.methods, *self.baselines]

    def ordered(self, by: Column | None) -> list[MethodRow]:
        """Methods from best to worst in a column, those that diverged beyond chance and those without a value last."""
        if by is None:
            return list(self.methods)
        fewest = min((len(m.cells[by.key].values.lost) for m in self.methods if by.key in m.cells), default=0)

        def place(method: MethodRow) -> tuple[bool, bool, float]:
            cell = method.cells.get(by.key)
            if cell is None or cell.centre is None:
                return True, True, 0.0
            lost = len(cell.values.lost) - fewest
            value = cell.centre.value
            return False, statistics.beyond_chance(lost, cell.values.compared), -value if by.higher else value

        return sorted(self.methods, key=place)


def blocks(
    rows: Sequence[Row], metrics: Sequence[str] = (), parts: Sequence[Covered] = (), sets: Sequence[Row] = ()
) -> list[Block]:
    """The tables of a run; models come in the order of their names, then data sets, steps and guidances in theirs.

    Args:
        rows: of the ledger.
        metrics: their order in the plan.
        parts: what was planned, with or without rows; what is not applicable has no place in a table.
        sets: metrics of whole sets, a row a part of the plan.
    """
    rows = sorted(rows, key=lambda row: str(row["item"]))
    planned = [part for part in parts if part.counts.planned]
    wheres = dict.fromkeys(_where(row) for row in rows if not row.get("baseline"))
    wheres |= dict.fromkeys((c.part.model, c.part.dataset, c.part.steps, c.part.guidance) for c in planned)
    wheres = wheres or dict.fromkeys(_where(row) for row in rows)
    order = sorted(wheres, key=lambda w: (str(w[0]), str(w[1]), w[2], w[3] is not None, w[3] or 0))
    return [_block(w, _heading(w, order), rows, metrics, planned, sets) for w in order]


def _where(row: Row) -> Where:
    return row["model"], row["dataset"], row["steps"], row.get("guidance")


def _heading(where: Where, every: Sequence[Where]) -> str:
    """What tells a table from the others: `scenes-sd, guidance 3`, and steps and data set where there are several."""
    model, dataset, steps, guidance = where
    said = [str(model)] + ([] if guidance is None else [f"guidance {guidance:g}"])
    said += [f"{steps} steps"] if len({w[2] for w in every}) > 1 else []
    said += [f"on {dataset}"] if len({w[1] for w in every}) > 1 else []
    return words.line(", ".join(said), 300)


def _block(
    where: Where, title: str, rows: Sequence[Row], metrics: Sequence[str], parts: Sequence[Covered], sets: Sequence[Row]
) -> Block:
    *same, guidance = where
    of_model = [row for row in rows if [*_where(row)][:3] == same]
    here = [r for r in of_model if r.get("guidance") == guidance or (r.get("baseline") and r.get("guidance") is None)]
    whole = [row for row in sets if _where(row) == where]
    found = columns([*here, *whole], metrics)
    covered = [p for p in parts if (p.part.model, p.part.dataset, p.part.steps, p.part.guidance) == where]
    everyone = _methods(here, covered)
    tried = [{row["item"] for row in m.rows} for m in everyone if m.rows and not m.baseline]
    everywhere = frozenset(set.intersection(*tried)) if tried else frozenset[str]()
    shared: dict[str, int] = {}
    cells: list[dict[str, Cell]] = [{} for _ in everyone]
    for column in found:
        if column.of_set:
            made = [_of_set(column, [r for r in whole if _whose(r)[1:] == (m.method, m.edits)]) for m in everyone]
            shared[column.key] = max((cell.pictures or 0 for cell in made if cell), default=0)
        else:
            values = [collected(method.rows, column, everywhere) for method in everyone]
            shared[column.key], made = _compared(column, everyone, values)
        for own_cells, cell in zip(cells, made, strict=True):
            if cell is not None:
                own_cells[column.key] = cell
    full = [replace(m, cells=c) for m, c in zip(everyone, cells, strict=True)]
    apart = [m for m in full if m.baseline]
    return Block(
        where[0], guidance, title, found, [m for m in full if not m.baseline], apart, shared, where[1], where[2]
    )


def _of_set(column: Column, rows: Sequence[Row]) -> Cell | None:
    """One value of all pictures together, or why there is none."""
    entry = next((row["values"][column.key] for row in rows if column.key in row["values"]), None)
    if entry is None:
        return None
    value = float("inf") if entry["exact"] else entry["value"]
    reasons = {"all": str(entry["reason"])} if entry["reason"] else {}
    none = Values({}, frozenset(), reasons, frozenset())
    return Cell(none, None if value is None else Interval(float(value)), pictures=entry["n"])


def _methods(rows: Sequence[Row], parts: Sequence[Covered]) -> list[MethodRow]:
    """Every method that has a row, or shall have one, in the order of the rows and then of the plan."""
    planned = {(part.baseline, part.part.method, part.part.edits): part for part in parts}
    items, found = {row["item"] for row in rows}, []
    for whose in dict.fromkeys([*map(_whose, rows), *planned]):
        baseline, label, edits = whose
        own, part = [row for row in rows if _whose(row) == whose], planned.get(whose)
        how: Row = own[0] if own else part.part._asdict() if part else {}
        told: dict[str, Any] = {
            "editor": str(how.get("editor", PLAIN_EDIT)),
            "mask": str(how.get("mask", NO_MASK)),
            "edits": edits,
            "edited_at": next((how[k] for k in EDITED_AT if how.get(k) is not None), None),
        }
        drifts = words.line(_drift(own[0])) if own else ""
        missing = len(items - {row["item"] for row in own})
        method = MethodRow(label, own, missing, baseline, drift=drifts, **told)
        if part is not None:
            stopped = part.apart.reason if part.apart else ""
            method = replace(method, missing=part.counts.missing, left_out=part.counts.left_out, stopped=stopped)
        found.append(method)
    return found


def _whose(row: Row) -> tuple[bool, str, str]:
    """Whether it is a baseline's, its label, and how was edited."""
    return bool(row.get("baseline")), row["method"], edits_of(row)


def _drift(row: Row) -> str:
    """What the verbs warn of where a method is inverted at one guidance and sampled at another, from what a row says.

    A row may come from anywhere: of one that no method can be made from nothing is said.
    """
    inverted_at, sampled_at = row.get("inversion_guidance"), row.get("guidance")
    if row.get("baseline") or not is_real(inverted_at) or not is_real(sampled_at):
        return ""
    try:
        return drift_of(Named(row["method"], row["method_name"], dict(row["settings"]), inverted_at), sampled_at)
    except (UnsampleError, KeyError, TypeError, ValueError):
        return ""


def collected(rows: Sequence[Row], column: Column, everywhere: Set[str]) -> Values:
    """A method's values in a column."""
    found: dict[str, float] = {}
    reasons: dict[str, str] = {}
    lost = set()
    for row in rows:
        entry = row["values"].get(column.key) or {}
        if entry.get("value") is not None:
            found[row["item"]] = float(entry["value"])
        elif entry.get("exact"):
            found[row["item"]] = float("inf")
        elif row["status"] == "diverged":
            lost.add(row["item"])
        elif entry.get("reason"):
            reasons[row["item"]] = str(entry["reason"])
    return Values(found, frozenset(lost), reasons, everywhere)


def _compared(column: Column, methods: Sequence[MethodRow], values: Sequence[Values]) -> tuple[int, list[Cell | None]]:
    """How many items all methods finished, and the cell of each method that has anything to show."""
    sets = [v.found.keys() for m, v in zip(methods, values, strict=True) if v.found and not m.baseline]
    sets = sets or [v.found.keys() for v in values if v.found]
    common = sorted(set.intersection(*map(set, sets))) if sets else []
    made: list[Cell | None] = []
    for v in values:
        if not (v.found or v.diverged or v.reasons):
            made.append(None)
            continue
        shared = [v.found[i] for i in common if i in v.found]
        centre = (statistics.psnr_of_mean_mse if column.decibels else statistics.mean)(shared)
        worst = len(v.diverged) if column.better != "neither" else 0
        made.append(Cell(v, centre, statistics.median([*v.found.values()], worst, column.better != "lower")))
    return len(common), _ranked(column, methods, made) if column.ranks else made


def _ranked(column: Column, methods: Sequence[MethodRow], cells: Sequence[Cell | None]) -> list[Cell | None]:
    """The cells with the best one marked and the others held against it; baselines stay out of it."""
    rivals = [c for m, c in zip(methods, cells, strict=True) if c and c.centre and not m.baseline]
    if not rivals:
        return list(cells)
    fewest = min(len(c.values.lost) for c in rivals)
    steady = [c for c in rivals if not statistics.beyond_chance(len(c.values.lost) - fewest, c.values.compared)]
    sign = 1 if column.higher else -1
    best = max(steady, key=lambda c: sign * c.centre.value if c.centre else 0.0)
    return [
        c if c is None or m.baseline or c.centre is None else _against(column, c, best)
        for m, c in zip(methods, cells, strict=True)
    ]


def _against(column: Column, cell: Cell, best: Cell) -> Cell:
    if cell is best:
        return Cell(cell.values, cell.centre, cell.median, best=True, bold=True)
    both = sorted(cell.values.found.keys() & best.values.found.keys())
    difference = statistics.psnr_difference if column.decibels else statistics.mean_difference
    gap = difference([cell.values.found[i] for i in both], [best.values.found[i] for i in both])
    lost = len(cell.values.lost - best.values.lost) - len(best.values.lost - cell.values.lost)
    worse = gap is None or (gap.clearly_below(0) if column.higher else gap.clearly_above(0))
    bold = not worse and not statistics.beyond_chance(lost, cell.values.compared)
    return Cell(cell.values, cell.centre, cell.median, bold=bold, gap=gap, pairs=len(both))
