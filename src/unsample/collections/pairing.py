"""Two collections item by item: each of the first with the one of the same name in the second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from unsample.datasets.item import Dataset, Item
from unsample.datasets.rows import Rows
from unsample.errors import BadInput


@dataclass(frozen=True, slots=True)
class Both:
    """The rows of two collections."""

    a: Any
    b: Any
    read_a: Callable[[str, Any], Item]
    read_b: Callable[[str, Any], Item] | None


def paired(a: Dataset, b: Dataset | None) -> Rows[Both]:
    """A collection of what both hold; of the first alone where there is no second.

    Raises:
        BadInput: no name is in both, or one of them is made on the spot.
    """
    for data in (a, b):
        if data is not None and not isinstance(data, Rows):
            raise BadInput(f"{data.spec} is made on the spot; measure collections of files")
    assert isinstance(a, Rows)
    if b is None:
        return replace(a, rows=[Both(row, None, a.read, None) for row in a.rows], read=read_both)
    assert isinstance(b, Rows)
    known = dict(zip(b.ids, b.rows, strict=True))
    both = [(id, Both(row, known[id], a.read, b.read)) for id, row in zip(a.ids, a.rows, strict=True) if id in known]
    if not both:
        few = "; ".join(f"{data.spec}: {', '.join(list(data.ids)[:3])} ..." for data in (a, b))
        raise BadInput(f"the two collections have no name in common: {few}")
    return Rows(a.spec, [id for id, _ in both], [row for _, row in both], a.broken, read_both)


def read_both(id: str, both: Both) -> Item:
    """The first's item, with the second's in `extra["held"]`."""
    item = both.read_a(id, both.a)
    if both.read_b is None:
        return item
    held = both.read_b(id, both.b)
    return replace(item, extra={**item.extra, "held": held, "digest": f"{digest(item)}:{digest(held)}"})


def digest(item: Item) -> str:
    """Of what it holds, a saved inversion's too."""
    return str(item.extra["digest"]) if "digest" in item.extra else item.digest()
