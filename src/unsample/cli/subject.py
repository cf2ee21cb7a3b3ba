"""What `unsample edit` works on: a saved inversion, or a picture that is inverted first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unsample.cli import checks, places, talk
from unsample.cli.jobs import InvertJob, check_sizes, from_metadata, plan
from unsample.cli.options import WalkOptions
from unsample.cli.places import Recorded
from unsample.errors import BadOption
from unsample.methods import Method
from unsample.preflight import rules
from unsample.preflight.known import KnownModel, playing_model
from unsample.preflight.walk import Walk, recorded
from unsample.wording import argument


@dataclass(frozen=True)
class SubjectFiles:
    """Of `recorded` and `job`, with its walk, one is there."""

    path: str
    model: KnownModel
    method: Method
    recorded: Recorded | None = None
    job: InvertJob | None = None
    walk: Walk | None = None

    @property
    def prompts(self) -> list[str | None]:
        """What its pictures show."""
        return [self.job.prompt] if self.job else list(self.recorded.meta["prompt"]) if self.recorded else []


def fitted_to(walk: Walk, scales: Sequence[float | None]) -> Walk:
    """A walk by a method whose record holds under one guidance is fitted under that of the edit.

    Raises:
        BadOption: several scales for such a method.
    """
    if not walk.method.edits_as_fitted or tuple(scales) == (None,):
        return walk
    if len(scales) > 1:
        raise BadOption(f"{walk.method.name} fits its record under one guidance; give one --guidance-scale")
    return replace(walk, sampling_guidance_scale=scales[0])


def from_picture(
    path: str, named: KnownModel | None, walk: Walk, prompts: tuple[str | None, str | None]
) -> SubjectFiles:
    """A picture that is to be inverted; `prompts` are of what it shows, and negative."""
    asked: dict[str, Any] = {"steps": walk.steps, "prompt": prompts[0], "name": "source_prompt"}
    if named is not None:
        named.check(**asked)
    job = plan(places.open_pictures([path]), named, prompts, Path())[0]
    talk.notes(from_metadata([job], named is None, prompts[0] is None))
    job.model.check(**asked)
    job.model.check_method(walk.method, job.prompt, "source_prompt")
    rules.check_needs_trajectory(walk.method, False)
    check_sizes([job], walk.fit)
    return SubjectFiles(path, job.model, walk.method, job=job, walk=walk)


def from_inversion(
    path: str,
    named: KnownModel | None,
    given: WalkOptions,
    source_prompt: str | None,
    names: frozenset[str],
    allow_other_model: bool,
) -> SubjectFiles:
    """A saved inversion, when nothing that was given contradicts it; `names` are the options that were given."""
    meta = (saved := places.open_one_inversion(path)).meta
    found = recorded(meta)
    walk = checks.walk(given, given.method if "method" in names else found["method"])
    keys = {pair.partition("=")[0].strip().partition(".")[0] for pair in given.set or []}
    keys = set(walk.method.settings) if "preset" in keys else keys
    asked = {"prompt": source_prompt, "method": walk.method.name, **{n: getattr(walk, n) for n in COMPARED}}
    asked |= {"guidance_scale": walk.guidance_scale, "settings": {k: walk.method.settings[k] for k in keys}}
    found |= {"settings": {k: v for k, v in found["settings"].items() if k in keys}}
    for option, name in {**SAID, **{name: name for name in ("method", *COMPARED)}}.items():
        if option in names and asked[name] != found[name]:
            said = argument(option)
            raise BadOption(
                f"{said} {asked[name]!r} contradicts {path}, which was inverted with {found[name]!r}; "
                f"leave {said} out, or give the picture to invert it anew"
            )
    known = playing_model(named, meta["model"]["id"], path, allow_other_model)
    return SubjectFiles(path, known, rules.recorded_method(meta["method"], path), recorded=saved)


COMPARED = ("steps", "strength", "seed", "fit", "clip")
SAID = {"source_prompt": "prompt", "set": "settings", "inversion_guidance_scale": "guidance_scale"}  # option to record
