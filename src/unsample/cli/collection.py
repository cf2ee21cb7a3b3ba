"""Collections at the command line: when a verb is done to one, what goes with it, and what is said of it."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unsample.cli import checks, options, outside, talk
from unsample.cli.options import RUNNING, Placement, WalkOptions, opt
from unsample.cli.progress import Progress
from unsample.collections.jobs import METRICS
from unsample.collections.sources import KINDS, check_apart, is_collection, open_source
from unsample.errors import BadInput, BadOption
from unsample.preflight import rules

if TYPE_CHECKING:
    from unsample.cli.options import EditOptions, MaskOptions, PlayOptions
    from unsample.collections.jobs import Job
    from unsample.collections.opened import Collection
    from unsample.collections.run import Summary
    from unsample.datasets.item import Dataset, Item
    from unsample.metrics import Settings
    from unsample.preflight.known import KnownModel
    from unsample.preflight.walk import Walk

SHARD_PICTURES = 2**20
GO_ON = "the same command goes on"
BAD = ("diverged", "unreadable", "failed")


@dataclass(frozen=True)
class CollectionOptions:
    """How a collection is done."""

    sharded: Annotated[
        bool,
        opt(RUNNING, None, "Do files and patterns as a collection too: resumable, results in shards.", "--sharded"),
    ] = False
    metrics: Annotated[
        str | None,
        opt(
            RUNNING, "NAME[,NAME...]", "Of a collection, a column each; none: nothing is measured.", default="psnr,ssim"
        ),
    ] = None
    workers: Annotated[
        int | None, opt(RUNNING, "N", "Processes, or Ray actors, of a collection.", default="one, or one a GPU")
    ] = None
    threads: Annotated[int | None, opt(RUNNING, "N", "CPU threads of each worker.", default="cores / workers")] = None
    engine: options.Engine = "local"
    ray_address: options.RayAddress = None
    shard_size: Annotated[int | None, opt(RUNNING, "N", "Pictures of a shard at most.", default="1024")] = None

    def check(self, device: str | None) -> None:
        """Refuse what cannot be, before anything is opened.

        Raises:
            BadOption: with the option.
        """
        checks.workers(device, self.workers, self.threads, self.engine, self.ray_address)
        if self.shard_size is not None:
            checks.at_least("--shard-size", self.shard_size, highest=SHARD_PICTURES)

    def given(self) -> list[str]:
        """The options that differ from their defaults, as they are written."""
        return [f"--{f.name.replace('_', '-')}" for f in fields(self) if getattr(self, f.name) != f.default]


def wanted(given: Sequence[str], many: CollectionOptions) -> bool:
    """Whether this is to be done as a collection.

    Raises:
        BadOption: it is not, and an option is of collections alone. BadInput: there is nothing of that name.
    """
    if many.sharded or is_collection(given):
        return True
    if named := many.given():
        check_there(given)
        raise BadOption(f"{named[0]} is of a collection: {KINDS}; or give --sharded to do files as one")
    return False


def check_there(given: Sequence[str]) -> None:
    """Refuse the one name of what is not there, before an option is blamed that would fit if it were.

    Raises:
        BadInput: it is not.
    """
    if len(given) == 1 and not glob.has_magic(given[0]) and not os.path.lexists(given[0]):
        raise BadInput(f"{given[0]!r} is not there; check the path")


def metrics_of(many: CollectionOptions, default: Sequence[str] = METRICS) -> list[str]:
    """The metrics that are asked for."""
    if many.metrics is None:
        return list(default)
    from unsample.cli.metrics import names
    from unsample.collections.asking import resolved

    return [] if many.metrics == "none" else resolved(names(many.metrics))


@dataclass(frozen=True)
class Ending:
    """Where it goes and how it is told."""

    folder: Path
    force: bool
    overwrite: bool
    json: bool


def invert(
    given: Sequence[str], named: KnownModel | None, place: Placement, walk: Walk,
    prompts: tuple[str | None, str | None], many: CollectionOptions, size: int, end: Ending,
) -> int:  # fmt: skip
    """`unsample invert` of a collection."""
    from unsample.collections.asking import check, chosen_model, peeked, placed, walked
    from unsample.collections.jobs import Job

    many.check(place.device)
    check_apart(given, end.folder)
    data = open_source(given)
    first = peeked(data)
    known = chosen_model(named, first)
    if named is None:
        talk.say(f"model {known.name}: give another with --model")
    asked = walked(walk, prompts) | {"metrics": metrics_of(many), "dtype": place.dtype}
    job = Job("invert", known.name, asked, placed(asdict(place)))
    outside.check(check(job, walk, known, first), end.force)
    return run(job, data, place.device, many, size, end)


def saved(given: Sequence[str], many: CollectionOptions) -> Collection | None:
    """The collection of inversions that was given; None where files were.

    Raises:
        BadInput: a folder that is none. BadOption: files, and an option of collections.
    """
    from unsample.collections.sources import saved_inversions

    found = saved_inversions(given[0]) if len(given) == 1 else None
    if found is None and len(given) == 1 and os.path.isdir(given[0]):
        raise BadInput(
            f"folder {given[0]!r} is no collection that 'unsample invert' made; give one, or .safetensors files"
        )
    if found is None and (named := many.given()):
        raise BadOption(f"{named[0]} is of a collection that 'unsample invert' made; leave it out for files")
    return found


def reconstruct(
    source: Collection, named: KnownModel | None, place: Placement, play: PlayOptions, allow_other_model: bool,
    many: CollectionOptions, size: int, end: Ending,
) -> int:  # fmt: skip
    """`unsample reconstruct` of a collection of inversions."""
    from unsample.collections.asking import peeked, placed
    from unsample.collections.jobs import Job

    many.check(place.device)
    check_apart([str(source.folder)], end.folder)
    data = source.data()
    known = _playing(source, named, peeked(data), allow_other_model)
    asked = {**asdict(play), "allow_other_model": allow_other_model, "of": source.made_with()}
    asked |= {"metrics": metrics_of(many), "dtype": place.dtype}
    return run(Job("reconstruct", known.name, asked, placed(asdict(place))), data, place.device, many, size, end)


def _playing(
    source: Collection, named: KnownModel | None, first: Sequence[Item], allow_other_model: bool
) -> KnownModel:
    """The model that plays saved inversions, whose method is known here."""
    from unsample.preflight.known import playing_model

    meta = first[0].extra["inversion"].meta
    rules.recorded_method(meta["method"], str(source.folder))
    return playing_model(named, meta["model"]["id"], str(source.folder), allow_other_model)


@dataclass(frozen=True)
class EditOf:
    """What the edits of a collection shall be; `given` are the names of the options that were given."""

    to: EditOptions
    masks: MaskOptions
    source_prompt: str | None
    source_class_labels: str | None
    grid: bool
    given: frozenset[str]

    def asked(self) -> dict[str, Any]:
        """As a job has it.

        Raises:
            BadOption: what is of one picture, or cannot be.
        """
        from unsample.edits import Editor
        from unsample.experiment.setup import GIVEN, NO_MASK, PASTED, check_mask

        to, mask = self.to, self.masks.mask
        texts = [*(to.target_prompt or ()), *(to.prompt or ())]
        alone = {
            "--grid": self.grid,
            "--class-labels": to.class_labels is not None,
            "a second --target-prompt": len(set(texts)) > 1,
            "a second --guidance-scale": "," in (to.guidance_scale or ""),
            "--mask-feather": self.masks.mask_feather != 0,
            "--mask-dilate": self.masks.mask_dilate != 1,
        }
        for name, there in alone.items():
            if there:
                raise BadOption(f"{name} is of one picture, and this is a collection; leave it out")
        if mask is not None and mask != GIVEN and mask.partition(":")[0] not in ("auto", "attention", "thing"):
            raise BadOption(
                f"--mask {mask!r} is of one picture; the masks of a collection stand in its table and are taken by "
                f"--mask {GIVEN}"
            )
        if self.masks.paste and mask is None:
            raise BadOption("--paste keeps the source's own pixels outside a mask, and there is none; give --mask")
        editor = checks.configured_editor(to.editor, to.editor_set)
        own = editor.settings if isinstance(editor, Editor) else {}
        return {
            "editor": editor.name if isinstance(editor, Editor) else editor,
            "editor_settings": json.loads(json.dumps(own)),
            "mask": NO_MASK if mask is None else check_mask(mask + PASTED * self.masks.paste),
            "target_prompt": rules.check_text(texts[0], "target_prompt") if texts else None,
            "edit_guidance_scale": None if to.guidance_scale is None else _scale(to.guidance_scale),
        }


def _scale(text: str) -> float | None:
    try:
        return checks.guidance("guidance_scale", float(text))
    except ValueError as error:
        raise BadOption(f"--guidance-scale takes a number; got {text!r}") from error


def edit(
    given: str, model: str | None, place: Placement, wanted_edit: EditOf, options_of: WalkOptions,
    allow_other_model: bool, many: CollectionOptions, size: int, end: Ending,
) -> int:  # fmt: skip
    """`unsample edit` of a collection: of pictures, or of saved inversions."""
    from unsample.cli.subject import fitted_to
    from unsample.collections.asking import check, chosen_model, of_saved, peeked, placed, walked
    from unsample.collections.jobs import Job
    from unsample.collections.sources import saved_inversions
    from unsample.edits import get_editor
    from unsample.edits.choose import AUTO
    from unsample.preflight.known import known_model

    many.check(place.device)
    check_apart([given], end.folder)
    asked, to = wanted_edit.asked(), wanted_edit.to
    named = None if model is None else known_model(model)
    source = saved_inversions(given)
    labels = checks.labels(wanted_edit.source_class_labels, to.negative_class_labels, 1, "source_class_labels")
    walk = replace(checks.walk(options_of), guidance_schedule=to.guidance_schedule or "constant", labels=labels)
    walk = fitted_to(walk, [asked["edit_guidance_scale"]])
    prompts = (rules.check_text(wanted_edit.source_prompt, "source_prompt"), to.negative_prompt)
    data = open_source([given])
    first = peeked(data)
    if source is None:
        known = chosen_model(named, first)
        asked = walked(walk, prompts) | asked
        method = walk.method
    else:
        own = {f.name for f in fields(WalkOptions)} | {"inversion_guidance_scale", "source_prompt", "negative_prompt"}
        if named_option := sorted(wanted_edit.given & (own - {"guidance_scale"})):
            raise BadOption(
                f"--{named_option[0].replace('_', '-')} is of the inversion, and {given} holds inversions; leave it out"
            )
        known = _playing(source, named, first, allow_other_model)
        method = rules.recorded_method(first[0].extra["inversion"].meta["method"], given)
        asked = of_saved(source) | asked | {"of": source.made_with()}
    if asked["editor"] != AUTO:
        rules.check_edits(method, get_editor(asked["editor"], asked["editor_settings"]), asked["mask"] != "none")
    asked |= {"metrics": metrics_of(many, ()), "dtype": place.dtype}
    job = Job("edit", known.name, asked, placed(asdict(place)))
    if source is None:
        outside.check(check(job, walk, known, first), end.force)
    return run(job, data, place.device, many, size, end)


def measure(
    a: str, b: str | None, settings: Settings, metrics: Sequence[str], known: KnownModel | None,
    many: CollectionOptions, size: int, end: Ending,
) -> int:  # fmt: skip
    """`unsample measure` of two collections, or of one; `known` is the model whose autoencoder `aeroblade` asks."""
    from unsample.collections.asking import resolved
    from unsample.collections.jobs import Job
    from unsample.collections.pairing import paired

    many.check(None)
    check_apart([a, *([] if b is None else [b])], end.folder)
    first, second = open_source([a]), None if b is None else open_source([b])
    data = paired(first, second)
    if second is not None and len(data) < len(first):
        talk.note(f"{len(first) - len(data):,} of {a} have no partner in {b} and are left out")
    asked: dict[str, Any] = {"metrics": resolved(metrics), "weights_dir": settings.weights_dir}
    asked |= {"clip_model": settings.clip, "device": settings.device, "against": second is not None}
    if settings.key is not None:
        asked |= {"key": settings.key, "key_sha256": hashlib.sha256(Path(str(settings.key)).read_bytes()).hexdigest()}
    if known is None:
        return run(Job("measure", None, asked), data, None, many, size, end)
    return run(Job("measure", known.name, asked | {"dtype": "float32"}), data, settings.device, many, size, end)


def run(job: Job, data: Dataset, device: str | None, many: CollectionOptions, size: int, end: Ending) -> int:
    """Do a job, and say how it ended."""
    from unsample.collections.api import how_of
    from unsample.collections.run import check_folder, forget, run_collection
    from unsample.collections.shards import SHARD_SIZE

    engine = (many.workers, many.threads, many.engine, many.ray_address)
    command = ["unsample", *sys.argv[1:]]
    if end.overwrite:
        forget(end.folder)
    check_folder(job, end.folder)
    how = how_of(size, *engine, SHARD_SIZE if many.shard_size is None else many.shard_size, device, command)
    if many.workers is None and how.workers > 1:
        talk.say(f"{how.workers} workers, one on each of {how.device}")
    without = lacking(job)
    for metric, reason in without.items():
        talk.warn(f"{metric} will not be measured: {reason}")
    begin, progress = time.perf_counter(), _Progress("pictures")
    if not talk.hears_everything():
        from unsample.models.loading import quiet_libraries

        quiet_libraries()
    with progress:
        try:
            summary = run_collection(job, data, end.folder, how, progress.show)
        except BaseException:  # Ctrl-C, a full disk
            if (last := progress.last) is not None:
                talk.say(f"{last.done:,} of {last.items:,} pictures are done; {GO_ON}")
            raise
    for metric, count in summary.unmeasured.items():
        if metric not in without:
            talk.warn(f"{metric} has no value for {count:,} pictures: {summary.why[metric]}")
    return _ended(job, summary, time.perf_counter() - begin, end) or (3 if without else 0)


def lacking(job: Job) -> dict[str, str]:
    """The metrics of a job whose weights are not here, and why."""
    from unsample.metrics import METRICS as TABLE
    from unsample.metrics import Settings
    from unsample.metrics.facts import resolve
    from unsample.metrics.measuring import lacking_weights

    asked = job.asked
    settings = Settings(
        weights_dir=asked.get("weights_dir"), clip=asked.get("clip_model", Settings().clip), key=asked.get("key")
    )
    each = {name: lacking_weights(resolve(name, TABLE, settings)) for name in asked["metrics"]}
    return {name: reason for name, reason in each.items() if reason is not None}


class _Progress(Progress):
    """Of pictures; the last summary is kept."""

    last: Summary | None = None

    def show(self, summary: Summary) -> None:
        """After a batch."""
        self.last = summary
        self.at(summary.done, summary.items, summary.before, summary.statuses["failed"])


def _ended(job: Job, summary: Summary, seconds: float, end: Ending) -> int:
    statuses, now = dict(summary.statuses), sum(summary.statuses.values())
    bad = {*statuses, *summary.stood} & {*BAD}  # what the folder holds, whoever did it
    for name, reason in list(summary.reasons.items())[:3]:
        talk.error(f"{name}: {reason}")
    if summary.out_of_domain:
        talk.warn(
            f"{summary.out_of_domain:,} of {now:,} pictures are none that {job.model} knows; out_of_domain in the "
            "index says why"
        )
    told = (
        ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in statuses.items()) or "nothing was left to do"
    )
    rate = f" ({now / seconds:.2f} a second)" if now else ""
    stood = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in summary.stood.items() if name in BAD)
    before = f", {summary.before:,} done before{f' ({stood})' if stood else ''}" if summary.before else ""
    shards = f"{summary.shards} shard{'s' * (summary.shards != 1)} and " if job.keeps else ""
    talk.say(f"{summary.items:,} pictures{before}: {told}{rate}; {shards}index.parquet in {end.folder}/")
    if end.json:
        about: dict[str, object] = {
            "collection": str(end.folder),
            "verb": job.verb,
            "model": job.model,
            "pictures": summary.items,
        }
        about |= {"skipped": summary.before, "skipped_statuses": dict(summary.stood), "statuses": statuses}
        about |= {"shards": summary.shards, "seconds": seconds}
        talk.document(about | {"out_of_domain": summary.out_of_domain, "reasons": summary.reasons})
    return 5 if "diverged" in bad else 4 if "unreadable" in bad else 1 if bad else 0
