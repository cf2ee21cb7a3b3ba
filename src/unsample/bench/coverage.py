"""How far a run is: of each part of its plan, how many cells were planned, and what of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unsample.bench.layout import Standing
from unsample.bench.ledger import FINISHED, RunData
from unsample.bench.parts import NOT_APPLICABLE, Apart, Part, Several, parts_of
from unsample.bench.plan import Plan, make_plan
from unsample.errors import BadOption

MOST = 12  # parts that a sentence names


@dataclass(frozen=True)
class Counts:
    """Cells, counted."""

    planned: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)  # of those that ended
    left_out: int = 0  # whose item cannot be used
    sets_missing: int = 0  # parts whose metrics of whole sets are not measured yet

    @property
    def finished(self) -> int:
        """With a finite result."""
        return sum(self.statuses.get(status, 0) for status in FINISHED)

    @property
    def failed(self) -> int:
        """With an error in place of a result."""
        return self.statuses.get("failed", 0)

    @property
    def missing(self) -> int:
        """Not run yet, or stopped."""
        return self.planned - self.left_out - sum(self.statuses.values())

    def told(self) -> str:
        """`18 of 60 cells finished, 2 failed, 40 missing`."""
        ends = [f"{self.finished:,} of {self.planned:,} cell{'' if self.planned == 1 else 's'} finished"]
        counted = {s: self.statuses.get(s, 0) for s in ("not_converged", "diverged", "failed")}
        counted |= {"left_out": self.left_out, "missing": self.missing}
        counted |= {"whole_sets_not_measured": self.sets_missing}
        return ", ".join(ends + [f"{n:,} {name.replace('_', ' ')}" for name, n in counted.items() if n])

    def plain(self) -> dict[str, int]:
        """As JSON takes it."""
        names = ("planned", "finished", "failed", "left_out", "missing", "sets_missing")
        return {name: getattr(self, name) for name in names} | {"diverged": self.statuses.get("diverged", 0)}


def total(counts: Iterable[Counts]) -> Counts:
    """All of them together."""
    every, statuses = list(counts), Counter[str]()
    for one in every:
        statuses.update(one.statuses)
    planned, left_out, sets = (sum(getattr(c, k) for c in every) for k in ("planned", "left_out", "sets_missing"))
    return Counts(planned, dict(statuses), left_out, sets)


@dataclass(frozen=True)
class Covered:
    """A part of a plan."""

    part: Part
    where: str  # in words
    baseline: bool
    counts: Counts
    apart: Apart | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        whose = {**self.part._asdict(), "baseline": self.baseline}
        why = {"kind": self.apart.kind, "reason": self.apart.reason} if self.apart else {"kind": None, "reason": None}
        return whose | self.counts.plain() | why


def coverage(run: RunData) -> list[Covered]:
    """Every part of a run's plan, in the order of the plan; of an earlier version's run, which noted no items, none."""
    try:
        plan = make_plan(run.plan.get("plan", run.plan))
    except (BadOption, TypeError):  # of a newer version, or changed by hand: its rows are shown all the same
        return []
    return covered(plan, run.standing)


def covered(plan: Plan, standing: Standing) -> list[Covered]:
    """Every part of a plan. What is not applicable has no planned cells."""
    if not standing.items:
        return []
    reasons, sets, several = {a.part: a for a in standing.apart}, {*standing.sets}, Several.of(plan)
    whole_sets, found = bool(plan.set_metrics), []
    for planned in parts_of(plan):
        part, apart, counts = planned.part, reasons.get(planned.part), Counts()
        if apart is None or apart.kind != NOT_APPLICABLE:
            ids = planned.ids(standing.items)
            usable = [item for item in ids if (part.dataset, item) not in standing.broken]
            ends = (standing.statuses.get(part.cell(item)) for item in usable)
            lacks_set = whole_sets and bool(planned.pictured(plan)) and part.cell("") not in sets
            statuses = Counter(e for e in ends if e is not None)
            counts = Counts(len(ids), statuses, len(ids) - len(usable), int(lacks_set and bool(usable)))
            apart = apart if counts.missing else None  # another shard went on
        found.append(Covered(part, part.told(several), planned.named.baseline, counts, apart))
    return found


def listed(parts: Sequence[Covered]) -> str:
    """What is missing where: `null_text with scenes-sd at guidance 3: 40 of 60`."""
    lacking = [f"{p.where}: {p.counts.missing:,} of {p.counts.planned:,}" for p in parts if p.counts.missing]
    more = [f"and {len(lacking) - MOST:,} more"] if len(lacking) > MOST else []
    return "; ".join([*lacking[:MOST], *more])


def outside(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each model that was given items which it does not know (`unsample.models.domain`)."""
    items: dict[str, dict[str, bool]] = {}
    for row in rows:
        known = items.setdefault(str(row["model"]), {})
        known[row["item"]] = known.get(row["item"], False) or bool(row.get("out_of_domain"))
    return [
        f"{model} knows drawn scenes only, and {sum(found.values())} of {len(found)} items are none: what is measured "
        "of them says nothing of a method"
        for model, found in items.items()
        if any(found.values())
    ]
