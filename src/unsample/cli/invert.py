"""`unsample invert`: pictures to saved inversions, each with its reconstruction beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unsample.cli import checks, collection, options, outside, places, record, resume, session, talk
from unsample.cli.collection import CollectionOptions
from unsample.cli.flat import command
from unsample.cli.jobs import InvertJob, check_sizes, from_metadata, plan
from unsample.cli.options import EndOptions, LabelOptions, Placement, PromptOptions, WalkOptions
from unsample.errors import BadOption, Diverged, LostAt, out_of_memory
from unsample.media.fitting import AUTO, batches, skew
from unsample.preflight.known import known_model
from unsample.preflight.walk import Walk
from unsample.verbs import api

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.verbs.fidelity import Fidelity
    from unsample.verbs.results import Inversion

Told = tuple[InvertJob, dict[str, Any], "Fidelity | None"]  # a picture's row, and its figures where it has some


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        invert,
        "unsample invert scene.png --prompt 'a red circle' -o out",
        "unsample invert '*.png' --method fixed_point --set num_iters=5 --json",
    )


def invert(
    images: options.Pictures,
    *,
    model: options.ModelName = None,
    place: Placement,
    prompts: PromptOptions,
    labels: LabelOptions,
    walk: WalkOptions,
    trajectory: options.Trajectory = None,
    first_step_radius: options.FirstStepRadius = False,
    output: options.Folder = "out",
    batch_size: options.BatchSize = "8",
    many: CollectionOptions,
    end: EndOptions,
) -> int:
    """Recover the noise from which a model makes these pictures.

    For each picture it writes DIR/STEM.safetensors, the inversion, and
    DIR/STEM.png, the picture that the model makes of it again. Pictures with
    equal names get -2, -3 and so on. What this very command wrote before it was
    stopped is skipped.

    A collection (a folder, a list, .parquet, .tar, a data set, or --sharded)
    goes into DIR as shards and index.parquet, by several workers, resumably.
    """
    checked = checks.walk(walk)
    where = checks.place(place)
    size = checks.batch_size(batch_size)
    collected = collection.wanted(images, many)
    texts = checks.prompts(prompts)
    nulled = labels.negative_class_labels is not None
    named = None if model is None else known_model(model)
    if named is not None:
        named.check(walk.steps, prompts.prompt, checked.scales, nulled)
    if collected:
        if trajectory is not None:
            raise BadOption("--trajectory is of one picture, and this is a collection; leave it out")
        checked = replace(checked, labels=checks.both_labels(labels, 1), first_step_radius=first_step_radius)
        ending = collection.Ending(Path(output), end.force, end.overwrite, end.json)
        return collection.invert(images, named, where, checked, texts, many, size, ending)
    images = places.expanded(images)
    checked = replace(checked, labels=checks.both_labels(labels, len(images)), first_step_radius=first_step_radius)
    jobs = plan(places.open_pictures(images), named, texts, Path(output))
    talk.notes(from_metadata(jobs, model is None, prompts.prompt is None))
    for job in jobs:
        job.model.check(walk.steps, prompts.prompt, checked.scales, nulled)
        job.model.check_labels(checked.labels.classes, checked.labels.negative)
        job.model.check_method(checked.method, job.prompt)
    check_sizes(jobs, walk.fit)
    recorded = places.open_trajectory(trajectory, checked.method, len(jobs))
    outside.check(outside.of_jobs(jobs, walk.fit), end.force)
    inputs = [*images, *([trajectory] if trajectory else [])]
    found = _found(jobs, checked, end.overwrite or recorded is not None, inputs)
    places.check_outputs(_files(jobs, found.whole | found.half), end.overwrite, inputs)
    run = InvertRun(checked, where, size, found, recorded)
    return _report(list(run.all(jobs)), checked.method.name, Path(output), end.json)


def _files(jobs: Sequence[InvertJob], but: frozenset[int] = frozenset()) -> list[Path]:
    return [file for job in jobs if job.index not in but for file in (job.inversion, job.picture)]


def _found(jobs: Sequence[InvertJob], walk: Walk, anew: bool, images: Sequence[str]) -> resume.FoundFiles:
    """What is done already; nothing is looked for where all is made anew (a trajectory is not recorded)."""
    if anew:
        return resume.FoundFiles()
    places.check_free(_files(jobs), True, images)
    return resume.find(jobs, walk)


@dataclass(frozen=True)
class InvertRun:
    """How all of it is done."""

    walk: Walk
    where: Placement
    batch_size: int  # 0: auto
    found: resume.FoundFiles
    trajectory: Tensor | None

    def all(self, jobs: Sequence[InvertJob]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Model by model, size by size, a batch at a time: the job's index, the model, the row."""
        for known in dict.fromkeys(job.model for job in jobs):
            model = session.load(known, self.where)
            own = [job for job in jobs if job.model == known]
            resume.check_model(model, own, self.found)
            seen: list[tuple[str, Fidelity]] = []
            for job, row, figures in self._of_model(model, own):
                seen += [(job.source.path, figures)] if figures else []
                yield job.index, model.id, row
            session.warn_out_of_domain(model, seen)

    def _of_model(self, model: Model, jobs: Sequence[InvertJob]) -> Iterator[Told]:
        yield from (resume.skipped(model, job) for job in jobs if job.index in self.found.whole)
        left = [job for job in jobs if job.index not in self.found.whole]
        pixels = model.picture_size[0] * model.picture_size[1]
        sizes = [job.source.size for job in left]
        for batch in batches(sizes, pixels, model.multiple, self.walk.fit, self.batch_size or AUTO):
            yield from self._batch(model, [left[k] for k in batch])

    def _batch(self, model: Model, batch: Sequence[InvertJob]) -> Iterator[Told]:
        """Invert and reconstruct one batch; write and report each picture."""
        with talk.naming([job.source.path for job in batch]):
            try:
                inversion: Inversion | None = inverted(model, batch, self.walk, self.trajectory)
            except Diverged as error:
                yield from (_lost(job, error, k) for k, job in enumerate(batch))
                return
            except Exception as error:
                if self.batch_size or len(batch) == 1 or not out_of_memory(error):
                    raise
                inversion = None
            pictures = [] if inversion is None else _pictures(model, inversion)
        if inversion is None:
            middle = (len(batch) + 1) // 2
            for half in (batch[:middle], batch[middle:]):
                yield from self._batch(model, half)
            return
        for k, (job, picture) in enumerate(zip(batch, pictures, strict=True)):
            yield _lost(job, inversion, k) if picture is None else _kept(model, job, inversion[k], picture)


