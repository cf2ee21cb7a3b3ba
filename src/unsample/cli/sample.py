"""`unsample sample`: pictures from seeds, by deterministic DDIM or another method's own sampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from unsample.cli import checks, options, outside, places, talk
from unsample.cli.options import OUTPUT, Placement, examples
from unsample.errors import Diverged
from unsample.media.files import png_files
from unsample.preflight import rules
from unsample.preflight.known import DEFAULT_MODEL, known_model

if TYPE_CHECKING:
    from unsample.errors import LostAt
    from unsample.methods import Method
    from unsample.models.base import Model
    from unsample.verbs.results import Images


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    commands = (
        "unsample sample --prompt 'a large red circle at the left' -o scene.png",
        "unsample sample --model scenes-ddpm --num-images 4 --seed 7 -o samples",
    )
    app.command("sample", epilog=examples(*commands))(sample)


SAMPLING = "Sampling"
MAX_IMAGES = 100_000  # their names are all made and looked up before the first is sampled


def sample(
    prompt: Annotated[
        str | None,
        Option(metavar="TEXT", help="What the pictures shall show.", rich_help_panel=SAMPLING, show_default="empty"),
    ] = None,
    negative_prompt: Annotated[
        str | None,
        Option(metavar="TEXT", help="What guidance leads away from.", rich_help_panel=SAMPLING, show_default="empty"),
    ] = None,
    method: Annotated[
        str,
        Option(metavar="NAME", help="ddim, edict, bdia, belm or dpm_solver: whose sampler.", rich_help_panel=SAMPLING),
    ] = "ddim",
    set: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the method; may be repeated. 'unsample methods NAME' lists them.",
            rich_help_panel=SAMPLING,
            show_default="the method's own",
        ),
    ] = None,
    class_labels: options.ClassLabels = None,
    negative_class_labels: options.NegativeClassLabels = None,
    num_images: Annotated[int, Option(metavar="N", help="How many.", rich_help_panel=SAMPLING)] = 1,
    seed: Annotated[
        int, Option(metavar="N", help="Of the first picture; the n-th has seed + n.", rich_help_panel=SAMPLING)
    ] = 0,
    steps: Annotated[
        int,
        Option(
            *options.STEPS, metavar="N", help="From 1 to what the model was trained with.", rich_help_panel=SAMPLING
        ),
    ] = 50,
    guidance_scale: Annotated[
        float, Option(metavar="W", help="1 is plain conditional sampling.", rich_help_panel=SAMPLING)
    ] = 1.0,
    guidance_schedule: Annotated[
        options.ScheduleName, Option(metavar="NAME", help=options.SCHEDULE_HELP, rich_help_panel=SAMPLING)
    ] = "constant",
    clip: Annotated[
        options.ClipName,
        Option(
            metavar="NAME",
            help="off, or config: clamp the predicted picture as the model's config says.",
            rich_help_panel=SAMPLING,
        ),
    ] = "off",
    model: options.OwnModel = DEFAULT_MODEL,
    device: options.Device = None,
    dtype: options.Dtype = "float32",
    offload: options.Offload = "none",
    vae_tiling: options.VaeTiling = False,
    output: Annotated[
        str,
        Option(
            "--output",
            "-o",
            metavar="DIR_OR_PNG",
            help="A PNG (several become STEM-2.png ...), or a folder for sample-SEED.png.",
            rich_help_panel=OUTPUT,
        ),
    ] = "out",
    keep_trajectory: Annotated[
        bool,
        Option(
            "--keep-trajectory",
            help="Write every latent of the run beside the picture, as STEM.trajectory.safetensors.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    batch_size: Annotated[
        int, Option(metavar="N", help="Pictures that go through the model together.", rich_help_panel=OUTPUT)
    ] = 8,
    force: options.Force = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Make pictures, each from its own seed, whatever the batch."""
    from unsample.numbers.grid import check_steps

    with checks.option("--steps"):
        check_steps(steps)
    checks.guidance("--guidance-scale", guidance_scale)
    sampler = checks.configured_method(method, set)
    sampler.check_fresh()
    checks.at_least("--num-images", num_images, highest=MAX_IMAGES)
    checks.at_least("--batch-size", batch_size)
    checks.seed(seed, num_images)
    where = checks.place(Placement(device, dtype, offload, vae_tiling))
    prompts = rules.check_text(prompt), rules.check_text(negative_prompt, "negative_prompt")
    known = known_model(model)
    known.check(steps, prompt, [guidance_scale], negative_class_labels is not None)
    labels = checks.labels(class_labels, negative_class_labels, num_images)
    known.check_labels(labels.classes, labels.negative)
    outside.check(outside.of_prompts(known, prompts), force)
    seeds = range(seed, seed + num_images)
    files = png_files(output, [f"sample-{s}" for s in seeds], "--output")
    jobs = [SampleJob(s, file) for s, file in zip(seeds, files, strict=True)]
    beside = [places.trajectory_path(job.file) for job in jobs] if keep_trajectory else []
    places.check_outputs([*(job.file for job in jobs), *beside], overwrite)

    from unsample.cli import session

    loaded = session.load(known, where)
    wanted = SampleSpec(*prompts, sampler, steps, guidance_scale, guidance_schedule, clip, keep_trajectory)
    starts = range(0, num_images, batch_size)
    batches = [(jobs[k : k + batch_size], labels.taken(range(k, min(k + batch_size, num_images)))) for k in starts]
    rows = [row for batch, classes in batches for row in _run(loaded, batch, wanted, classes)]
    return _report(loaded.id, sampler.name, rows, json)


