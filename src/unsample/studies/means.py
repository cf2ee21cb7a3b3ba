"""The rows of a study, in short: means over units, a line a group."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unsample.studies.base import Row

KINDS, FEW, MOST = 24, 4, 400  # values of a number that tells groups; rows a value; lines of a table
LONG = 60  # letters of a text that tells nothing apart
APART = ("kind", "picture")  # rows that hold a picture for the figure


@dataclass(frozen=True)
class Means:
    """A table: its title, `heads`, and `lines` of texts; how many groups there are in all."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    groups: int

    @property
    def told(self) -> str:
        """What is left out, in words."""
        return "" if self.groups <= len(self.lines) else f"The first {len(self.lines)} of {self.groups:,} groups."


def numbers_of(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that hold pictures."""
    return [row for row in rows if row.get(APART[0]) != APART[1]]


def keys_of(rows: Sequence[Row], always: Collection[str] = ()) -> tuple[str, ...]:
    """The columns that tell groups apart: `model`, `always`, and up to the first measured value those of few values.

    A number that is not whole is measured, unless `always` has it.
    """
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "unit"]
    keys: list[str] = []
    for key in columns:
        values = [row[key] for row in rows if row.get(key) is not None]
        if not values:
            continue
        kinds = {type(value) for value in values}
        if key in always:
            keys.append(key)
            continue
        if kinds <= {str, bool}:
            keys += [key] if max(len(str(value)) for value in values) <= LONG else []
        elif not kinds <= {int, float, bool}:
            continue
        elif len({*values}) <= min(KINDS, len(values) // FEW) or (
            kinds == {int} and len({*values}) <= 60 < len(values)
        ):
            keys += [key] if kinds == {int} else []
        else:
            break
    return tuple(keys)


def means_of(rows: Sequence[Row], always: Collection[str] = ()) -> list[Means]:
    """Means of every measured number over units: a table for each `kind` of rows, where a study has several.

    Args:
        rows: of a study.
        always: columns that tell groups apart however few their values are.
    """
    rows = numbers_of(rows)
    kinds = dict.fromkeys(row.get(APART[0]) for row in rows)
    return [
        _table("" if kind is None else str(kind), [r for r in rows if r.get(APART[0]) == kind], always)
        for kind in kinds
    ]


def _table(title: str, rows: Sequence[Row], always: Collection[str]) -> Means:
    keys = keys_of(rows, always)
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in (*keys, "unit", APART[0])]
    values = [c for c in columns if any(isinstance(row.get(c), int | float) for row in rows)]
    keys = tuple(key for key in keys if key != APART[0])
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    lines = []
    for group, of_group in list(groups.items())[:MOST]:
        units = len({row.get("unit") for row in of_group if any(row.get(c) is not None for c in values)})
        means = [mean(of_group, column) for column in values]
        lines.append((*("" if key is None else str(key) for key in group), str(units), *map(number, means)))
    return Means(title, (*keys, "n", *values), tuple(lines), len(groups))


def mean(rows: Sequence[Mapping[str, Any]], column: str, **where: Any) -> float | None:
    """Of a column's numbers, over the rows that fit; None where there are none."""
    some = (row for row in rows if all(row.get(key) == wanted for key, wanted in where.items()))
    found = [float(row[column]) for row in some if isinstance(row.get(column), int | float)]
    return math.fsum(found) / len(found) if found else None


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        digits = 3 if value == 0 else max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
        return (
            f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits and value == round(value) else f"{value:.{digits}f}"
        )
    return f"{value:.2e}"
