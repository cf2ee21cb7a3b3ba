"""Driving a collection: batches to workers, rows to the ledger, parts into shards. This process alone writes there."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsample.bench.driving import STOP_AFTER, Driver, Engine, engine_of, threads_each
from unsample.bench.ledger import FILE, Ledger
from unsample.bench.run import versions
from unsample.collections import shards
from unsample.collections.batch import Chunk
from unsample.collections.index import check_pyarrow, write_index
from unsample.collections.jobs import ABOUT, INDEX, Job
from unsample.collections.opened import Collection, ledger_of, read_about, write_about
from unsample.collections.work import CollectionPlace
from unsample.datasets.item import Dataset
from unsample.errors import BadInput
from unsample.media.files import check_writable_folder, numbered
from unsample.media.fitting import AUTO

DONE = ("ok", "not_converged", "diverged", "unreadable")  # ended; what failed is tried again by the next run
AT_ONCE = 512  # rows of the ledger that change together


@dataclass(frozen=True)
class How:
    """How a collection is done: nothing here changes a result, but for rounding by batch and threads."""

    engine: str = "local"
    workers: int = 1
    batch_size: int = 0  # 0: auto, which begins at 8 and halves when memory is short
    threads: int | None = None  # of each worker; None: the cores shared out
    device: str | None = None  # of several, joined by commas, each worker has one
    ray_address: str | None = None
    shard_size: int = shards.SHARD_SIZE  # pictures of a shard
    command: Sequence[str] = ()


@dataclass
class Summary:
    """How far a run is."""

    items: int = 0
    before: int = 0  # done by an earlier run
    stood: Counter[str] = field(default_factory=Counter)  # the statuses of those
    statuses: Counter[str] = field(default_factory=Counter)  # of what was done now
    reasons: dict[str, str] = field(default_factory=dict)  # of some that are not ok
    out_of_domain: int = 0  # of those that were done now
    unmeasured: Counter[str] = field(default_factory=Counter)  # of those that went well, by the metric
    why: dict[str, str] = field(default_factory=dict)  # the reason of the first
    shards: int = 0

    def stand(self, status: str) -> None:
        """One more that an earlier run did."""
        self.before += 1
        self.stood[status] += 1

    @property
    def done(self) -> int:
        """What has ended, then and now."""
        return self.before + sum(self.statuses.values())


def run_collection(
    job: Job, data: Dataset, folder: Path, how: How, observe: Callable[[Summary], None] = lambda summary: None,
    engine: Callable[[CollectionPlace], Engine] | None = None, loaded: Mapping[str, Any] | None = None,
) -> Summary:  # fmt: skip
    """Do what is not done yet.

    Args:
        job: what is asked.
        data: the items.
        folder: of the results; made when missing, and gone on with when it holds those of the same job.
        how: engine, workers, batch size.
        observe: called after every batch.
        engine: in place of the one that `how` names.
        loaded: the model, by its name, where it is in memory; it is then worked with in this process.

    Raises:
        BadInput: the folder holds the results of another job, another process writes it, or the disk is full; what was
            committed stays, and the same call goes on.
        WeightsMissing: the model is not here and cannot be fetched.
    """
    check_pyarrow()
    check_folder(job, folder)
    check_writable_folder(folder)
    with ledger_of(folder) as ledger:
        if read_about(folder) is None:
            write_about(folder, _about(job, data, how))
        _tidy(folder, ledger)
        summary, waiting = _left(data, ledger, how)
        try:
            driver = _Driver(job, folder, ledger, how, summary, observe, waiting)
            if waiting:
                place = CollectionPlace(job, folder, how.device, threads_each(how.workers, how.threads))
                asked = (how.engine, how.workers, how.ray_address)
                driver.drive(engine(place) if engine else engine_of(place, *asked, loaded))
            driver.pack(every=True)
            summary.shards = sum(shards.number_of(name) is not None for name in _named(ledger))
        finally:
            _write_index(job, folder)
    return summary


def check_folder(job: Job, folder: Path) -> None:
    """Refuse a folder that holds something else than results of this job, before any work.

    Raises:
        BadInput: what differs.
    """
    about = read_about(folder) if folder.is_dir() else None
    if about is None:
        if os.path.lexists(folder / FILE) and not os.path.lexists(folder / ABOUT):
            raise BadInput(f"{str(folder)!r} holds a run of the benchmark; choose another folder")
        if there := _shard_files(folder) if folder.is_dir() else []:
            raise BadInput(
                f"{str(folder)!r} holds {there[0].name}, which is called as a shard is and is none of ours; choose "
                "another folder"
            )
        return
    asked, found = job.plain(), about["asked"]
    differing = [k for k in {**asked, **found} if asked.get(k) != found.get(k)]
    if differing:
        what = "; ".join(f"{k.replace('_', ' ')} {found.get(k)!r}, not {asked.get(k)!r}" for k in differing[:3])
        raise BadInput(
            f"{str(folder)!r} holds a collection that was made otherwise: {what}; give the same options, --overwrite, "
            "or another --output"
        )


def forget(folder: Path) -> None:
    """Remove the results of a collection: ledger, shards and index; nothing else that lies there."""
    if not folder.is_dir() or read_about(folder) is None:
        return
    ledger_of(folder).close()  # nobody else writes it
    for path in [*_shard_files(folder), *(folder / n for n in (INDEX, FILE, f"{FILE}-wal", f"{FILE}-shm", ABOUT))]:
        path.unlink(missing_ok=True)


def _about(job: Job, data: Dataset, how: How) -> dict[str, Any]:
    return {"asked": job.plain(), "source": data.spec, "versions": versions(), "command": list(how.command)}


def _left(data: Dataset, ledger: Ledger, how: How) -> tuple[Summary, deque[Chunk]]:
    """What was done before, and the batches of what was not: new items, changed ones, and those that failed."""
    known = {name: (stamp, status, digest) for name, stamp, status, digest in ledger.told("stamp", "status", "digest")}
    summary, todo = Summary(len(data) + len(data.broken)), []
    for place, id in enumerate(data.ids):
        stamp = data.stamp(place) if hasattr(data, "stamp") else data.spec.partition(":")[0]
        before = known.get(id)
        if before is not None and before[0] == stamp and before[1] in DONE:
            summary.stand(before[1])
        else:
            todo.append((place, id, stamp, before[2] if before is not None and before[1] in DONE[:3] else None))
    rows = [_broken(id, reason) for id, reason in _broken_apart(data)]
    fresh = [row for row in rows if known.get(row["name"], ("", ""))[:2] != (row["stamp"], row["status"])]
    ledger.add(fresh)
    for _ in range(len(rows) - len(fresh)):
        summary.stand("unreadable")
    summary.statuses.update(row["status"] for row in fresh)
    summary.reasons |= {row["name"]: row["reason"] for row in fresh[:3]}
    size = min(how.batch_size or AUTO, how.shard_size)  # a part is no larger than a shard
    return summary, deque(_chunk(data, todo[k : k + size], k) for k in range(0, len(todo), size))


def _chunk(data: Dataset, some: Sequence[tuple[int, str, str, str | None]], number: int) -> Chunk:
    places, ids, stamps, digests = (tuple(column) for column in zip(*some, strict=True))
    if hasattr(data, "picked"):
        own = data.picked(places)
        files = {getattr(row, "file", number) for row in own.rows}
        return Chunk(own, tuple(range(len(ids))), ids, stamps, digests, group=sorted(map(str, files))[0])
    return Chunk(data, places, ids, stamps, digests, group=number)


def _broken_apart(data: Dataset) -> list[tuple[str, str]]:
    """The broken rows, those that have the id of a good one under a name of their own."""
    if not data.broken:
        return []
    names = numbered([*data.ids, *(id for id, _ in data.broken)])[len(data) :]
    return [(name, reason) for name, (_, reason) in zip(names, data.broken, strict=True)]


def _broken(id: str, reason: str) -> dict[str, Any]:
    return {"name": id, "input": id, "stamp": reason, "digest": None, "status": "unreadable", "reason": reason}


class _Driver(Driver[Chunk]):
    def __init__(
        self, job: Job, folder: Path, ledger: Ledger, how: How, summary: Summary,
        told: Callable[[Summary], None], waiting: deque[Chunk],
    ) -> None:  # fmt: skip
        super().__init__(waiting, halving=not how.batch_size)
        self.job, self.folder, self.ledger, self.how, self.summary, self.told = job, folder, ledger, how, summary, told
        self.errors: list[str] = []
        self.sha256 = (read_about(folder) or {}).get("model_sha256")
        self.number = max((n for n in map(shards.number_of, _named(ledger)) if n is not None), default=-1) + 1
        self.parts: dict[str, dict[str, list[tuple[int, str]]]] = {}  # kind to part to its rows: place and name
        for name, shard, row, kind in ledger.told("shard", "row", "kind"):
            if str(shard).startswith(shards.PARTS):
                self._part(kind, shard, row, name)

    def observe(self) -> None:
        self.told(self.summary)

    def commit(self, task: Chunk, found: dict[str, Any]) -> None:
        self._check_model(found["sha256"])
        rows, same = ([r for r in found["rows"] if r.get("same", False) is is_same] for is_same in (False, True))
        stood = [self._same(row) for row in same]
        self.ledger.add([*rows, *stood])
        for row in stood:
            self.summary.stand(row["status"])
        for row in rows:
            self.summary.statuses[row["status"]] += 1
            self.summary.out_of_domain += bool(row.get("out_of_domain"))
            if row["status"] in DONE[:2]:
                self._measured(row.get("values") or {})
            if row.get("reason") and len(self.summary.reasons) < STOP_AFTER:
                self.summary.reasons[row["name"]] = row["reason"]
            if str(row.get("shard") or "").startswith(shards.PARTS):
                self._part(row["kind"], row["shard"], row["row"], row["name"])
        self.pack()

    def _measured(self, values: Mapping[str, Any]) -> None:
        """Note the metrics that have no value of a picture that went well, and why not."""
        for name in self.job.asked["metrics"]:
            found = values.get(name) or {}
            if found.get("value") is None and not found.get("exact"):
                self.summary.unmeasured[name] += 1
                self.summary.why.setdefault(name, found.get("reason") or "not known")

    def fail(self, task: Chunk, error: str, traceback: str) -> None:
        self.errors.append(error)
        ended = {k: n for k, n in self.summary.statuses.items() if k not in ("failed", "unreadable")}
        if not ended and not self.summary.before and len(self.errors) >= STOP_AFTER and len(set(self.errors)) == 1:
            raise BadInput(f"the first {len(self.errors)} pictures all failed, so the others were not tried: {error}")
        about = {"digest": None, "status": "failed", "reason": error, "traceback": traceback}
        names = zip(task.ids, task.stamps, strict=True)
        rows = [{"name": id, "input": id, "stamp": stamp, **about} for id, stamp in names]
        self.ledger.add(rows)
        self.summary.statuses["failed"] += len(rows)
        self.summary.reasons |= {id: error for id in task.ids if len(self.summary.reasons) < STOP_AFTER}

    def _same(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What stands there of an item that is what it was, in another file."""
        return {**self.ledger.row(row["name"]), "stamp": row["stamp"], "input": row["input"]}

    def _check_model(self, sha256: str | None) -> None:
        """The weights that the first run had are those of every later one.

        Raises:
            BadInput: they are others.
        """
        if sha256 is None or sha256 == self.sha256:
            return
        if self.sha256 is not None:
            raise BadInput(
                f"{str(self.folder)!r} was made with other weights than {self.job.model} has now; give --overwrite, or "
                "another --output"
            )
        self.sha256 = sha256
        write_about(self.folder, (read_about(self.folder) or {}) | {"model_sha256": sha256})

    # ------------------------------------------------------------ parts into shards

    def _part(self, kind: str, name: str, row: int, item: str) -> None:
        self.parts.setdefault(kind, {}).setdefault(name, []).append((row, item))

    def pack(self, every: bool = False) -> None:
        """Put parts together where there is a shard's worth of them, or of all that are left."""
        for kind in list(self.parts):
            for some in self._full(kind, every):
                self._join(kind, some)

    def _full(self, kind: str, every: bool) -> Iterator[list[str]]:
        """The parts of each shard that is to be made."""
        parts = self.parts[kind]
        some: list[str] = []
        count = size = 0
        for name in list(parts):
            if some and count + len(parts[name]) > self.how.shard_size:
                yield some
                some, count, size = [], 0, 0
            some.append(name)
            count += len(parts[name])
            size += (self.folder / name).stat().st_size
            if count >= self.how.shard_size or size >= shards.SHARD_BYTES:
                yield some
                some, count, size = [], 0, 0
        if some and every:
            yield some

    def _join(self, kind: str, some: Sequence[str]) -> None:
        """One shard: on the disk first, then said to be there, then the parts go."""
        assert self.job.keeps is not None
        parts = self.parts[kind]
        picks = [(name, sorted(parts[name])) for name in some]
        name = shards.numbered(self.number, self.job.keeps)
        self.number += 1
        shards.join(self.job.keeps, self.folder, name, [(self.folder / n, [row for row, _ in own]) for n, own in picks])
        items = [item for _, own in picks for _, item in own]
        self.ledger.add([{**self.ledger.row(item), "shard": name, "row": k} for k, item in enumerate(items)])
        for part in some:
            del parts[part]
            (self.folder / part).unlink(missing_ok=True)
        if not parts:
            del self.parts[kind]


def _named(ledger: Ledger) -> set[str]:
    """The files that rows name."""
    return {shard for _, shard in ledger.told("shard") if shard is not None}


def _shard_files(folder: Path) -> list[Path]:
    """Every part and shard that lies in the folder."""
    found = [path for path in folder.glob(f"{shards.SHARD}-*") if shards.number_of(path.name) is not None]
    return [*found, *(folder / shards.PARTS).glob("*")]


def _tidy(folder: Path, ledger: Ledger) -> None:
    """Remove what no row names: what a killed run had written and not committed."""
    named = _named(ledger)
    for path in _shard_files(folder):
        if path.relative_to(folder).as_posix() not in named:
            path.unlink(missing_ok=True)


def _write_index(job: Job, folder: Path) -> None:
    with suppress(OSError):
        (folder / shards.PARTS).rmdir()
    write_index(folder / INDEX, Collection(folder).rows(), job.asked["metrics"])
