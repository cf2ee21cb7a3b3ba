"""`unsample reconstruct`: saved inversions to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unsample.cli import checks, options, places, talk
from unsample.cli.options import Placement, examples
from unsample.cli.places import Recorded
from unsample.preflight import rules
from unsample.preflight.known import KnownModel, known_model, playing_model

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.errors import LostAt
    from unsample.models.base import Model
    from unsample.verbs.results import Images, Inversion


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    commands = (
        "unsample reconstruct out/scene.safetensors -o again",
        "unsample reconstruct out/*.safetensors --use noise --guidance-scale 1 -o again",
    )
    app.command("reconstruct", epilog=examples(*commands))(reconstruct)


def reconstruct(
    inversions: options.Inversions,
    model: options.RecordedModel = None,
    allow_other_model: options.AllowOther = False,
    device: options.Device = None,
    dtype: options.Dtype = "float32",
    offload: options.Offload = "none",
    vae_tiling: options.VaeTiling = False,
    use: options.Use = "record",
    guidance_scale: options.RecordedGuidance = None,
    guidance_schedule: options.RecordedSchedule = None,
    output: options.Folder = "out",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Make the pictures of saved inversions again.

    For each inversion it writes DIR/STEM.png.
    """
    where = checks.place(Placement(device, dtype, offload, vae_tiling))
    if guidance_scale is not None:
        checks.guidance("--guidance-scale", guidance_scale)
    named = None if model is None else known_model(model)
    inversions = places.expanded(inversions)
    found = places.open_inversions(inversions)
    jobs = plan(found, named, Path(output), allow_other_model)
    places.check_outputs([f for job in jobs for f in job.pictures], overwrite, inversions)
    play = Play(where, use, guidance_scale, guidance_schedule, allow_other_model)
    done = list(_all(jobs, play))
    return _report(done, jobs, Path(output), json)


@dataclass(frozen=True)
class PlayJob:
    """One file: with which model, and where its pictures go."""

    index: int
    recorded: Recorded
    model: KnownModel
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class Play:
    """How to play back."""

    where: Placement
    use: str
    guidance_scale: float | None
    guidance_schedule: str | None
    allow_other_model: bool


def plan(found: Sequence[Recorded], named: KnownModel | None, folder: Path, allow_other: bool) -> list[PlayJob]:
    """A job for each file; most hold one picture."""
    stems = iter(places.free_stems([Path(r.path).stem for r in found for _ in range(r.count)]))
    jobs = []
    for index, recorded in enumerate(found):
        rules.recorded_method(recorded.meta["method"], recorded.path)
        model = playing_model(named, recorded.meta["model"]["id"], recorded.path, allow_other)
        jobs.append(
            PlayJob(index, recorded, model, tuple(folder / f"{next(stems)}.png" for _ in range(recorded.count)))
        )
    return jobs


def _all(jobs: Sequence[PlayJob], play: Play) -> Iterator[tuple[int, str, list[dict[str, Any]]]]:
    """Model by model; all of a model's inversions are compared with it before the first is played."""
    from unsample.cli import session

    groups = []
    for known in dict.fromkeys(job.model for job in jobs):
        model = session.load(known, play.where)
        own = [job for job in jobs if job.model == known]
        groups.append(
            (model, [(job, session.open_inversion(model, job.recorded.path, play.allow_other_model)) for job in own])
        )
    for model, pairs in groups:
        for job, inversion in pairs:
            yield job.index, model.id, list(_run(model, job, inversion, play))


def _run(model: Model, job: PlayJob, inversion: Inversion, play: Play) -> Iterator[dict[str, Any]]:
    from unsample.errors import Diverged
    from unsample.verbs import api

    with talk.naming([job.recorded.path] * len(inversion)):
        try:
            made = api.reconstruct(
                model,
                inversion,
                use=play.use,
                guidance_scale=play.guidance_scale,
                guidance_schedule=play.guidance_schedule,
                allow_other_model=play.allow_other_model,
            )
        except Diverged as error:
            yield from (_lost(job, *places) for places in zip(error.lost_at, error.nonfinite_at, strict=True))
            return
    for k, image in enumerate(made.images):
        if made.status[k] == "diverged":
            yield _lost(job, made.lost_at[k], made.nonfinite_at[k])
        else:
            yield _kept(model, job, k, inversion[k], made, image[None])


def _kept(model: Model, job: PlayJob, k: int, inversion: Inversion, made: Images, picture: Tensor) -> dict[str, Any]:
    """Measure, write and say one picture."""
    from unsample.cli import record, session
    from unsample.media.pictures import write_png

    figures = session.measured(model, inversion, picture)
    image = session.as_pil(picture)
    write_png(image, job.pictures[k], made.settings(k))
    seconds = made.seconds / len(made)
    cost = f"{made.nfe[k]} nfe, {seconds:.1f} s"
    talk.say(f"{job.recorded.path}: reconstructed, {figures.spoken()}, {cost} -> {job.pictures[k]}")
    return record.row(
        "reconstruction",
        input=job.recorded.path,
        inversion=job.recorded.path,
        picture=job.pictures[k],
        figures=figures,
        nfe=made.nfe[k],
        backward=made.backward[k],
        seconds=seconds,
        status=inversion.status[0],
        outside=record.outside_of(inversion.meta, 0),
        nonfinite_at=made.nonfinite_at[k],
        health=inversion.health[0],
    )


def _lost(job: PlayJob, where: LostAt | None, at: Mapping[str, Any] | None) -> dict[str, Any]:
    from unsample.cli import record

    talk.error(f"{job.recorded.path}: diverged at {where}; nothing was written for it; try guidance 1 or --use noise")
    path = job.recorded.path
    about: dict[str, Any] = {"input": path, "inversion": path, "nonfinite_at": at}
    return record.row("reconstruction", **about, status="diverged", lost_at=where)


def _report(
    done: Sequence[tuple[int, str, list[dict[str, Any]]]], jobs: Sequence[PlayJob], folder: Path, as_json: bool
) -> int:
    from unsample.cli import record

    done = sorted(done, key=lambda d: d[0])
    rows = [row for _, _, some in done for row in some]
    lost = record.diverged(rows)
    if kept := sum(r["status"] != "diverged" for r in rows):
        talk.say(f"wrote {kept} reconstruction{'s' * (kept > 1)} to {folder}/")
    if as_json:
        methods = list(dict.fromkeys(job.recorded.meta["method"]["name"] for job in jobs))
        models = [model for _, model, some in done for _ in some]
        talk.document(record.document(models, methods[0] if len(methods) == 1 else None, rows, **lost))
    return 5 if lost else 0
