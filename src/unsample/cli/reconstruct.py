"""`unsample reconstruct`: saved inversions to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsample.cli import checks, collection, options, places, record, session, talk
from unsample.cli.collection import CollectionOptions
from unsample.cli.flat import But, command
from unsample.cli.options import EndOptions, Placement, PlayOptions
from unsample.cli.places import Recorded
from unsample.errors import BadOption, Diverged
from unsample.preflight import rules
from unsample.preflight.known import KnownModel, known_model, playing_model
from unsample.verbs import api

if TYPE_CHECKING:
    from unsample.models.base import Model
    from unsample.verbs.results import Images, Inversion


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        reconstruct,
        "unsample reconstruct out/scene.safetensors -o again",
        "unsample reconstruct out/*.safetensors --use noise --guidance-scale 1 -o again",
    )


def reconstruct(
    inversions: options.Inversions,
    *,
    model: options.RecordedModel = None,
    allow_other_model: options.AllowOther = False,
    place: Placement,
    play: PlayOptions,
    output: options.Folder = "out",
    batch_size: options.CollectionBatch = "auto",
    many: Annotated[CollectionOptions, But(leave=("sharded",))],
    end: Annotated[EndOptions, But(leave=("force",))],
) -> int:
    """Make the pictures of saved inversions again.

    For each inversion it writes DIR/STEM.png. Of what 'unsample invert' made of
    a collection, DIR gets shards of pictures (.tar) and index.parquet.
    """
    where = checks.place(place)
    checks.guidance("guidance_scale", play.guidance_scale)
    size = checks.batch_size(batch_size)
    named = None if model is None else known_model(model)
    if (saved := collection.saved(inversions, many)) is not None:
        ending = collection.Ending(Path(output), False, end.overwrite, end.json)
        return collection.reconstruct(saved, named, where, play, allow_other_model, many, size, ending)
    if batch_size != "auto":
        raise BadOption("--batch-size is of a collection that 'unsample invert' made; leave it out for files")
    inversions = places.expanded(inversions)
    jobs = plan(places.open_inversions(inversions), named, Path(output), allow_other_model)
    places.check_outputs([f for job in jobs for f in job.pictures], end.overwrite, inversions)
    done = sorted(_all(jobs, where, play, allow_other_model), key=lambda told: told[0])
    models, rows = [model for _, model, _ in done], [row for *_, row in done]
    if kept := sum(r["status"] != "diverged" for r in rows):
        talk.say(f"wrote {kept} reconstruction{'s' * (kept > 1)} to {Path(output)}/")
    methods = list(dict.fromkeys(job.recorded.meta["method"]["name"] for job in jobs))
    return record.ended(end.json, models, methods[0] if len(methods) == 1 else None, rows)


@dataclass(frozen=True)
class PlayJob:
    """One file: with which model, and where its pictures go."""

    index: int
    recorded: Recorded
    model: KnownModel
    pictures: tuple[Path, ...]


def plan(found: Sequence[Recorded], named: KnownModel | None, folder: Path, allow_other: bool) -> list[PlayJob]:
    """A job for each file; most hold one picture."""
    stems = iter(places.free_stems([Path(r.path).stem for r in found for _ in range(r.count)]))
    jobs = []
    for index, recorded in enumerate(found):
        rules.recorded_method(recorded.meta["method"], recorded.path)
        model = playing_model(named, recorded.meta["model"]["id"], recorded.path, allow_other)
        pictures = tuple(folder / f"{next(stems)}.png" for _ in range(recorded.count))
        jobs.append(PlayJob(index, recorded, model, pictures))
    return jobs


def _all(
    jobs: Sequence[PlayJob], where: Placement, play: PlayOptions, allow: bool
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Model by model; all of a model's inversions are compared with it before the first is played."""
    groups = []
    for known in dict.fromkeys(job.model for job in jobs):
        model = session.load(known, where)
        own = [job for job in jobs if job.model == known]
        groups.append((model, [(job, session.open_inversion(model, job.recorded.path, allow)) for job in own]))
    for model, pairs in groups:
        for job, inversion in pairs:
            yield from ((job.index, model.id, row) for row in _run(model, job, inversion, play, allow))


def _run(model: Model, job: PlayJob, inversion: Inversion, play: PlayOptions, allow: bool) -> Iterator[dict[str, Any]]:
    with talk.naming([job.recorded.path] * len(inversion)):
        try:
            made = api.reconstruct(model, inversion, **asdict(play), allow_other_model=allow)
        except Diverged as error:
            yield from (_lost(job, error, k) for k in range(len(inversion)))
            return
    for k, status in enumerate(made.status):
        yield _lost(job, made, k) if status == "diverged" else _kept(model, job, k, inversion[k], made)


def _kept(model: Model, job: PlayJob, k: int, inversion: Inversion, made: Images) -> dict[str, Any]:
    """Measure, write and say one picture."""
    from unsample.media.pictures import write_png

    path, picture, cost = job.recorded.path, made.images[k : k + 1], record.cost(made, k)
    figures = session.measured(model, inversion, picture)
    write_png(session.as_pil(picture), job.pictures[k], made.settings(k))
    spent = f"{cost['nfe']} nfe, {cost['seconds']:.1f} s"
    talk.say(f"{path}: reconstructed, {figures.spoken()}, {spent} -> {job.pictures[k]}")
    files: dict[str, Any] = {"input": path, "inversion": path, "picture": job.pictures[k], "figures": figures}
    about: dict[str, Any] = {"status": inversion.status[0], "health": inversion.health[0]}
    return record.row("reconstruction", **files, **cost, **about, outside=record.outside_of(inversion.meta, 0))


def _lost(job: PlayJob, found: Images | Diverged, k: int) -> dict[str, Any]:
    path = job.recorded.path
    talk.error(f"{path}: diverged at {found.lost_at[k]}; nothing was written for it; try guidance 1 or --use noise")
    return record.lost("reconstruction", found, k, input=path, inversion=path)
