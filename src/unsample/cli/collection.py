"""Collections at the command line: when a verb is done to one, what goes with it, and what is said of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from unsample.cli import checks, options, outside, talk
from unsample.cli.options import RUNNING, Placement, opt
from unsample.cli.progress import Progress
from unsample.collections.jobs import METRICS
from unsample.collections.sources import KINDS, is_collection, open_source
from unsample.errors import BadOption

if TYPE_CHECKING:
    from unsample.collections.jobs import Job
    from unsample.collections.run import Summary
    from unsample.datasets.item import Dataset
    from unsample.preflight.known import KnownModel
    from unsample.preflight.walk import Walk

GO_ON = "the same command goes on"


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

    def given(self) -> list[str]:
        """The options that differ from their defaults, as they are written."""
        return [f"--{f.name.replace('_', '-')}" for f in fields(self) if getattr(self, f.name) != f.default]


def wanted(given: Sequence[str], many: CollectionOptions) -> bool:
    """Whether this is to be done as a collection.

    Raises:
        BadOption: it is not, and an option is of collections alone.
    """
    if many.sharded or is_collection(given):
        return True
    if named := many.given():
        raise BadOption(f"{named[0]} is of a collection: {KINDS}; or give --sharded to do files as one")
    return False


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

    data = open_source(given)
    first = peeked(data)
    known = chosen_model(named, first)
    if named is None:
        talk.say(f"model {known.name}: give another with --model")
    asked = walked(walk, prompts) | {"metrics": metrics_of(many), "dtype": place.dtype}
    job = Job("invert", known.name, asked, placed(asdict(place)))
    outside.check(check(job, walk, known, first), end.force)
    return run(job, data, place.device, many, size, end)


def run(job: Job, data: Dataset, device: str | None, many: CollectionOptions, size: int, end: Ending) -> int:
    """Do a job, and say how it ended."""
    from unsample.collections.api import how_of
    from unsample.collections.run import check_folder, forget, run_collection
    from unsample.collections.shards import SHARD_SIZE

    checks.workers(device, many.workers, many.threads)
    engine = (many.workers, many.threads, many.engine, many.ray_address)
    command = ["unsample", *sys.argv[1:]]
    if end.overwrite:
        forget(end.folder)
    check_folder(job, end.folder)
    how = how_of(size, *engine, SHARD_SIZE if many.shard_size is None else many.shard_size, device, command)
    if many.workers is None and how.workers > 1:
        talk.say(f"{how.workers} workers, one on each of {how.device}")
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
    return _ended(job, summary, time.perf_counter() - begin, end)


class _Progress(Progress):
    """Of pictures; the last summary is kept."""

    last: Summary | None = None

    def show(self, summary: Summary) -> None:
        """After a batch."""
        self.last = summary
        self.at(summary.done, summary.items, summary.before, summary.statuses["failed"])


def _ended(job: Job, summary: Summary, seconds: float, end: Ending) -> int:
    statuses, now = dict(summary.statuses), sum(summary.statuses.values())
    bad = {name: count for name, count in statuses.items() if name not in ("ok", "not_converged")}
    for name, reason in list(summary.reasons.items())[:3]:
        talk.error(f"{name}: {reason}")
    if summary.out_of_domain:
        talk.warn(
            f"{summary.out_of_domain:,} of {now:,} pictures are none that {job.model} knows; the column out_of_domain of "
            "the index says why"
        )
    told = (
        ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in statuses.items()) or "nothing was left to do"
    )
    rate = f" ({now / seconds:.2f} a second)" if now else ""
    before = f", {summary.before:,} done before" if summary.before else ""
    shards = f"{summary.shards} shard{'s' * (summary.shards != 1)} and " if job.keeps else ""
    talk.say(f"{summary.items:,} pictures{before}: {told}{rate}; {shards}index.parquet in {end.folder}/")
    if end.json:
        about: dict[str, object] = {
            "collection": str(end.folder),
            "verb": job.verb,
            "model": job.model,
            "pictures": summary.items,
        }
        about |= {"skipped": summary.before, "statuses": statuses, "shards": summary.shards, "seconds": seconds}
        talk.document(about | {"out_of_domain": summary.out_of_domain, "reasons": summary.reasons})
    return 5 if "diverged" in bad else 4 if "unreadable" in bad else 1 if bad else 0
