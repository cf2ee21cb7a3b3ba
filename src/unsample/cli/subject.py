"""What `unsample edit` works on: a saved inversion, or a picture that is inverted first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.cli import checks, places, talk
from unsample.cli.checks import Walk
from unsample.cli.jobs import InvertJob, check_sizes, from_metadata, plan
from unsample.cli.places import Recorded
from unsample.errors import BadOption
from unsample.preflight import rules
from unsample.preflight.known import KnownModel, playing_model

if TYPE_CHECKING:
    from unsample.methods import Method


@dataclass(frozen=True)
class SubjectFiles:
    """One of `recorded` and `job` is there."""

    path: str
    model: KnownModel
    method: Method
    recorded: Recorded | None = None
    job: InvertJob | None = None
    walk: Walk | None = None


@dataclass(frozen=True)
class MeasureInputs:
    """The options of an inversion, and which of them stood on the command line."""

    method: str
    settings: list[str]
    walk: Mapping[str, Any]  # the other fields of `Walk`
    source_prompt: str | None
    negative_prompt: str | None
    names: frozenset[str]
    allow_other_model: bool

    def checked(self, method: str | None = None) -> Walk:
        """The walk that they describe, with another method than the default."""
        return checks.checked_walk(method or self.method, self.settings, dict(self.walk))

    def fitted_to(self, scales: Sequence[float | None]) -> MeasureInputs:
        """Checked; a method whose record holds under one guidance is fitted under that of the edit.

        Raises:
            BadOption: several scales for such a method, or any option that cannot be.
        """
        method = self.checked().method
        if not method.edits_as_fitted or scales == (None,):
            return self
        if len(scales) > 1:
            raise BadOption(f"{method.name} fits its record under one guidance; give one --guidance-scale")
        return replace(self, walk={**self.walk, "sampling_guidance_scale": scales[0]})


def from_picture(path: str, named: KnownModel | None, given: MeasureInputs) -> SubjectFiles:
    """A picture that is to be inverted."""
    walk = given.checked()
    if named is not None:
        named.check(walk.steps, given.source_prompt, name="source_prompt")
    job = plan(places.open_pictures([path]), named, (given.source_prompt, given.negative_prompt), Path())[0]
    talk.notes(from_metadata([job], named is None, given.source_prompt is None))
    job.model.check(walk.steps, given.source_prompt, name="source_prompt")
    job.model.check_method(walk.method, job.prompt, "source_prompt")
    rules.check_needs_trajectory(walk.method, False)
    check_sizes([job], walk.fit)
    return SubjectFiles(path, job.model, walk.method, job=job, walk=walk)


def from_inversion(path: str, named: KnownModel | None, given: MeasureInputs) -> SubjectFiles:
    """A saved inversion, when nothing that was given contradicts it."""
    recorded = places.open_one_inversion(path)
    meta = recorded.meta
    walk = given.checked(given.method if "method" in given.names else meta["method"]["name"])
    keys = {pair.partition("=")[0].strip().partition(".")[0] for pair in given.settings}
    keys = set(walk.method.settings) if "preset" in keys else keys
    pairs = {
        "source_prompt": (given.source_prompt, recorded.text("prompt")),
        "method": (walk.method.name, meta["method"]["name"]),
        "set": (
            {k: walk.method.settings[k] for k in keys},
            {k: v for k, v in meta["method"]["settings"].items() if k in keys},
        ),
        "steps": (walk.steps, meta["num_inference_steps"]),
        "inversion_guidance_scale": (walk.guidance_scale, meta["guidance_scale"]),
        "strength": (walk.strength, meta.get("strength")),
        "seed": (walk.seed, (meta.get("seeds") or [None])[0]),
        "fit": (walk.fit, meta.get("fit")),
        "clip": (walk.clip, meta["grid"].get("meta", {}).get("clip")),
    }
    for name in pairs:
        asked, found = pairs[name]
        if name in given.names and asked != found:
            option = f"--{name.replace('_', '-')}"
            raise BadOption(
                f"{option} {asked!r} contradicts {path}, which was inverted with {found!r}; "
                f"leave {option} out, or give the picture to invert it anew"
            )
    known = playing_model(named, meta["model"]["id"], path, given.allow_other_model)
    return SubjectFiles(path, known, rules.recorded_method(meta["method"], path), recorded=recorded)