@dataclass(frozen=True)
class SampleJob:
    """One picture."""

    seed: int
    file: Path


@dataclass(frozen=True)
class SampleSpec:
    """How to sample."""

    prompt: str | None
    negative_prompt: str | None
    method: Method
    steps: int
    guidance_scale: float
    guidance_schedule: str
    clip: str
    keep_trajectory: bool


def _run(
    model: Model, batch: Sequence[SampleJob], wanted: SampleSpec, classes: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    from unsample.cli import record
    from unsample.verbs import api

    with talk.naming([f"seed {job.seed}" for job in batch]):
        try:
            made = api.sample(
                model,
                wanted.prompt,
                method=wanted.method,
                num_inference_steps=wanted.steps,
                guidance_scale=wanted.guidance_scale,
                guidance_schedule=wanted.guidance_schedule,
                keep_trajectory=wanted.keep_trajectory,
                generator=[job.seed for job in batch],
                negative_prompt=wanted.negative_prompt,
                clip=wanted.clip,
                **classes,
            )
        except Diverged as error:
            yield from map(_lost, batch, error.lost_at, error.nonfinite_at)
            return
    for k, job in enumerate(batch):
        if made.status[k] == "diverged":
            yield _lost(job, made.lost_at[k], made.nonfinite_at[k])
            continue
        seconds = made.seconds / len(made)
        _write(made, k, job)
        beside = f" and {places.trajectory_path(job.file).name}" if made.trajectory is not None else ""
        talk.say(f"seed {job.seed}: sampled, {made.nfe[k]} nfe, {seconds:.1f} s -> {job.file}{beside}")
        figures: dict[str, Any] = {"nfe": made.nfe[k], "backward": made.backward[k], "seconds": seconds}
        figures["nonfinite_at"] = made.nonfinite_at[k]
        yield record.row(
            "image",
            picture=job.file,
            **figures,
            seed=job.seed,
            prompt=wanted.prompt,
            outside=record.outside_of(made.meta, k),
        )


def _write(made: Images, k: int, job: SampleJob) -> None:
    from unsample.cli import session
    from unsample.media.pictures import write_png

    if made.trajectory is not None:
        places.write_trajectory(made.trajectory[:, k : k + 1], job.file)
    write_png(session.as_pil(made.images[k : k + 1]), job.file, made.settings(k))


def _lost(job: SampleJob, where: LostAt | None, at: Mapping[str, Any] | None) -> dict[str, Any]:
    from unsample.cli import record

    talk.error(f"seed {job.seed}: diverged at {where}; nothing was written for it; try more steps or guidance 1")
    return record.row("image", status="diverged", nonfinite_at=at, lost_at=where, seed=job.seed)


def _report(model: str, method: str, rows: list[dict[str, Any]], as_json: bool) -> int:
    from unsample.cli import record

    lost = record.diverged(rows)
    if as_json:
        talk.document(record.document([model] * len(rows), method, rows, **lost))
    return 5 if lost else 0