def inverted(model: Model, batch: Sequence[InvertJob], walk: Walk, trajectory: Tensor | None = None) -> Inversion:
    """The library's `invert` for pictures of one size."""

    def texts(values: list[str | None]) -> list[str] | None:
        return None if all(v is None for v in values) else [v or "" for v in values]

    return api.invert(
        model,
        [job.source.open() for job in batch],
        texts([job.prompt for job in batch]) if model.takes_prompt else None,
        negative_prompt=texts([job.negative_prompt for job in batch]),
        trajectory=trajectory,
        **walk.arguments([job.index for job in batch]),
    )


def _pictures(model: Model, inversion: Inversion) -> list[Tensor | None]:
    """The reconstruction (1, 3, H, W) of each picture, None for one that diverged; together where none did."""
    parts = [list(range(len(inversion)))]
    if "diverged" in inversion.status:
        parts = [[k] for k, status in enumerate(inversion.status) if status != "diverged"]
    pictures: list[Tensor | None] = [None] * len(inversion)
    for part in parts:
        try:
            made = api.reconstruct(model, inversion[part[0] : part[-1] + 1])
        except Diverged:
            continue
        for k, image, status in zip(part, made.images, made.status, strict=True):
            pictures[k] = None if status == "diverged" else image[None].cpu()
    return pictures


def _kept(model: Model, job: InvertJob, inversion: Inversion, picture: Tensor) -> Told:
    """Measure, write and say one picture."""
    from unsample.media.pictures import write_png
    from unsample.verbs.settings import settings

    figures, image = session.measured(model, inversion, picture), session.as_pil(picture)
    notes = record.noted(inversion)
    inversion.save(job.inversion)
    about = settings("invert", inversion.meta, 0, input=job.source.path, size=image.size, notes=notes)
    write_png(image, job.picture, about)
    row = record.inverted(job.source.path, job.inversion, job.picture, inversion, figures, skipped=False)
    for text in notes:
        talk.note(f"{job.source.path}: {text}")
    grade = inversion.health[0]["grade"]
    cost = f"{f'{grade}, ' if grade else ''}{inversion.nfe[0]} nfe, {inversion.seconds:.1f} s{skew_of(inversion)}"
    talk.say(f"{job.source.path}: inverted, {figures.spoken()}, {cost} -> {job.inversion}")
    return job, row, figures


def skew_of(inversion: Inversion) -> str:
    """For the line of a picture whose aspect ratio could not be kept; "" where it was."""
    if inversion.source is None or inversion.meta["fit"] != "aspect":
        return ""
    height, width = inversion.source.shape[1:3]
    said = skew(inversion.meta["source_sizes"][0], (width, height))
    return f", {said}" if said else ""


def _lost(job: InvertJob, found: Inversion | Diverged, k: int) -> Told:
    """A picture that diverged: said, nothing written. One that was inverted, and lost after that, has its cost."""
    where = found.lost_at[k] or LostAt("decoder")
    talk.error(
        f"{job.source.path}: diverged at {where}; nothing was written for it; try more steps, guidance 1, another "
        "method or --dtype float32"
    )
    about = {} if isinstance(found, Diverged) else record.cost(found, k)
    about |= {"input": job.source.path, "notes": list(job.source.notes), "skipped": False, "lost_at": where}
    return job, record.lost("reconstruction", found, k, **about), None


def _report(done: list[tuple[int, str, dict[str, Any]]], method: str, folder: Path, as_json: bool) -> int:
    models, rows = [model for _, model, _ in sorted(done)], [row for *_, row in sorted(done)]
    skipped = sum(r["skipped"] for r in rows)
    kept = len(rows) - skipped - sum(r["status"] == "diverged" for r in rows)
    if skipped:
        talk.say(f"skipped {skipped} of {len(rows)}: done before by the same command (--overwrite makes them again)")
    if kept:
        talk.say(f"wrote {kept} inversion{'s' * (kept > 1)} and reconstruction{'s' * (kept > 1)} to {folder}/")
    return record.ended(as_json, models, method, rows, skipped=skipped)
