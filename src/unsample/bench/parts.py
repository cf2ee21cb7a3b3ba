"""The parts of a plan: a method with a model, its steps and guidance, on one data set, by one editor."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from unsample.bench.entries import Edited, Named, editors_of, methods_of
from unsample.bench.plan import Plan, generated, no_run
from unsample.errors import Incompatible
from unsample.experiment.setup import BASELINES, NO_MASK, PLAIN_EDIT
from unsample.preflight import rules
from unsample.preflight.known import KnownModel, known_model, known_of

if TYPE_CHECKING:
    from unsample.methods import Method

STOPPED, NOT_APPLICABLE = "stopped", "not applicable"


class Part(NamedTuple):
    """Which cells: all but the item."""

    dataset: str
    model: str
    method: str  # label
    steps: int
    guidance: float  # of sampling
    editor: str = PLAIN_EDIT  # label
    mask: str = NO_MASK
    edit_guidance: float | None = None  # None: that of sampling

    @property
    def edits(self) -> str:
        """By what it edits: `p2p, mask given, w 3`; nothing of what is as it is without editors."""
        return edits_of(self._asdict())

    @property
    def edited_at(self) -> float:
        """The guidance of the edit."""
        return self.guidance if self.edit_guidance is None else self.edit_guidance

    def cell(self, item: str) -> str:
        """What the cell of an item is called within its run."""
        edits = f"{self.edits}|" if self.edits else ""
        return f"{self.dataset}|{self.steps}|{self.model}|{self.method}|{edits}{self.guidance:g}|{item}"

    def told(self, several: Several) -> str:
        """In words: `null_text with scenes-ddpm at guidance 1`; what is one for the whole plan is left out."""
        more = f", edited by {self.edits}" if self.edits else ""
        more += (f", {self.steps} steps" if several.steps else "") + (
            f", on {self.dataset}" if several.datasets else ""
        )
        return f"{self.method} with {self.model} at guidance {self.guidance:g}{more}"


class Several(NamedTuple):
    """Of what a plan has more than one."""

    steps: bool
    datasets: bool

    @staticmethod
    def of(plan: Plan) -> Several:
        """Of a plan."""
        return Several(len({n for m in methods_of(plan) for n in m.steps}) > 1, len(plan.stages) > 1)


def edits_of(row: Mapping[str, Any]) -> str:
    """`Part.edits` of a row, which may be from before there were editors."""
    editor, mask, scale = row.get("editor", PLAIN_EDIT), row.get("mask", NO_MASK), row.get("edit_guidance")
    said = [editor] if (editor, mask) != (PLAIN_EDIT, NO_MASK) else []
    said += [f"mask {mask}"] if mask != NO_MASK else []
    return ", ".join(said + ([] if scale is None else [f"w {scale:g}"]))


def part_of(row: Mapping[str, object]) -> Part:
    """Whose cell a row is."""
    return Part(**{name: row[name] for name in Part._fields if name in row or name not in Part._field_defaults})  # type: ignore[arg-type]


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
    """A part of a plan, with its method and its editor as they are in its cells."""

    part: Part
    named: Named
    edited: Edited = Edited()
    again: bool = False  # it differs from another one by how it edits, and only that is measured

    def ids(self, items: Mapping[str, Sequence[str]]) -> Sequence[str]:
        """Its items, of those of every data set."""
        return items.get(self.part.dataset, ())[: self.named.items]

    def stages(self, plan: Plan) -> tuple[str, ...]:
        """What is measured of it."""
        return ("edit",) if self.again else plan.stages[self.part.dataset]

    def pictured(self, plan: Plan) -> tuple[str, ...]:
        """The stages of which pictures are written."""
        return tuple(s for s in self.stages(plan) if s != "recovered" and BASELINES.get(self.named.name, s) == s)


def parts_of(plan: Plan, unguided: Collection[str] = ()) -> list[Planned]:
    """Every part of a plan, in the order of its tables.

    Args:
        plan: the plan.
        unguided: its models that take no prompt, so that there is nothing to guide away from.
    """
    named, editors, found = methods_of(plan), editors_of(plan), []
    all_steps, scales = (dict.fromkeys(v for m in named for v in getattr(m, key)) for key in ("steps", "guidance"))
    asked = [m for m in named if not m.baseline]
    for (data, stages), model, n, w, m in product(plan.stages.items(), plan.models, all_steps, scales, named):
        here = m.tried(model, n, w) and any(other.tried(model, n, w) for other in asked)
        if not here or (m.baseline and BASELINES[m.name] not in stages):
            continue
        part, at = Part(data, model, m.label, n, w), m.at(w, model not in unguided)
        if m.baseline or "edit" not in stages:
            found.append(Planned(part, at))
            continue
        for k, (how, edited) in enumerate(_edits(editors, m, w)):
            found.append(Planned(part._replace(**how), at, edited, again=k > 0))
    return found


def others(part: Part, name: str, among: Iterable[tuple[Part, str]]) -> list[Part]:
    """The parts of another method that are otherwise as this one: by its label, else by its name.

    Args:
        part: this one.
        name: the other method, as the plan lists it, or the name of one whose settings differ from model to model.
        among: parts, each with its method's name.
    """
    like = [(other, own) for other, own in among if other._replace(method=part.method) == part]
    return [other for other, _ in like if other.method == name] or [other for other, own in like if own == name]


def _edits(editors: Sequence[Edited], named: Named, guidance: float) -> list[tuple[dict[str, Any], Edited]]:
    """How the cells of a method at one guidance of sampling edit: what `Part` says of it, and the editor."""
    found = []
    fit = [e for e in editors if not e.methods or {named.name, named.label} & {*e.methods}]
    for e in (e for e in fit if not e.sampling or guidance in e.sampling):
        scales = dict.fromkeys(None if w == guidance else w for w in e.guidance or (guidance,))
        found += [({"editor": e.label, "mask": m, "edit_guidance": w}, e) for m, w in product(e.masks, scales)]
    return found


class Examined(NamedTuple):
    """What is known of a plan before any work."""

    apart: list[Apart]  # what a model, or a data set, does not take
    unguided: frozenset[str]  # models that take no prompt


def examine(plan: Plan, loaded: Mapping[str, Any] | None = None) -> Examined:
    """What of a plan cannot be; a method or a model that is left with nothing is refused.

    Args:
        plan: the plan.
        loaded: models of it that are in memory, by name.

    Raises:
        Incompatible: with the reason. BadOption: more steps than a model was trained with.
        WeightsMissing: no such model.
    """
    from unsample.methods import get_method

    lent = loaded or {}
    known = {name: known_of(lent[name]) if name in lent else known_model(name) for name in plan.models}
    unguided = frozenset(name for name, model in known.items() if model.takes_prompt is False)
    lost: dict[Part, str] = {}
    every = parts_of(plan, unguided)
    for name, steps in dict.fromkeys((planned.part.model, planned.part.steps) for planned in every):
        known[name].check(steps)
    for planned in every:
        part, named = planned.part, planned.named
        method = get_method("ddim") if named.baseline else get_method(named.name, dict(named.settings))
        reason = known[part.model].why_not(method, (part.guidance, named.inversion_guidance))
        if reason is None and planned.stages(plan) == ("edit",) and part.edits:
            reason = _no_edit(method, part, planned.edited, known[part.model])
        if (method.needs_trajectory or named.name == "zero") and not generated(part.dataset):
            reason = no_run(named.label, repr(part.dataset))
        if reason is not None:
            lost[part] = reason
    for kind in ("method", "model", "editor"):
        for name in dict.fromkeys(getattr(p.part, kind) for p in every):
            parts = [p.part for p in every if getattr(p.part, kind) == name]
            if all(part in lost for part in parts):
                raise Incompatible(f"{name}: {lost[parts[0]]}")
    return Examined([Apart(part, NOT_APPLICABLE, reason) for part, reason in lost.items()], unguided)


def _no_edit(method: Method, part: Part, edited: Edited, model: KnownModel) -> str | None:
    """Why a method and an editor do not go together, with this model, under this guidance; None where they do."""
    from unsample.edits import get_editor
    from unsample.edits.choose import AUTO

    if edited.name == AUTO:
        return None
    editor = get_editor(edited.name, dict(edited.settings))
    try:
        rules.check_edits(method, editor, part.mask != NO_MASK)
    except Incompatible as error:
        return str(error)
    if editor.needs_source_prompt and model.takes_prompt is False:
        return f"editor {editor.name} works on prompts, and {model.name} takes none"
    if method.edits_as_fitted and part.edited_at != part.guidance:
        return f"{method.name} edits under the guidance that it was fitted with alone, {part.guidance:g}"
    return None
