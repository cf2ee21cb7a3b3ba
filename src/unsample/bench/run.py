"""Driving a run: batches to workers, rows to the ledger, what failed tried again. This process alone writes there."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from unsample.bench import sets
from unsample.bench.cells import BatchTask, base_row, tasks_of
from unsample.bench.coverage import Counts
from unsample.bench.driving import STOP_AFTER, Driver, Engine, engine_of, threads_each
from unsample.bench.entries import methods_of
from unsample.bench.layout import Broken, Items, Standing
from unsample.bench.ledger import FILE, PLAN, Ledger, read_plan_file, read_run
from unsample.bench.local import Crew, Workplace
from unsample.bench.parts import STOPPED, Apart, Examined, Part, examine, part_of
from unsample.bench.plan import FORMAT, Plan, differing, plain
from unsample.errors import BadInput, unknown_name
from unsample.media.files import atomic_write, check_writable_folder
from unsample.media.fitting import AUTO
from unsample.models.loading import locate


@dataclass(frozen=True)
class How:
    """How a plan is run: nothing here changes a result, but for rounding by batch and threads."""

    engine: str = "local"
    workers: int = 1
    batch_size: int = 0  # 0: auto, which begins at 8 and halves when memory is short
    threads: int | None = None  # of each worker; None: the cores shared out
    shard: tuple[int, int] = (1, 1)
    only: Sequence[str] = ()  # labels of methods; the others are left for later
    artefacts: str = "pictures"
    device: str | None = None
    ray_address: str | None = None
    command: Sequence[str] = ()

    @property
    def running(self) -> dict[str, Any]:
        """What a row says of it."""
        return {"engine": self.engine, "workers": self.workers}

    @property
    def threads_each(self) -> int:
        """Of one worker."""
        return threads_each(self.workers, self.threads)


@dataclass
class Summary:
    """How a run ended."""

    cells: int = 0  # of this shard, without those that are not applicable
    before: dict[str, int] = field(default_factory=dict)  # statuses of what was done before
    statuses: dict[str, int] = field(default_factory=dict)  # of what was done now
    left_out: int = 0  # cells whose item cannot be used
    broken: Broken = field(default_factory=dict)  # those items, and why
    apart: list[Apart] = field(default_factory=list)  # what is not run: stopped now, or not applicable

    @property
    def found(self) -> int:
        """Cells that needed no work any more."""
        return sum(self.before.values()) + self.left_out

    @property
    def done(self) -> int:
        """Cells that have ended, then and now."""
        return self.found + sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """Cells that failed now."""
        return self.statuses.get("failed", 0)

    @property
    def stopped(self) -> list[Apart]:
        """Parts of the plan whose first cells failed."""
        return [a for a in self.apart if a.kind == STOPPED]

    @property
    def counts(self) -> Counts:
        """All that was planned for this shard."""
        return Counts(self.cells, Counter(self.before) + Counter(self.statuses), self.left_out)


def run_plan(
    plan: Plan, folder: Path, how: How, observe: Callable[[Summary], None] = lambda summary: None,
    engine: Callable[[Workplace], Engine] | None = None, loaded: Mapping[str, Any] | None = None,
    crew: Crew | None = None,
) -> Summary:  # fmt: skip
    """Run what is not done yet.

    Args:
        plan: what to run.
        folder: of the run; made when missing, and gone on with when it holds this plan.
        how: engine, workers, batch size.
        observe: called after every batch.
        engine: in place of the one that `how` names.
        loaded: models of the plan that are in memory, by name; they are worked with in this process.
        crew: local workers that other runs have too.

    Raises:
        BadInput: the folder holds another plan, another process writes it, the data cannot be opened, or the disk is
            full; what was committed stays, and the same call goes on.
        WeightsMissing: a model is not here and cannot be fetched; nothing was run.
        Incompatible: a method, or a model, is left without a cell that could be.
    """
    from unsample.datasets import open_dataset

    sets.check_kept(plan, how.artefacts)
    opened = {spec: open_dataset(spec) for spec in plan.stages}
    items = {spec: list(data.ids) for spec, data in opened.items()}
    broken = {(spec, item): reason for spec, data in opened.items() for item, reason in data.broken}
    examined = examine(plan, loaded)
    tasks = chosen(plan, how, items, examined)
    if os.path.lexists(folder / PLAN) and os.path.lexists(folder / FILE):
        there, run = _check_plan(plan, folder), read_run(folder)
        summary, waiting, _ = _left(tasks, run.standing, broken, examined.apart)
        same = run.items == items and there["plan"].get("docs", {}) == plan.docs
        if not waiting and same and not sets.lacking(plan, run):  # nothing to write: the folder may be read-only
            return summary
    for name in plan.models:
        if name not in (loaded or {}):
            locate(name)
    examined = examine(plan, loaded)  # of a model that was fetched just now more is known
    tasks = chosen(plan, how, items, examined)
    check_writable_folder(folder)
    with Ledger(folder) as ledger:
        _claim(plan, folder, how.command)
        ledger.take_up()
        ledger.note(items, broken, examined.apart)
        summary, waiting, ended = _left(tasks, ledger.standing, broken, examined.apart)
        if waiting:
            place = Workplace(plan, folder, how.artefacts, how.device, how.threads_each, how.running)
            driver = _Driver(plan, ledger, how, summary, observe, waiting, ended)
            asked = (how.engine, how.workers, how.ray_address)
            driver.drive(engine(place) if engine else engine_of(place, *asked, loaded, crew))
        sets.finish(plan, ledger)
    return summary


def chosen(plan: Plan, how: How, items: Items, examined: Examined) -> list[BatchTask]:
    """The batches of this shard and of those methods that are wanted, without what is not applicable.

    Raises:
        UnknownName: a method that the plan has not.
    """
    labels = [named.label for named in methods_of(plan)]
    for label in how.only:
        if label not in labels:
            raise unknown_name("method of the plan", label, labels)
    tasks = tasks_of(plan, items, how.batch_size or AUTO, how.shard, examined.unguided)
    never = {a.part for a in examined.apart}
    return [task for task in tasks if task.method in (how.only or labels) and task.part not in never]


def _left(
    tasks: Sequence[BatchTask], standing: Standing, broken: Broken, apart: Sequence[Apart]
) -> tuple[Summary, deque[BatchTask], set[Part]]:
    """What was done before, what is still to be done, and the parts of which a cell has ended without an error.

    Cells that failed before their part was stopped are still to be done.
    """
    summary, waiting = Summary(broken=standing.broken | broken, apart=list(apart)), deque[BatchTask]()
    ended: set[Part] = set()
    again = {a.part for a in standing.apart if a.kind == STOPPED}
    before = Counter[str]()
    for task in tasks:
        summary.cells += len(task.ids)
        left = []
        for k, (cell, id) in enumerate(zip(task.cells(), task.ids, strict=True)):
            status = standing.statuses.get(cell)
            if status is not None and not (status == "failed" and task.part in again):
                before[status] += 1
                ended |= {task.part} if status != "failed" else set()
            elif (task.part.dataset, id) in summary.broken:
                summary.left_out += 1
            else:
                left.append(k)
        if left:
            waiting.append(task.only(left))
    summary.before = dict(before)
    return summary, waiting, ended


class _Driver(Driver[BatchTask]):
    def __init__(
        self, plan: Plan, ledger: Ledger, how: How, summary: Summary, told: Callable[[Summary], None],
        waiting: deque[BatchTask], ended: Set[Part],
    ) -> None:  # fmt: skip
        super().__init__(waiting, halving=not how.batch_size)
        self.plan, self.ledger, self.how, self.summary, self.told = plan, ledger, how, summary, told
        self.ended = set(ended)  # parts of the plan of which a cell has ended otherwise than by an error
        self.errors: dict[Part, list[str]] = {}  # what the others' cells failed with

    def observe(self) -> None:
        self.told(self.summary)

    def commit(self, task: BatchTask, found: dict[str, Any]) -> None:
        self._commit(found["rows"], {(task.part.dataset, item): reason for item, reason in found["broken"]})

    def dropped(self, task: BatchTask) -> bool:
        """It was with a worker when its part was stopped; a resumed run tries it again."""
        return any(a.part == task.part for a in self.summary.stopped)

    def unloadable(self, task: BatchTask, found: dict[str, Any]) -> None:
        if len(self.plan.models) == 1:
            raise found["raised"]
        self._stop([t.part for t in (task, *self.waiting) if t.model == task.model], found["error"])

    def _commit(self, rows: list[dict[str, Any]], broken: Broken | None = None) -> None:
        self.ledger.add(rows, broken)
        self.summary.broken |= broken or {}
        self.summary.left_out += len(broken or {})
        for row in rows:
            self.summary.statuses[row["status"]] = self.summary.statuses.get(row["status"], 0) + 1
            part = part_of(row)
            if row["status"] == "failed":
                self.errors.setdefault(part, []).append(str(row["error"]))
            else:
                self.ended.add(part)

    def fail(self, task: BatchTask, error: str, traceback: str) -> None:
        ended = {"status": "failed", "error": error, "traceback": traceback, **self.how.running}
        places = zip(task.items, task.ids, strict=True)
        self._commit([base_row(self.plan, task, place, id) | ended for place, id in places])
        errors = self.errors[task.part]
        all_failed = task.part not in self.ended and len(errors) >= STOP_AFTER and len(set(errors)) == 1
        if all_failed and any(t.part == task.part for t in self.waiting):
            self._stop([task.part], f"its first {len(errors)} cells all failed: {error}")

    def _stop(self, parts: Sequence[Part], reason: str) -> None:
        """Try no more of some parts of the plan in this run."""
        apart = [Apart(part, STOPPED, reason) for part in dict.fromkeys(parts)]
        self.ledger.stop(apart)
        self.summary.apart += apart
        self.waiting = deque(t for t in self.waiting if t.part not in {a.part for a in apart})


def check_folder(plan: Plan, folder: Path) -> None:
    """Refuse a folder that holds another run, before any work.

    Raises:
        BadInput: what differs.
    """
    if os.path.lexists(folder / PLAN):
        _check_plan(plan, folder)


def _check_plan(plan: Plan, folder: Path) -> dict[str, Any]:
    """What plan.json of a folder holds; another plan is refused, and so is a run that an earlier version made."""
    there = read_plan_file(folder)
    if (made := there.get("format", FORMAT)) < FORMAT:
        raise BadInput(
            f"{str(folder)!r} holds the run of an earlier version (format {made}; this unsample writes {FORMAT}): "
            "report, verify, merge and export read it, but it cannot be gone on with; choose another -o"
        )
    if there.get("fingerprint") != plan.fingerprint():
        keys = differing(plain(plan), there["plan"])
        what = "; ".join(
            f"{k}: {_short(there['plan'].get(k))} there, {_short(plain(plan).get(k))} asked" for k in keys[:4]
        )
        raise BadInput(f"{str(folder)!r} holds the run of another plan ({what or 'another format'}); choose another -o")
    return there


def _short(value: Any) -> str:
    return repr(value[0] if isinstance(value, list) and len(value) == 1 else value)


def _claim(plan: Plan, folder: Path, command: Sequence[str]) -> None:
    """Write the plan into a new folder; refuse a folder that holds another one. What it says of docs may change."""
    kept = {"format": FORMAT, "fingerprint": plan.fingerprint(), "plan": plain(plan)}
    kept |= {"versions": versions(), "command": list(command)}
    if os.path.lexists(folder / PLAN):
        there = _check_plan(plan, folder)
        if there["plan"].get("docs", {}) == plan.docs:
            return
        kept = there | {"plan": kept["plan"]}
    text = json.dumps(kept, indent=1) + "\n"
    atomic_write(folder / PLAN, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    from unsample import __version__

    found = {"unsample": __version__}
    for name in ("torch", "diffusers", "transformers", "torchmetrics", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
