"""The parts of a plan: a method with a model, at one count of steps and one guidance, on one data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from unsample.bench.entries import Named, methods_of
from unsample.bench.plan import Plan, generated, no_run
from unsample.errors import Incompatible
from unsample.experiment.setup import BASELINES
from unsample.preflight.known import known_model

STOPPED, NOT_APPLICABLE = "stopped", "not applicable"


class Part(NamedTuple):
    """Which cells: all but the item."""

    dataset: str
    model: str
    method: str  # label
    steps: int
    guidance: float  # of sampling

    def cell(self, item: str) -> str:
        """What the cell of an item is called within its run."""
        return f"{self.dataset}|{self.steps}|{self.model}|{self.method}|{self.guidance:g}|{item}"

    def told(self, several: Several) -> str:
        """In words: `null_text with scenes-ddpm at guidance 1`; what is one for the whole plan is left out."""
        more = (f", {self.steps} steps" if several.steps else "") + (f", on {self.dataset}" if several.datasets else "")
        return f"{self.method} with {self.model} at guidance {self.guidance:g}{more}"


class Several(NamedTuple):
    """Of what a plan has more than one."""

    steps: bool
    datasets: bool

    @staticmethod
    def of(plan: Plan) -> Several:
        """Of a plan."""
        return Several(len({n for m in methods_of(plan) for n in m.steps}) > 1, len(plan.stages) > 1)


def part_of(row: Mapping[str, object]) -> Part:
    """Whose cell a row is."""
    return Part(*(row[name] for name in Part._fields))  # type: ignore[arg-type]


def cell_id(row: Mapping[str, object]) -> str:
    """What the cell of a row is called."""
    return part_of(row).cell(str(row["item"]))


@dataclass(frozen=True)
class Apart:
    """Cells that are not run, and why."""

    part: Part
    kind: str  # stopped: its first cells failed, a resumed run tries it again | not applicable: it never is
    reason: str

    def told(self, several: Several) -> str:
        """In words: `null_text with scenes-ddpm at guidance 1: ...`."""
        return f"{self.part.told(several)}: {self.reason}"


class Planned(NamedTuple):
    """A part of a plan, and its method as it is in its cells."""

    part: Part
    named: Named

    def ids(self, items: Mapping[str, Sequence[str]]) -> Sequence[str]:
        """Its items, of those of every data set."""
        return items.get(self.part.dataset, ())[: self.named.items]

    def pictured(self, plan: Plan) -> tuple[str, ...]:
        """The stages of which pictures are written."""
        stages = plan.stages[self.part.dataset]
        return tuple(s for s in stages if s != "recovered" and BASELINES.get(self.named.name, s) == s)


def parts_of(plan: Plan, unguided: Collection[str] = ()) -> list[Planned]:
    """Every part of a plan, in the order of its tables.

    Args:
        plan: the plan.
        unguided: its models that take no prompt, so that there is nothing to guide away from.
    """
    named, found = methods_of(plan), []
    all_steps, scales = (dict.fromkeys(v for m in named for v in getattr(m, key)) for key in ("steps", "guidance"))
    taken = {(n, w) for m in named if not m.baseline for n in m.steps for w in m.guidance}
    for (data, stages), model, n, w, m in product(plan.stages.items(), plan.models, all_steps, scales, named):
        here = n in m.steps and w in m.guidance and (n, w) in taken
        if here and (not m.baseline or BASELINES[m.name] in stages):
            found.append(Planned(Part(data, model, m.label, n, w), m.at(w, model not in unguided)))
    return found


class Examined(NamedTuple):
    """What is known of a plan before any work."""

    apart: list[Apart]  # what a model, or a data set, does not take
    unguided: frozenset[str]  # models that take no prompt


def examine(plan: Plan) -> Examined:
    """What of a plan cannot be; a method or a model that is left with nothing is refused.

    Raises:
        Incompatible: with the reason. BadOption: more steps than a model was trained with.
        WeightsMissing: no such model.
    """
    from unsample.methods import get_method

    known = {name: known_model(name) for name in plan.models}
    for model, steps in product(known.values(), dict.fromkeys(n for m in methods_of(plan) for n in m.steps)):
        model.check(steps)
    unguided = frozenset(name for name, model in known.items() if model.takes_prompt is False)
    lost: dict[Part, str] = {}
    every = parts_of(plan, unguided)
    for part, named in every:
        method = get_method("ddim") if named.baseline else get_method(named.name, dict(named.settings))
        reason = known[part.model].why_not(method, (part.guidance, named.inversion_guidance))
        if (method.needs_trajectory or named.name == "zero") and not generated(part.dataset):
            reason = no_run(named.label, repr(part.dataset))
        if reason is not None:
            lost[part] = reason
    for kind in ("method", "model"):
        for name in dict.fromkeys(getattr(p.part, kind) for p in every):
            parts = [p.part for p in every if getattr(p.part, kind) == name]
            if all(part in lost for part in parts):
                raise Incompatible(f"{name}: {lost[parts[0]]}")
    return Examined([Apart(part, NOT_APPLICABLE, reason) for part, reason in lost.items()], unguided)
