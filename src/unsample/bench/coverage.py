"""How far a run is: of each method with each model at each guidance, how many cells were planned, and what of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from unsample.bench.ledger import FINISHED, NOT_APPLICABLE, Apart, Part, RunData, Standing, cell_name
from unsample.bench.plan import Plan, make_plan, methods_of
from unsample.errors import BadOption

MOST = 12  # parts that a sentence names


@dataclass(frozen=True)
class Counts:
    """Cells, counted."""

    planned: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)  # of those that ended
    left_out: int = 0  # whose item cannot be used

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
        return ", ".join(ends + [f"{n:,} {name.replace('_', ' ')}" for name, n in counted.items() if n])

    def plain(self) -> dict[str, int]:
        """As JSON takes it."""
        names = ("planned", "finished", "failed", "left_out", "missing")
        return {name: getattr(self, name) for name in names} | {"diverged": self.statuses.get("diverged", 0)}


def total(counts: Iterable[Counts]) -> Counts:
    """All of them together."""
    every, statuses = list(counts), Counter[str]()
    for one in every:
        statuses.update(one.statuses)
    return Counts(sum(c.planned for c in every), dict(statuses), sum(c.left_out for c in every))


@dataclass(frozen=True)
class Covered:
    """One method with one model at one guidance."""

    model: str
    method: str  # label
    guidance: float
    baseline: bool
    counts: Counts
    apart: Apart | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        whose = {"model": self.model, "method": self.method, "guidance": self.guidance, "baseline": self.baseline}
        why = {"kind": self.apart.kind, "reason": self.apart.reason} if self.apart else {"kind": None, "reason": None}
        return whose | self.counts.plain() | why


def coverage(run: RunData) -> list[Covered]:
    """Every part of a run's plan, in the order of the plan; of an earlier version's run, which noted no items, none."""
    try:
        plan = make_plan(run.plan.get("plan", run.plan))
    except (BadOption, TypeError):  # of a newer version, or changed by hand: its rows are shown all the same
        return []
    statuses = {cell_name((r["model"], r["method"], r["guidance"]), r["item"]): str(r["status"]) for r in run.rows}
    return covered(plan, Standing(statuses, dict(run.broken), run.items, run.apart))


def covered(plan: Plan, standing: Standing) -> list[Covered]:
    """Every part of a plan. What is not applicable has no planned cells."""
    if not standing.items:
        return []
    reasons = {a.part: a for a in standing.apart}
    left_out = [item for item in standing.items if item in standing.broken]
    usable = [item for item in standing.items if item not in standing.broken]
    found = []
    for model, w, named in product(plan.models, plan.guidance, methods_of(plan)):
        part: Part = (model, named.label, w)
        apart, counts = reasons.get(part), Counts()
        if apart is None or apart.kind != NOT_APPLICABLE:
            ends = (standing.statuses.get(cell_name(part, item)) for item in usable)
            counts = Counts(len(standing.items), Counter(e for e in ends if e is not None), len(left_out))
            apart = apart if counts.missing else None  # another shard went on
        found.append(Covered(*part, named.baseline, counts, apart))
    return found


def listed(parts: Sequence[Covered]) -> str:
    """What is missing where: `null_text with scenes-sd at guidance 3: 40 of 60`."""
    lacking = [
        f"{p.method} with {p.model} at guidance {p.guidance:g}: {p.counts.missing:,} of {p.counts.planned:,}"
        for p in parts
        if p.counts.missing
    ]
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
