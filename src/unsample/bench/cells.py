"""Cells and batches: the product of a plan, in an order that follows from the plan alone.

A batch is `batch_size` neighbouring items of one part of the plan. Which items share one follows from their place in
the data set, never from what is already done, so that a resumed run computes the same bits. Batches of the same items
come one after another (methods outside, guidances inside): what they share is then done once, by one worker. The table
has another order, that of the plan; a row knows its place there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any, Self

from unsample.bench.entries import Edited, Named, methods_of
from unsample.bench.layout import Items
from unsample.bench.parts import Part, parts_of
from unsample.bench.plan import Plan

INVERTED = len(Part._fields) - len(Part._field_defaults)  # the fields of a part that tell its inversion


class Divided:
    """A batch that can be taken apart."""

    ids: tuple[str, ...]  # of its items

    def only(self, keep: Sequence[int]) -> Self:
        """Some of its items, by their place in it."""
        raise NotImplementedError

    def alone(self) -> list[Self]:
        """Each of its items in a batch of its own."""
        return [self.only([k]) for k in range(len(self.ids))]

    def halves(self) -> list[Self]:
        """Two batches."""
        middle = (len(self.ids) + 1) // 2
        return [self.only(range(middle)), self.only(range(middle, len(self.ids)))]


@dataclass(frozen=True)
class BatchTask(Divided):
    """A batch to be done. Picklable."""

    part: Part
    named: Named
    edited: Edited
    stages: tuple[str, ...]  # that are measured
    items: tuple[int, ...]  # places in the data set
    ids: tuple[str, ...]
    order: int  # of the first cell, in the table
    group: tuple[object, ...] = ()  # of the same items; one worker does them best
    attempt: int = 1
    deaths: int = 0

    @property
    def model(self) -> str:
        """Its name."""
        return self.part.model

    @property
    def method(self) -> str:
        """Its label."""
        return self.part.method

    @property
    def sized(self) -> tuple[str, str]:
        """What memory depends on beside the pictures: method and editor."""
        return self.method, self.part.editor

    def cells(self) -> list[str]:
        """What its cells are called."""
        return [self.part.cell(id) for id in self.ids]

    def only(self, keep: Sequence[int]) -> Self:
        """See `Divided`."""
        items, ids = tuple(self.items[k] for k in keep), tuple(self.ids[k] for k in keep)
        return replace(self, items=items, ids=ids, order=self.order + items[0] - self.items[0])


def tasks_of(
    plan: Plan, items: Items, batch_size: int, shard: tuple[int, int] = (1, 1), unguided: Collection[str] = ()
) -> list[BatchTask]:
    """The batches of a plan in the order in which they are done.

    Args:
        plan: the plan.
        items: ids of each of its data sets.
        batch_size: items of a batch.
        shard: (i, n), the i-th of n; each has a share of every data set, model and number of steps, in one piece.
        unguided: models that take no prompt (`parts.parts_of`).
    """
    every, tasks = parts_of(plan, unguided), []
    ids = {planned.part: planned.ids(items) for planned in every}
    begins = dict(zip(ids, accumulate(map(len, ids.values()), initial=0), strict=False))
    methods = [m.label for m in methods_of(plan)]
    for where, block in groupby(every, key=lambda p: (p.part.dataset, p.part.model, p.part.steps)):
        parts = sorted(block, key=lambda p: methods.index(p.part.method))  # and in each the guidances, as they came
        most = max(len(ids[p.part]) for p in parts)
        starts = [(k, p) for k in range(0, most, batch_size) for p in parts if k < len(ids[p.part])]
        low, high = ((k * len(starts)) // shard[1] for k in (shard[0] - 1, shard[0]))
        for first, planned in starts[low:high]:
            part = planned.part
            places = tuple(range(first, min(first + batch_size, len(ids[part]))))
            own, order, group = tuple(ids[part][k] for k in places), begins[part] + first, (*where, first)
            tasks.append(
                BatchTask(part, planned.named, planned.edited, planned.stages(plan), places, own, order, group)
            )
    return tasks


def base_row(plan: Plan, task: BatchTask, place: int, id: str) -> dict[str, Any]:
    """What every row says of its cell, whatever came of it; the figures are null."""
    empty = (
        "key",
        "seed",
        "nfe",
        "backward",
        "edit_nfe",
        "edit_backward",
        "edited_at",
        "seconds",
        "peak_memory_mb",
        "stores",
        "stored_ratio",
        "threads",
    )
    return dict.fromkeys((*empty, "nonfinite_at", "started", "finished", "error", "traceback", "device")) | {
        "order": task.order + place - task.items[0],
        "item": id,
        **about_part(task.part, task.named, task.edited),
        "edit": "edit" in task.stages,
        "fitted": False,
        "exact_by_construction": False,
        "values": {},
        "artefacts": [],
        "attempts": task.attempt,
        "deaths": task.deaths,
        "batch_size": len(task.ids),
    }


def about_part(part: Part, named: Named, edited: Edited) -> dict[str, Any]:
    """The columns that tell a part of the plan, its method and its editor."""
    return {
        **part._asdict(),
        "method_name": named.name,
        "settings": dict(named.settings),
        "baseline": named.baseline,
        "inversion_guidance": named.inversion_guidance,
        "strength": named.strength,
        "editor_name": edited.name,
        "editor_settings": dict(edited.settings),
    }


def estimated_nfe(tasks: Sequence[BatchTask]) -> int:
    """Network evaluations of the inversions, by the methods' own formulas, without early stopping.

    No model is loaded for it: what depends on timesteps is worked out for evenly spaced ones.
    """
    from unsample.methods import Walked, get_method

    named = {task.part[:INVERTED]: task.named for task in tasks}  # other edits of it are of the same inversion
    cells = Counter(how for how, _ in {(task.part[:INVERTED], id) for task in tasks for id in task.ids})
    total = 0
    for how, m in ((how, m) for how, m in named.items() if not m.baseline):
        steps, guidance = int(str(how[-2])), how[-1]
        pair, sampling = (1 if scale in (0, 1) else 2 for scale in (m.inversion_guidance, guidance))
        walked = Walked(steps, pair, sampling, tuple(range(1, 1000, max(1000 // steps, 1))))
        total += get_method(m.name, dict(m.settings)).passes(walked) * cells[how]
    return total
