"""Cells and batches: the product of a plan, in an order that follows from the plan alone.

A batch is `batch_size` neighbouring items of one model, method and guidance. Which items share one follows from their
place in the data set, never from what is already done, so that a resumed run computes the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from unsample.bench.ledger import Part, cell_name
from unsample.bench.plan import Named, Plan, methods_of


@dataclass(frozen=True)
class BatchTask:
    """A batch to be done. Picklable."""

    model: str
    method: str  # label
    guidance: float
    items: tuple[int, ...]  # places in the data set
    ids: tuple[str, ...]
    order: int  # of the first cell, in the table
    attempt: int = 1
    deaths: int = 0

    @property
    def part(self) -> Part:
        """Which part of the plan it belongs to."""
        return self.model, self.method, self.guidance

    def cells(self) -> list[str]:
        """What its cells are called (`ledger.cell_id`)."""
        return [cell_name(self.part, id) for id in self.ids]

    def only(self, keep: Sequence[int]) -> BatchTask:
        """Some of its items, by their place in it."""
        items, ids = tuple(self.items[k] for k in keep), tuple(self.ids[k] for k in keep)
        return replace(self, items=items, ids=ids, order=self.order + items[0] - self.items[0])

    def alone(self) -> list[BatchTask]:
        """Each of its items in a batch of its own."""
        return [self.only([k]) for k in range(len(self.ids))]

    def halves(self) -> list[BatchTask]:
        """Two batches."""
        middle = (len(self.ids) + 1) // 2
        return [self.only(range(middle)), self.only(range(middle, len(self.ids)))]


def tasks_of(plan: Plan, ids: Sequence[str], batch_size: int, shard: tuple[int, int] = (1, 1)) -> Iterator[BatchTask]:
    """The batches of a plan; shard i of n has every n-th."""
    every = product(plan.models, plan.guidance, methods_of(plan))
    starts = (
        (k * len(ids), first, *outer) for k, outer in enumerate(every) for first in range(0, len(ids), batch_size)
    )
    for order, first, model, w, method in islice(starts, shard[0] - 1, None, shard[1]):
        places = tuple(range(first, min(first + batch_size, len(ids))))
        yield BatchTask(model, method.label, w, places, tuple(ids[k] for k in places), order + first)


def base_row(plan: Plan, named: Named, task: BatchTask, place: int, id: str) -> dict[str, Any]:
    """What every row says of its cell, whatever came of it; the figures are null."""
    empty = ("key", "seed", "nfe", "backward", "seconds", "peak_memory_mb", "stores", "stored_ratio", "threads")
    return dict.fromkeys((*empty, "nonfinite_at", "started", "finished", "error", "traceback")) | {
        "order": task.order + place - task.items[0],
        "item": id,
        "dataset": plan.dataset,
        "model": task.model,
        "method": named.label,
        "method_name": named.name,
        "settings": dict(named.settings),
        "baseline": named.baseline,
        "guidance": task.guidance,
        "inversion_guidance": named.inversion_guidance,
        "steps": plan.steps,
        "edit": plan.edit,
        "fitted": False,
        "exact_by_construction": False,
        "values": {},
        "artefacts": [],
        "attempts": task.attempt,
        "deaths": task.deaths,
        "batch_size": len(task.ids),
    }


def estimated_nfe(plan: Plan, items: int) -> int:
    """Network evaluations of the inversions, by the methods' own formulas, without early stopping."""
    from unsample.methods import Walked, get_method

    total = 0
    for w in plan.guidance:
        for m in methods_of(plan):
            pair, sampling = (1 if scale in (0, 1) else 2 for scale in (m.inversion_guidance, w))
            walked = Walked(plan.steps, pair, sampling, tuple(range(1, 1000, max(1000 // plan.steps, 1))))
            if not m.baseline:
                total += get_method(m.name, dict(m.settings)).passes(walked)
    return total * items * len(plan.models)
