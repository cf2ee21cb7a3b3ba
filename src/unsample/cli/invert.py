"""`unsample invert`: pictures to saved inversions, each with its reconstruction beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unsample.cli import checks, options, outside, places, resume, talk
from unsample.cli.checks import Walk
from unsample.cli.jobs import InvertJob, check_sizes, from_metadata, plan
from unsample.cli.options import Placement, examples
from unsample.cli.resume import Found
from unsample.preflight import rules
from unsample.preflight.known import known_model

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.cli.session import Figures
    from unsample.errors import LostAt
    from unsample.media.pictures import Fit
    from unsample.models.base import Model
    from unsample.verbs.results import Inversion


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    commands = (
        "unsample invert scene.png --prompt 'a red circle' -o out",
        "unsample invert '*.png' --method fixed_point --set num_iters=5 --json",
    )
    app.command("invert", epilog=examples(*commands))(invert)


def invert(
    images: options.Pictures,
    model: options.ModelName = None,
    device: options.Device = None,
    dtype: options.Dtype = "float32",
    offload: options.Offload = "none",
    vae_tiling: options.VaeTiling = False,
    prompt: options.Prompt = None,
    negative_prompt: options.NegativePrompt = None,
    class_labels: options.ClassLabels = None,
    negative_class_labels: options.NegativeClassLabels = None,
    method: options.MethodName = "ddim",
    set: options.Settings = None,
    steps: options.Steps = 50,
    guidance_scale: options.Guidance = None,
    sampling_guidance_scale: options.SamplingGuidance = None,
    guidance_schedule: options.GuidanceSchedule = "constant",
    strength: options.Strength = None,
    seed: options.Seed = 0,
    fit: options.Fit = "aspect",
    clip: options.Clip = "off",
    trajectory: options.Trajectory = None,
    output: options.Folder = "out",
    batch_size: options.BatchSize = 8,
    force: options.Force = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Recover the noise from which a model makes these pictures.

    For each picture it writes DIR/STEM.safetensors, the inversion, and
    DIR/STEM.png, the picture that the model makes of it again. Pictures with
    equal names get -2, -3 and so on. What this very command wrote before it was
    stopped is skipped.
    """
    asked: dict[str, Any] = {
        "steps": steps,
        "guidance_scale": guidance_scale,
        "sampling_guidance_scale": sampling_guidance_scale,
        "guidance_schedule": guidance_schedule,
    }
    asked |= {"strength": strength, "seed": seed, "fit": fit, "clip": clip}
    walk = checks.checked_walk(method, set, asked)
    where = checks.place(Placement(device, dtype, offload, vae_tiling))
    checks.at_least("--batch-size", batch_size)
    prompts = (rules.check_text(prompt), rules.check_text(negative_prompt, "negative_prompt"))
    scales = walk.guidance_scale, walk.sampling_guidance_scale
    named = None if model is None else known_model(model)
    if named is not None:
        named.check(steps, prompt, scales, negative_class_labels is not None)
    images = places.expanded(images)
    labels = checks.labels(class_labels, negative_class_labels, len(images))
    walk = replace(walk, labels=labels)
    jobs = plan(places.open_pictures(images), named, prompts, Path(output))
    talk.notes(from_metadata(jobs, model is None, prompt is None))
    for job in jobs:
        job.model.check(steps, prompt, scales, negative_class_labels is not None)
        job.model.check_labels(labels.classes, labels.negative)
        job.model.check_method(walk.method, job.prompt)
    check_sizes(jobs, fit)
    recorded = places.open_trajectory(trajectory, walk.method, len(jobs))
    outside.check(outside.of_jobs(jobs, fit), force)
    inputs = [*images, *([trajectory] if trajectory else [])]
    found = _found(jobs, walk, overwrite or recorded is not None, inputs)
    places.check_outputs(_files(jobs, found.whole | found.half), overwrite, inputs)
    done = list(_all(jobs, found, walk, where, batch_size, recorded))
    return _report(done, walk, Path(output), json)


