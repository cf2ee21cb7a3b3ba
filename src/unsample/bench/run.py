"""Driving a run: batches to workers, rows to the ledger, what failed tried again. This process alone writes there."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from unsample.bench.cells import Task, base_row, tasks_of
from unsample.bench.ledger import PLAN, Ledger, read_plan_file
from unsample.bench.local import Event, InProcess, Processes, Workplace
from unsample.bench.plan import Plan, differing, methods_of, plain
from unsample.errors import BadInput
from unsample.files import atomic_write, check_writable_folder

ATTEMPTS, DEATHS, AUTO = 3, 5, 8


class Engine(Protocol):
    """What does batches."""

    def idle(self) -> bool: ...
    def busy(self) -> bool: ...
    def submit(self, task: Task) -> None: ...
    def events(self) -> list[Event]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class How:
    """How a plan is run: nothing here changes a result, but for rounding by batch and threads."""

    engine: str = "local"
    workers: int = 1
    batch_size: int = 0  # 0: auto, which begins at 8 and halves when memory is short
    threads: int | None = None  # of each worker; None: the cores shared out
    shard: tuple[int, int] = (1, 1)
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
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, cores // self.workers)


@dataclass
class Summary:
    """How a run ended."""

    cells: int = 0  # of this shard
    found: int = 0  # done before
    statuses: dict[str, int] = field(default_factory=dict)  # of what was done now
    broken: dict[str, str] = field(default_factory=dict)  # items left out, and why

    @property
    def done(self) -> int:
        """Cells that have ended, then and now."""
        return self.found + sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """Cells that failed now."""
        return self.statuses.get("failed", 0)


def run_plan(
    plan: Plan, folder: Path, how: How, observe: Callable[[Summary], None] = lambda summary: None,
    engine: Callable[[Workplace], Engine] | None = None,
) -> Summary:  # fmt: skip
    """Run what is not done yet.

    Args:
        plan: what to run.
        folder: of the run; made when missing, and gone on with when it holds this plan.
        how: engine, workers, batch size.
        observe: called after every batch.
        engine: in place of the one that `how` names.

    Raises:
        BadInput: the folder holds another plan, another process writes it, the data cannot be opened, or the disk is
            full; what was committed stays, and the same call goes on.
    """
    from unsample.datasets import open_dataset

    data = open_dataset(plan.dataset)
    ids, summary = list(data.ids), Summary()
    check_writable_folder(folder)
    with Ledger(folder) as ledger:
        _claim(plan, folder, how.command)
        ledger.add([], data.broken)
        tasks = list(tasks_of(plan, ids, how.batch_size or AUTO, how.shard))
        summary.cells = sum(len(t.ids) for t in tasks)
        done, summary.broken = ledger.done(), ledger.broken()
        waiting: deque[Task] = deque()
        for task in tasks:
            left = [k for k, cell in enumerate(task.cells()) if cell not in done and task.ids[k] not in summary.broken]
            summary.found += len(task.ids) - len(left)
            if left:
                waiting.append(task.only(left))
        if waiting:
            place = Workplace(plan, folder, how.artefacts, how.device, how.threads_each, how.running)
            _Driver(plan, ledger, how, summary, observe, waiting).drive(
                engine(place) if engine else _engine(place, how)
            )
    return summary


class _Driver:
    def __init__(
        self, plan: Plan, ledger: Ledger, how: How, summary: Summary, observe: Callable[[Summary], None],
        waiting: deque[Task],
    ) -> None:  # fmt: skip
        self.plan, self.ledger, self.how, self.summary, self.observe = plan, ledger, how, summary, observe
        self.waiting = waiting
        self.most: dict[str, int] = {}  # method to the largest batch that fits

    def drive(self, engine: Engine) -> None:
        """Until nothing waits and nobody is busy."""
        try:
            while self.waiting or engine.busy():
                while self.waiting and engine.idle():
                    self._submit(engine)
                for event in engine.events():
                    self._take(event)
                    self.observe(self.summary)
        finally:
            engine.close()

    def _submit(self, engine: Engine) -> None:
        task = self.waiting.popleft()
        while len(task.ids) > self.most.get(task.method, len(task.ids)):
            task, rest = task.halves()
            self.waiting.appendleft(rest)
        engine.submit(task)

    def _take(self, event: Event) -> None:
        task, found = event.task, event.found
        if found is None:
            task = replace(task, deaths=task.deaths + 1)
            if task.deaths < DEATHS:  # from the third on alone, so that what kills workers fails without its neighbours
                parts = [task] if task.deaths < DEATHS - 2 else task.alone()
                self.waiting.extendleft(reversed(parts))
            else:
                self._fail(task, f"its worker died {DEATHS} times while it ran", "")
        elif "rows" in found:
            self._commit(found["rows"], found["broken"])
        elif found["kind"] == "fatal":
            raise BadInput(f"{found['error']}; the run can be gone on with by the same command")
        elif found["kind"] == "memory" and not self.how.batch_size and len(task.ids) > 1:
            self.most[task.method] = (len(task.ids) + 1) // 2
            self.waiting.extendleft(reversed(task.halves()))
        elif task.attempt < ATTEMPTS:  # alone, so that one bad picture does not fail its neighbours
            again = replace(task, attempt=task.attempt + 1)
            self.waiting.extendleft(reversed(again.alone()))
        elif len(task.ids) > 1:
            self.waiting.extendleft(reversed(task.alone()))
        else:
            self._fail(task, found["error"], found["traceback"])

    def _commit(self, rows: list[dict[str, Any]], broken: Sequence[tuple[str, str]] = ()) -> None:
        self.ledger.add(rows, broken)
        self.summary.broken.update(broken)
        self.summary.found += len(broken)
        for row in rows:
            self.summary.statuses[row["status"]] = self.summary.statuses.get(row["status"], 0) + 1

    def _fail(self, task: Task, error: str, traceback: str) -> None:
        named = next(m for m in methods_of(self.plan) if m.label == task.method)
        ended = {"status": "failed", "error": error, "traceback": traceback, **self.how.running}
        places = zip(task.items, task.ids, strict=True)
        self._commit([base_row(self.plan, named, task, place, id) | ended for place, id in places])


def _engine(place: Workplace, how: How) -> Engine:
    if how.engine == "ray":
        from unsample.bench.ray_engine import RayActors

        return RayActors(place, how.workers, how.ray_address)
    return InProcess(place) if how.workers == 1 else Processes(place, how.workers)


def _claim(plan: Plan, folder: Path, command: Sequence[str]) -> None:
    """Write the plan into a new folder; refuse a folder that holds another one."""
    if (folder / PLAN).exists():
        there = read_plan_file(folder)
        if there.get("fingerprint") != plan.fingerprint():
            keys = differing(plain(plan), there["plan"])
            what = "; ".join(f"{k}: {there['plan'].get(k)!r} there, {plain(plan).get(k)!r} asked" for k in keys[:4])
            raise BadInput(
                f"{str(folder)!r} holds the run of another plan ({what or 'another format'}); choose another -o"
            )
        return
    kept = {"fingerprint": plan.fingerprint(), "plan": plain(plan), "versions": versions(), "command": list(command)}
    atomic_write(
        folder / PLAN, lambda temporary: temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    )


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
