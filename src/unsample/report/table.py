"""A run's rows as tables: for each model and guidance the methods, and for each method its figures in every column.

Means are over the items that all methods finished, medians over all of a method's own, in which diverged ones count as
worse than any value. The best method of a column has the best mean among those that did not diverge more often than
chance allows; in bold stands every method that the paired interval cannot tell from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unsample.report import statistics
from unsample.report.columns import Column, columns
from unsample.report.statistics import Interval

FINISHED = ("ok", "not_converged")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Values:
    """What a method got in a column, by item; infinite is exact."""

    found: Mapping[str, float]
    diverged: frozenset[str]  # items without a value because they diverged
    reasons: Mapping[str, str]  # finished, but not measured


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

    @property
    def tried(self) -> int:
        """How many items it has a value of, or diverged on."""
        return len(self.values.found) + len(self.values.diverged)

    @property
    def exact(self) -> int:
        """How many pictures came back exactly."""
        return sum(v == float("inf") for v in self.values.found.values())


@dataclass(frozen=True)
class Method:
    """A row of the tables."""

    label: str
    rows: Sequence[Row]
    missing: int  # items of the run that it has no row of
    baseline: bool = False
    cells: Mapping[str, Cell] = field(default_factory=dict)

    def count(self, *statuses: str) -> int:
        """How many of its cells ended so."""
        return sum(row["status"] in statuses for row in self.rows)

    @property
    def success(self) -> float | None:
        """The share of its cells that gave a finite result."""
        return self.count(*FINISHED) / len(self.rows) if self.rows else None

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
    """The methods of one model at one guidance."""

    model: str
    guidance: float | None
    columns: Sequence[Column]
    methods: Sequence[Method]
    baselines: Sequence[Method]
    shared: Mapping[str, int]  # column to how many items all methods finished

    @property
    def everyone(self) -> list[Method]:
        """Methods, then baselines."""
        return [*self.methods, *self.baselines]

    def ordered(self, by: Column | None) -> list[Method]:
        """Methods from best to worst in a column, those that diverged beyond chance and those without a value last."""
        if by is None:
            return list(self.methods)
        fewest = min((len(m.cells[by.key].values.diverged) for m in self.methods if by.key in m.cells), default=0)

        def place(method: Method) -> tuple[bool, bool, float]:
            cell = method.cells.get(by.key)
            if cell is None or cell.centre is None:
                return True, True, 0.0
            lost = len(cell.values.diverged) - fewest
            value = cell.centre.value
            return False, statistics.beyond_chance(lost, cell.tried), -value if by.higher else value

        return sorted(self.methods, key=place)


def blocks(rows: Sequence[Row], metrics: Sequence[str] = ()) -> list[Block]:
    """The tables of a run, models and guidances in the order in which they come.

    Args:
        rows: of the ledger.
        metrics: their order in the plan.
    """
    rows = sorted(rows, key=lambda row: str(row["item"]))
    pairs = dict.fromkeys((row["model"], row.get("guidance")) for row in rows if not row.get("baseline"))
    pairs = pairs or dict.fromkeys((row["model"], row.get("guidance")) for row in rows)
    order = sorted(pairs, key=lambda pair: (str(pair[0]), pair[1] is not None, pair[1] or 0))
    return [_block(model, guidance, rows, metrics) for model, guidance in order]


def _block(model: str, guidance: float | None, rows: Sequence[Row], metrics: Sequence[str]) -> Block:
    of_model = [row for row in rows if row["model"] == model]
    here = [r for r in of_model if r.get("guidance") == guidance or (r.get("baseline") and r.get("guidance") is None)]
    found = columns(here, metrics)
    items = {row["item"] for row in here}
    labels = dict.fromkeys((bool(row.get("baseline")), row["method"]) for row in here)
    everyone = []
    for baseline, label in labels:
        own = [row for row in here if row["method"] == label and bool(row.get("baseline")) == baseline]
        everyone.append(Method(label, own, len(items - {row["item"] for row in own}), baseline))
    shared: dict[str, int] = {}
    cells: list[dict[str, Cell]] = [{} for _ in everyone]
    for column in found:
        values = [collected(method.rows, column) for method in everyone]
        shared[column.key], made = _compared(column, everyone, values)
        for own_cells, cell in zip(cells, made, strict=True):
            if cell is not None:
                own_cells[column.key] = cell
    full = [Method(m.label, m.rows, m.missing, m.baseline, c) for m, c in zip(everyone, cells, strict=True)]
    return Block(model, guidance, found, [m for m in full if not m.baseline], [m for m in full if m.baseline], shared)


def collected(rows: Sequence[Row], column: Column) -> Values:
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
    return Values(found, frozenset(lost), reasons)


def _compared(column: Column, methods: Sequence[Method], values: Sequence[Values]) -> tuple[int, list[Cell | None]]:
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


def _ranked(column: Column, methods: Sequence[Method], cells: Sequence[Cell | None]) -> list[Cell | None]:
    """The cells with the best one marked and the others held against it; baselines stay out of it."""
    rivals = [c for m, c in zip(methods, cells, strict=True) if c and c.centre and not m.baseline]
    if not rivals:
        return list(cells)
    fewest = min(len(c.values.diverged) for c in rivals)
    steady = [c for c in rivals if not statistics.beyond_chance(len(c.values.diverged) - fewest, c.tried)]
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
    lost = len(cell.values.diverged - best.values.diverged) - len(best.values.diverged - cell.values.diverged)
    worse = gap is None or (gap.clearly_below(0) if column.higher else gap.clearly_above(0))
    bold = not worse and not statistics.beyond_chance(lost, cell.tried)
    return Cell(cell.values, cell.centre, cell.median, bold=bold, gap=gap, pairs=len(both))