def _files(jobs: Sequence[InvertJob], but: frozenset[int] = frozenset()) -> list[Path]:
    return [file for job in jobs if job.index not in but for file in (job.inversion, job.picture)]


def _found(jobs: Sequence[InvertJob], walk: Walk, anew: bool, images: Sequence[str]) -> Found:
    """What is done already; nothing is looked for where all is made anew (a trajectory is not recorded)."""
    if anew:
        return Found()
    places.check_free(_files(jobs), True, images)
    return resume.find(jobs, walk)


@dataclass(frozen=True)
class Done:
    """What came of a job."""

    job: InvertJob
    model_id: str
    row: dict[str, Any]


def _all(
    jobs: Sequence[InvertJob], found: Found, walk: Walk, where: Placement, batch_size: int, trajectory: Tensor | None
) -> Iterator[Done]:
    """Model by model, size by size, a batch at a time."""
    from unsample.cli import session

    for known in dict.fromkeys(job.model for job in jobs):
        model = session.load(known, where)
        own = [job for job in jobs if job.model == known]
        resume.check_model(model, own, found)
        seen: list[tuple[str, Figures]] = []
        for job in (job for job in own if job.index in found.whole):
            row, figures = resume.skipped(model, job)
            seen.append((job.source.path, figures))
            yield Done(job, model.id, row)
        for batch in _batches(model, [job for job in own if job.index not in found.whole], walk.fit, batch_size):
            for job, row, figures in _run(model, batch, walk, trajectory):
                seen.append((job.source.path, figures))
                yield Done(job, model.id, row)
        session.warn_out_of_domain(model, seen)


def _batches(model: Model, jobs: Sequence[InvertJob], fit: Fit, batch_size: int) -> Iterator[list[InvertJob]]:
    """Pictures of one size, as the model will see them, go together."""
    from unsample.media.pictures import fit_size

    pixels = model.picture_size[0] * model.picture_size[1]
    sizes: dict[tuple[int, int], list[InvertJob]] = {}
    for job in jobs:
        sizes.setdefault(fit_size(*job.source.size, pixels, model.multiple, fit), []).append(job)
    for group in sizes.values():
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def _run(
    model: Model, batch: Sequence[InvertJob], walk: Walk, trajectory: Tensor | None
) -> Iterator[tuple[InvertJob, dict[str, Any], Figures]]:
    """Invert and reconstruct one batch; write and report each picture."""
    from unsample.errors import Diverged, LostAt

    with talk.naming([job.source.path for job in batch]):
        try:
            inversion = inverted(model, batch, walk, trajectory)
        except Diverged as error:
            places = zip(batch, error.lost_at, error.nonfinite_at, strict=True)
            yield from (_lost(job, where, at=at) for job, where, at in places)
            return
        pictures = _pictures(model, inversion)
    for k, job in enumerate(batch):
        if pictures[k] is None:
            yield _lost(job, inversion.lost_at[k] or LostAt("decoder"), inversion[k], inversion.nonfinite_at[k])
        else:
            yield _kept(model, job, inversion[k], pictures[k])  # type: ignore[arg-type]


def inverted(model: Model, batch: Sequence[InvertJob], walk: Walk, trajectory: Tensor | None = None) -> Inversion:
    """The library's `invert` for pictures of one size."""
    from unsample.verbs import api

    def texts(values: list[str | None]) -> list[str] | None:
        return None if all(v is None for v in values) else [v or "" for v in values]

    return api.invert(
        model,
        [job.source.open() for job in batch],
        texts([job.prompt for job in batch]) if model.takes_prompt else None,
        method=walk.method,
        num_inference_steps=walk.steps,
        guidance_scale=walk.guidance_scale,
        sampling_guidance_scale=walk.sampling_guidance_scale,
        guidance_schedule=walk.guidance_schedule,
        strength=walk.strength,
        generator=walk.seed,
        negative_prompt=texts([job.negative_prompt for job in batch]),
        fit=walk.fit,
        clip=walk.clip,
        trajectory=trajectory,
        **walk.labels.taken([job.index for job in batch]),
    )


