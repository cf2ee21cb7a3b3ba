"""Which picture is inverted with which model, under which prompt, and where it goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unsample.cli import places
from unsample.cli.places import Source
from unsample.errors import BadInput
from unsample.numeric import is_text
from unsample.preflight import rules
from unsample.preflight.known import DEFAULT_MODEL, KnownModel, known_model, named_by_file

if TYPE_CHECKING:
    from unsample.media.pictures import Fit

SHOWN = 200  # letters of a prompt in one line


@dataclass(frozen=True)
class InvertJob:
    """One picture: with which model and prompt, and where it goes."""

    index: int
    source: Source
    model: KnownModel
    prompt: str | None
    negative_prompt: str | None
    inversion: Path
    picture: Path


def plan(
    sources: Sequence[Source], named: KnownModel | None, prompts: tuple[str | None, str | None], folder: Path
) -> list[InvertJob]:
    """A job for each picture; model and prompt come from its own metadata where they were not given."""
    jobs = []
    stems = places.free_stems([s.name for s in sources])
    for index, (source, stem) in enumerate(zip(sources, stems, strict=True)):
        model = named or own_model(source)
        prompt = prompts[0] if prompts[0] is not None else own_prompt(source, model)
        files = folder / f"{stem}.safetensors", folder / f"{stem}.png"
        jobs.append(InvertJob(index, source, model, prompt, prompts[1], *files))
    return jobs


def check_sizes(jobs: Sequence[InvertJob], fit: Fit) -> None:
    """Refuse pictures that would come to a size which their model does not know (a closed form knows one alone)."""
    from unsample.media.pictures import fit_size

    for job in jobs:
        own = job.model.only_size
        if own is not None:
            size = fit_size(*job.source.size, own[0] * own[1], 1, fit)
            rules.check_size(job.model.name, own, size, job.source.path, "{}x{}".format(*job.source.size))


def own_model(source: Source) -> KnownModel:
    """The model that a picture's metadata names, where it may be taken from there, else the default."""
    return named_by_file(source.metadata.get("model")) or known_model(DEFAULT_MODEL)


def own_prompt(source: Source, model: KnownModel) -> str | None:
    """The prompt in a picture's metadata, for a model that takes one."""
    prompt = source.metadata.get("prompt")
    if not isinstance(prompt, str) or not prompt or model.takes_prompt is False:
        return None
    if not is_text(prompt):
        raise BadInput(f"{source.path}: the prompt in its metadata is not valid text; give --prompt")
    return prompt


def from_metadata(jobs: Sequence[InvertJob], model: bool, prompt: bool) -> Iterator[tuple[str, str]]:
    """What was taken from the pictures' own metadata, as (file, what) to be said."""
    for job in jobs:
        if model and (name := job.source.metadata.get("model")) is not None:
            yield job.source.path, _model_said(job.model, name)
    for job in jobs:
        if prompt and job.prompt is not None:
            shown = job.prompt if len(job.prompt) <= SHOWN else f"{job.prompt[:SHOWN]}..."
            yield job.source.path, f"prompt {shown!r}, as its own metadata says"


def _model_said(model: KnownModel, name: object) -> str:
    if model.name == name:
        return f"model {name}, as its own metadata says"
    return (
        f"its own metadata name the model {str(name)[:SHOWN]!r}, which was not followed: only a bundled model, or a "
        f"hub id in the local cache, is taken from a picture; {model.name} is used, so give another with --model"
    )
