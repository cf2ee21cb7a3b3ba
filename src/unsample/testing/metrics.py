"""What every metric does: on six scenes that were edited, of which all is known that can be."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache

import torch

from unsample.datasets import draw_scene, render
from unsample.metrics import METRICS, MetricFacts, Score, Settings, Subject, measure
from unsample.testing.problems import seeded
from unsample.testing.words import must
from unsample.watermarks import GaussianShading, TreeRing
from unsample.watermarks.keys import Key

COUNT = 6


@dataclass(frozen=True)
class MetricCase:
    """A metric by its name, the folder that is looked through for weights, and what it is tried on."""

    name: str
    weights_dir: str | None = None
    given: Subject | None = None  # else `subject`

    @property
    def facts(self) -> MetricFacts:
        """Its row."""
        return METRICS[self.name]

    @property
    def subject(self) -> Subject:
        """What it is tried on."""
        return subject() if self.given is None else self.given

    @property
    def settings(self) -> Settings:
        """How it is measured: a watermark with a key of its kind."""
        return Settings(weights_dir=self.weights_dir, key=keys().get(METRICS[self.name].mark))

    def measured(self) -> Score:
        """Of the whole subject."""
        return measure([self.name], self.subject, self.settings)[self.name]


@cache
def keys() -> dict[type[Key] | None, Key]:
    """A watermark's key of each kind, for the subject's noise."""
    shape = (4, 16, 16)
    return {TreeRing: TreeRing.drawn(shape, 4, seed=0), GaussianShading: GaussianShading.drawn(shape, seed=0)}


@cache
def subject() -> Subject:
    """All that can be known of six edited scenes."""
    scenes = [draw_scene(k).replace(colour="red", background="white") for k in range(COUNT)]
    targets = [s.replace(colour="blue") for s in scenes]
    generator = seeded(0)
    noise = torch.randn(COUNT, 4, 16, 16, generator=generator)
    truth, mask = render(targets).images, torch.zeros(COUNT, 1, 64, 64)
    mask[:, :, 20:40, 20:40] = 1
    return Subject(
        images=(truth + 0.02 * torch.randn(truth.shape, generator=generator)).clamp(0, 1),
        reference=render(scenes).images,
        truth=truth,
        ceiling=(truth + 0.01).clamp(0, 1),
        mask=mask,
        prompts=[s.caption for s in scenes],
        target_prompts=[s.caption for s in targets],
        targets=targets,
        changed=["colour"] * COUNT,
        autoencoded=truth,
        noise=noise * 0.9,
        true_noise=noise,
        start=noise,
        played=noise + 0.1,
        replayed=noise + 0.01,
        between=noise - 0.1,
    )


def it_answers_within_its_range_or_says_why_not(case: MetricCase) -> None:
    """A value a picture (one of a metric of sets), a number within `low` and `high`, or null with its reason."""
    facts, score, count = case.facts, case.measured(), len(case.subject)
    wanted = 1 if facts.kind == "set" else count
    found = (len(score.values), len(score.exact), len(score.reasons))
    must(found == (wanted,) * 3, f"of {count} pictures it has {found[0]} values, and not {wanted}")
    must((score.n, score.unit) == (count, facts.unit), f"it says that it is of {score.n} pictures, in {score.unit!r}")
    for value, exact, reason in zip(score.values, score.exact, score.reasons, strict=True):
        must((value is None) == (reason is not None or exact), f"{value} has the reason {reason!r}")
        if value is None:
            continue
        must(math.isfinite(value), f"{value} is not finite")
        slack = 1e-9  # rounding
        low, high = facts.low, facts.high
        within = (low is None or value >= low - slack) and (high is None or value <= high + slack)
        must(within, f"{value} is not in its range, {facts.range}")


def it_has_a_value_where_all_is_known(case: MetricCase) -> None:
    """Unless its weights are not here."""
    score = case.measured()
    lacking = [reason for value, reason in zip(score.values, score.reasons, strict=True) if value is None and reason]
    must(not lacking or case.facts.weights, f"it has no value where all is known: {lacking[:1]}")


def without_its_input_it_says_what_it_needs(case: MetricCase) -> None:
    """A subject of which nothing is known but a prompt."""
    score = measure([case.name], Subject(prompts=["a star"]))[case.name]
    must(score.values == [None], f"without its input it answers {score.values}")
    must("needs" in str(score.reasons[0]), f"without its input its reason is {score.reasons[0]!r}")


def a_picture_alone_gets_what_it_gets_in_a_batch(case: MetricCase) -> None:
    """To what float32 networks make of another batch; not for a metric of sets."""
    if case.facts.compute is None or case.facts.weights:
        return
    whole = case.subject
    one = {f.name: getattr(whole, f.name)[:1] for f in fields(whole) if f.name != "start_kind"}
    together = case.measured().values[0]
    alone = measure([case.name], replace(whole, **one), case.settings)[case.name].values[0]
    same = alone == together
    if alone is not None and together is not None:
        same = math.isclose(alone, together, rel_tol=1e-4, abs_tol=1e-7)
    must(same, f"a picture gets {alone} alone and {together} in a batch")


CHECKS = (
    it_answers_within_its_range_or_says_why_not,
    it_has_a_value_where_all_is_known,
    without_its_input_it_says_what_it_needs,
    a_picture_alone_gets_what_it_gets_in_a_batch,
)