def _pictures(model: Model, inversion: Inversion) -> list[Tensor | None]:
    """The reconstruction (1, 3, H, W) of each picture, None for one that diverged; together where none did."""
    from unsample.errors import Diverged
    from unsample.verbs import api

    if "diverged" not in inversion.status:
        parts = [list(range(len(inversion)))]
    else:
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


def _kept(
    model: Model, job: InvertJob, inversion: Inversion, picture: Tensor
) -> tuple[InvertJob, dict[str, Any], Figures]:
    """Measure, write and say one picture."""
    from unsample.cli import record, session
    from unsample.media.pictures import write_png

    figures = session.measured(model, inversion, picture)
    image = session.as_pil(picture)
    notes = [n for n in inversion.meta["notes"] if n]
    about = record.settings("invert", inversion.meta, 0, input=job.source.path, size=image.size, notes=notes)
    inversion.save(job.inversion)
    write_png(image, job.picture, about)
    row = record.inverted(job.source.path, job.inversion, job.picture, inversion, figures, skipped=False)
    for text in notes:
        talk.note(f"{job.source.path}: {text}")
    cost = f"{inversion.nfe[0]} nfe, {inversion.seconds:.1f} s{skew_of(inversion)}"
    talk.say(f"{job.source.path}: inverted, {figures.spoken()}, {cost} -> {job.inversion}")
    return job, row, figures


def skew_of(inversion: Inversion) -> str:
    """For the line of a picture whose aspect ratio could not be kept; "" where it was."""
    from unsample.media.pictures import MAX_SKEW

    if inversion.source is None or inversion.meta["fit"] != "aspect":
        return ""
    (width, height), (seen_height, seen_width) = inversion.meta["source_sizes"][0], inversion.source.shape[1:3]
    before, after = width / height, seen_width / seen_height
    kept = max(before, after) <= min(before, after) * (1 + MAX_SKEW)
    return "" if kept else f", seen at {seen_width}x{seen_height}: aspect ratio {before:.3g} became {after:.3g}"


def _lost(
    job: InvertJob, where: LostAt | None, inversion: Inversion | None = None, at: Mapping[str, Any] | None = None
) -> tuple[InvertJob, dict[str, Any], Figures]:
    """A picture that diverged: said, nothing written."""
    from unsample.cli import record
    from unsample.cli.session import Figures

    talk.error(
        f"{job.source.path}: diverged at {where}; nothing was written for it; try more steps, guidance 1, another "
        "method or --dtype float32"
    )
    row = record.row(
        "reconstruction",
        input=job.source.path,
        nfe=inversion.nfe[0] if inversion else None,
        backward=inversion.backward[0] if inversion else None,
        seconds=inversion.seconds if inversion else None,
        status="diverged",
        nonfinite_at=at,
        lost_at=where,
        notes=list(job.source.notes),
        skipped=False,
    )
    return job, row, Figures()


def _report(done: Sequence[Done], walk: Walk, folder: Path, as_json: bool) -> int:
    from unsample.cli import record

    done = sorted(done, key=lambda d: d.job.index)
    rows = [d.row for d in done]
    lost = record.diverged(rows)
    skipped = sum(r["skipped"] for r in rows)
    kept = len(rows) - skipped - sum(r["status"] == "diverged" for r in rows)
    if skipped:
        talk.say(f"skipped {skipped} of {len(rows)}: done before by the same command (--overwrite makes them again)")
    if kept:
        talk.say(f"wrote {kept} inversion{'s' * (kept > 1)} and reconstruction{'s' * (kept > 1)} to {folder}/")
    if as_json:
        talk.document(record.document([d.model_id for d in done], walk.method.name, rows, skipped=skipped, **lost))
    return 5 if lost else 0
