"""What a study takes, worked out before it starts: cells, and evaluations of the network; nothing is loaded.

Inversions count by the methods' own formulas, without early stopping. Sampling the pictures counts once for all that
is done to them, as it is done once; what else a run finds remembered is not taken off, so a run takes at most as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.models.minis import is_mini
from unsample.models.variants import parted

if TYPE_CHECKING:
    from unsample.bench.parts import Planned
    from unsample.bench.plan import Plan
    from unsample.methods import Method, Walked
    from unsample.studies.base import Asked, Study

SECONDS = {"scenes-sd": 0.010, "scenes-flow": 0.010, "scenes-ddpm": 0.014, "scenes-mixture": 0.001}
"""An evaluation on one CPU core, roughly: to tell a minute of work from an hour, no more."""
MINI_SECONDS, OTHER_SECONDS = 0.002, 0.010


@dataclass(frozen=True)
class Work:
    """Cells; evaluations of the network, by model: a picture, and of all pictures."""

    cells: int = 0
    passes: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Work) -> Work:
        return Work(self.cells + other.cells, _sum(self.passes, other.passes), _sum(self.totals, other.totals))

    @property
    def total(self) -> int:
        """Evaluations in all."""
        return sum(self.totals.values())

    @property
    def seconds(self) -> float:
        """On one core of a CPU, roughly."""
        return sum(count * seconds_of(model) for model, count in self.totals.items())

    @property
    def told(self) -> str:
        """In words."""
        least, most = min(self.passes.values(), default=0), max(self.passes.values(), default=0)
        each = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        return f"{each} network evaluations a picture, {self.total:,} in all"


def pictures_of(plans: Iterable[Plan]) -> dict[str, int]:
    """How many pictures each model has in some plans: of plans with more and with fewer, the larger number."""
    from unsample.datasets import open_dataset

    found: dict[str, int] = {}
    for plan in plans:
        count = max(len(open_dataset(spec).ids) for spec in plan.stages)
        found |= {model: max(count, found.get(model, 0)) for model in plan.models}
    return found


def pictures_told(counts: Mapping[str, int]) -> str:
    """In words: `4 pictures each`, or `2 to 4 pictures each`."""
    least, most = min(counts.values(), default=0), max(counts.values(), default=0)
    if least != most:
        return f"{least:,} to {most:,} pictures each"
    return f"{most:,} picture{'s' if most != 1 else ''} each"


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in dict.fromkeys([*first, *second])}


def seconds_of(model: str) -> float:
    """Of one evaluation of a picture, on one core."""
    return MINI_SECONDS if is_mini(model) else SECONDS.get(parted(model)[0], OTHER_SECONDS)


def work_of(study: Study, asked: Asked, loaded: Mapping[str, Any] | None = None) -> Work:
    """Of a whole study.

    Args:
        study: which one.
        asked: models, pictures, steps.
        loaded: models in memory, by name.
    """
    from unsample.studies.running import plans_of

    found = Work()
    for plan in plans_of(study, asked).values():
        found += work_of_plan(plan, loaded)
    probed = study.probe_passes(asked)
    models = list(found.passes) or list(asked.models)
    more = dict.fromkeys(models, probed)
    return found + Work(0, more, {model: count * asked.num_samples for model, count in more.items()})


def probed_seconds(study: Study, asked: Asked) -> float:
    """What the probes of a study take on one core, roughly."""
    return study.probe_passes(asked) * asked.num_samples * sum(map(seconds_of, asked.models))


def work_of_plan(plan: Plan, loaded: Mapping[str, Any] | None = None) -> Work:
    """Of one plan, without probes."""
    from unsample.bench.cells import INVERTED
    from unsample.bench.parts import parts_of
    from unsample.bench.plan import generated
    from unsample.datasets import open_dataset

    items = {spec: list(open_dataset(spec).ids) for spec in plan.stages}
    unguided = {name for name in plan.models if _unguided(name, loaded)}
    passes, totals, cells = dict.fromkeys(plan.models, 0), dict.fromkeys(plan.models, 0), 0
    sampled: dict[tuple[object, ...], int] = {}
    inverted: set[tuple[object, ...]] = set()
    for planned in parts_of(plan, unguided):
        part, count = planned.part, len(planned.ids(items))
        cells += count
        pair = _pair(part.guidance, part.model in unguided)
        if generated(part.dataset):
            key = (part.dataset, part.model, part.steps, part.guidance)
            if key not in sampled:
                passes[part.model] += part.steps * pair
            totals[part.model] += part.steps * pair * max(0, count - sampled.get(key, 0))
            sampled[key] = max(count, sampled.get(key, 0))
        first = part[:INVERTED] not in inverted
        inverted.add(part[:INVERTED])
        own = _passes(plan, planned, part.model in unguided, first)
        passes[part.model] += own
        totals[part.model] += own * count
    return Work(cells, passes, totals)


def _unguided(name: str, loaded: Mapping[str, Any] | None) -> bool:
    from unsample.preflight.known import known_model

    if loaded and name in loaded:
        return not loaded[name].takes_prompt
    return known_model(name).takes_prompt is False


def _pair(guidance: float | None, unguided: bool = False) -> int:
    """Evaluations of one prediction."""
    return 1 if unguided or guidance in (None, 0, 1) else 2


def _passes(plan: Plan, planned: Planned, unguided: bool, first: bool) -> int:
    """Of one picture's cell, without the sampling of that picture; the inversion where it is the `first` of it."""
    from unsample.methods import Walked, get_method
    from unsample.preflight.rules import check_strength

    part, named = planned.part, planned.named
    stages, pair = planned.stages(plan), _pair(part.guidance, unguided)
    asks = _Asks(plan, planned)
    if named.baseline:
        sampled = {"zero": "recovered" in stages and asks.known, "fresh": not unguided}.get(named.name, False)
        playing = _pair(part.edited_at, unguided) if named.name == "fresh" else pair
        return part.steps * playing * (sampled + (named.name == "zero" and asks.halfway))
    method = get_method(named.name, dict(named.settings))
    share = named.strength if named.strength is not None else method.strength
    steps = part.steps if share is None else check_strength(share, part.steps)
    walked = Walked(
        steps, _pair(named.inversion_guidance, unguided), pair, tuple(range(1, 1000, max(1000 // steps, 1)))[:steps]
    )
    found = method.passes(walked) if first else 0
    if first:
        found += asks.plays(method, walked, whole=steps == part.steps)
    if "edit" in stages:
        scale = _pair(part.edited_at, unguided)
        found += _played(method, walked, scale) + (_played(method, walked, pair) if part.edits else 0)
    return found


def _played(method: Method, walked: Walked, pair: int) -> int:
    """Of playing a record back: of a walk that is run backwards as much as of the walk, else one prediction a step."""
    from dataclasses import replace

    return method.passes(replace(walked, pair=pair)) if method.reversible else walked.steps * pair


@dataclass(frozen=True)
class _Asks:
    """What a cell plays back, as `experiment.making` does."""

    plan: Plan
    planned: Planned

    @property
    def known(self) -> bool:
        """Whether the true noise is."""
        from unsample.bench.plan import generated

        return generated(self.planned.part.dataset)

    def _asks(self, stage: str, metric: str) -> bool:
        stages = self.planned.stages(self.plan)
        named = {name.partition("[")[0] for name in self.plan.metrics}
        return stage in stages or ("recovered" in stages and self.known and metric in named)

    @property
    def halfway(self) -> bool:
        """Whether something is sampled from between the true noise and the estimate."""
        named = {name.partition("[")[0] for name in self.plan.metrics}
        return "recovered" in self.planned.stages(self.plan) and self.known and "e_interp" in named

    def plays(self, method: Method, walked: Walked, whole: bool) -> int:
        """Evaluations of what is played back from noise and from the record."""
        noise, record = self._asks("noise", "e_recon"), self._asks("record", "e_recon_record")
        plain = walked.steps * walked.sampling_pair
        found = 0
        if whole:
            found += plain * ((noise or (method.stepwise and record)) + self.halfway)
        if record and not (method.stepwise and whole):
            found += _played(method, walked, walked.sampling_pair)
        return found
