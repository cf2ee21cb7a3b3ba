"""`unsample sample`: pictures from seeds, by deterministic DDIM or another method's own sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsample.cli import checks, options, outside, places, record, session, talk
from unsample.cli.flat import command
from unsample.cli.options import OUTPUT, EndOptions, LabelOptions, Placement, opt
from unsample.errors import Diverged
from unsample.media.files import png_files
from unsample.numbers.grid import check_steps
from unsample.preflight import rules
from unsample.preflight.known import DEFAULT_MODEL, known_model
from unsample.verbs import api
from unsample.wording import of

if TYPE_CHECKING:
    from unsample.models.base import Model
    from unsample.verbs.results import Images

SAMPLING = "Sampling"
MAX_IMAGES = 100_000  # their names are all made and looked up before the first is sampled


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        sample,
        "unsample sample --prompt 'a large red circle at the left' -o scene.png",
        "unsample sample --model scenes-ddpm --num-images 4 --seed 7 -o samples",
    )


@dataclass(frozen=True)
class Prompted:
    """What is sampled, and by whose sampler."""

    prompt: Annotated[str | None, opt(SAMPLING, "TEXT", "What the pictures shall show.", default="empty")] = None
    negative_prompt: Annotated[str | None, opt(SAMPLING, "TEXT", options.AWAY, default="empty")] = None
    method: Annotated[str, opt(SAMPLING, "NAME", "edict, bdia, belm, rex, rf_solver ...: whose sampler.")] = "ddim"
    set: Annotated[list[str] | None, opt(SAMPLING, "KEY=VALUE", options.SET_HELP, default="the method's own")] = None


@dataclass(frozen=True)
class Sampled:
    """How many pictures, and how."""

    num_images: Annotated[int, opt(SAMPLING, "N", "How many.")] = 1
    seed: Annotated[int, opt(SAMPLING, "N", "Of the first picture; the n-th has seed + n.")] = 0
    steps: Annotated[int, opt(SAMPLING, "N", options.STEPS_HELP, *options.STEPS)] = 50
    guidance_scale: Annotated[float, opt(SAMPLING, "W", "1 is plain conditional sampling.")] = 1.0
    guidance_schedule: Annotated[options.ScheduleName, opt(SAMPLING, "NAME", options.SCHEDULE_HELP)] = "constant"
    clip: Annotated[
        options.ClipName,
        opt(SAMPLING, "NAME", "off, or config: clamp the predicted picture as the model's config says."),
    ] = "off"


def sample(
    *,
    what: Prompted,
    labels: LabelOptions,
    how: Sampled,
    model: options.OwnModel = DEFAULT_MODEL,
    place: Placement,
    output: Annotated[
        str,
        opt(
            OUTPUT,
            "DIR_OR_PNG",
            "A PNG (several become STEM-2.png ...), or a folder for sample-SEED.png.",
            *options.OUT,
        ),
    ] = "out",
    keep_trajectory: Annotated[
        bool,
        opt(
            OUTPUT,
            None,
            "Write every latent of the run beside the picture, as STEM.trajectory.safetensors.",
            "--keep-trajectory",
        ),
    ] = False,
    batch_size: Annotated[int, opt(OUTPUT, "N", "Pictures that go through the model together.")] = 8,
    end: EndOptions,
) -> int:
    """Make pictures, each from its own seed, whatever the batch."""
    with of("steps"):
        check_steps(how.steps)
    checks.guidance("guidance_scale", how.guidance_scale)
    sampler = checks.configured_method(what.method, what.set)
    sampler.check_fresh()
    checks.at_least("--num-images", how.num_images, highest=MAX_IMAGES)
    checks.at_least("--batch-size", batch_size)
    rules.check_seed(how.seed, how.num_images)
    where = checks.place(place)
    prompts = rules.check_text(what.prompt), rules.check_text(what.negative_prompt, "negative_prompt")
    known = known_model(model)
    known.check(how.steps, what.prompt, [how.guidance_scale], labels.negative_class_labels is not None)
    classes = checks.both_labels(labels, how.num_images)
    known.check_labels(classes.classes, classes.negative)
    outside.check(outside.of_prompts(known, prompts), end.force)
    seeds = range(how.seed, how.seed + how.num_images)
    files = png_files(output, [f"sample-{s}" for s in seeds], "--output")
    beside = [places.trajectory_path(file) for file in files] if keep_trajectory else []
    places.check_outputs([*files, *beside], end.overwrite)
    loaded = session.load(known, where)
    asked: dict[str, Any] = {"prompt": what.prompt, "negative_prompt": what.negative_prompt, "method": sampler}
    asked |= {"clip": how.clip, "num_inference_steps": how.steps, "keep_trajectory": keep_trajectory}
    asked |= {"guidance_scale": how.guidance_scale, "guidance_schedule": how.guidance_schedule}
    jobs = list(zip(seeds, files, strict=True))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        rows += _run(loaded, batch, asked | classes.taken(range(start, start + len(batch))))
    return record.ended(end.json, [loaded.id] * len(rows), sampler.name, rows)


def _run(model: Model, batch: Sequence[tuple[int, Path]], asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One batch of seeds and files."""
    seeds = [seed for seed, _ in batch]
    with talk.naming([f"seed {seed}" for seed in seeds]):
        try:
            made = api.sample(model, generator=seeds, **asked)
        except Diverged as error:
            yield from (_lost(seed, error, k) for k, seed in enumerate(seeds))
            return
    for k, (seed, file) in enumerate(batch):
        yield _lost(seed, made, k) if made.status[k] == "diverged" else _kept(made, k, seed, file, asked["prompt"])


def _kept(made: Images, k: int, seed: int, file: Path, prompt: str | None) -> dict[str, Any]:
    """Write and say one picture."""
    from unsample.media.pictures import write_png

    cost, beside = record.cost(made, k), ""
    if made.trajectory is not None:
        places.write_trajectory(made.trajectory[:, k : k + 1], file)
        beside = f" and {places.trajectory_path(file).name}"
    write_png(session.as_pil(made.images[k : k + 1]), file, made.settings(k))
    talk.say(f"seed {seed}: sampled, {cost['nfe']} nfe, {cost['seconds']:.1f} s -> {file}{beside}")
    outside = record.outside_of(made.meta, k)
    return record.row("image", picture=file, **cost, seed=seed, prompt=prompt, outside=outside)


def _lost(seed: int, found: Images | Diverged, k: int) -> dict[str, Any]:
    where = found.lost_at[k]
    talk.error(f"seed {seed}: diverged at {where}; nothing was written for it; try more steps or guidance 1")
    return record.lost("image", found, k, seed=seed)
