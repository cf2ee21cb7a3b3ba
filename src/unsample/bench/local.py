"""The local engine: batches done in this process, or in worker processes that are replaced when they die.

A worker loads its models once. Only the parent writes the ledger; a worker that loses its parent ends at once, also in
the middle of a batch: nobody would take what it makes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Protocol, Self

from unsample.bench.plan import Plan
from unsample.bench.work import Worker
from unsample.wording import PYTHON, worded


@dataclass(frozen=True)
class Event:
    """A batch came back with `found`, or its worker died (`found` is None)."""

    task: Any
    found: dict[str, Any] | None


class Doing(Protocol):
    """A worker: does a batch at a time."""

    def do(self, task: Any) -> dict[str, Any]:
        """`rows` of a batch and what goes with them; or what went wrong: `error`, `traceback`, `kind`."""

    def lend(self, models: Mapping[str, Any]) -> None:
        """Models that are in memory already, by name."""

    def after(self, other: Any) -> Self:
        """This worker, with the models of one that did other work on the same device."""


class Place:
    """What every worker is made from: a frozen dataclass that can be pickled."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    device: str | None  # of several, joined by commas, each worker has one
    threads: int

    def worker(self) -> Doing:
        """One worker."""
        raise NotImplementedError


@dataclass(frozen=True)
class Workplace(Place):
    """The place of a benchmark."""

    plan: Plan
    folder: Path
    artefacts: str = "pictures"
    device: str | None = None
    threads: int = 1
    running: Mapping[str, Any] | None = None

    def worker(self) -> Worker:
        """One worker."""
        return Worker(self.plan, self.folder, self.artefacts, self.device, self.threads, self.running or {})


class InProcess:
    """One worker: this process, which may have models of its own, and gets its threads of torch back at the end."""

    def __init__(self, place: Place, loaded: Mapping[str, Any] | None = None) -> None:
        import torch

        self._threads = torch.get_num_threads()
        self._worker: Doing = place.worker()
        self._task: Any = None
        self._worker.lend(loaded or {})

    def idle(self) -> list[int]:
        """Who has nothing to do."""
        return [0] if self._task is None else []

    def submit(self, task: Any, worker: int = 0) -> None:
        """Give it a batch."""
        self._task = task

    def events(self) -> list[Event]:
        """Do it."""
        task, self._task = self._task, None
        with worded(PYTHON):  # as in a process of its own: rows do not depend on how many there are
            return [] if task is None else [Event(task, self._worker.do(task))]

    def close(self) -> None:
        """There is no process to end."""
        import torch

        torch.set_num_threads(self._threads)


@dataclass
class _Process:
    process: Any
    pipe: Connection
    task: Any = None


class Processes:
    """Several workers, each a process of its own (spawned, so that torch starts with its own threads)."""

    def __init__(self, place: Place, count: int) -> None:
        self._place, self._context = place, get_context("spawn")
        self._workers = [self._start(number) for number in range(count)]

    def _start(self, number: int) -> _Process:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._of(number)), daemon=True)
        before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        os.environ.update(dict.fromkeys(before, str(self._place.threads)))
        try:
            process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()
        return _Process(process, ours)

    def _of(self, number: int) -> Place:
        """The place of one worker, which has a device of its own."""
        devices = (self._place.device or "").split(",")
        return replace(self._place, device=devices[number % len(devices)] or None)

    def idle(self) -> list[int]:
        """Who has nothing to do."""
        return [k for k, w in enumerate(self._workers) if w.task is None]

    def submit(self, task: Any, worker: int = 0) -> None:
        """Give a batch to a worker that has none."""
        self._workers[worker].task = task
        with suppress(OSError):  # it died while it was idle; `events` finds it closed
            self._workers[worker].pipe.send(task)

    def events(self) -> list[Event]:
        """Wait until a batch comes back or a worker dies; the dead are replaced."""
        ready = wait([w.pipe for w in self._workers], timeout=1.0)
        found = []
        for k, worker in enumerate(self._workers):
            if worker.pipe not in ready:
                continue
            try:
                result = worker.pipe.recv()
            except (EOFError, OSError):
                result = None
                worker.process.join()
                self._workers[k] = self._start(k)
            if worker.task is not None:
                found.append(Event(worker.task, result))
                worker.task = None
        return found

    def suits(self, place: Place, count: int) -> bool:
        """Whether these processes can go on with another run: as many, on the same devices, with the same threads."""
        here = self._place
        return (len(self._workers), here.device, here.threads) == (count, place.device, place.threads)

    def move(self, place: Place) -> None:
        """Go on with another run: each worker takes over its models and data."""
        self._place = place
        for number, worker in enumerate(self._workers):
            with suppress(OSError):  # it died while it was idle; `events` finds it closed
                worker.pipe.send(self._of(number))

    def pids(self) -> list[int]:
        """Of the workers."""
        return [w.process.pid for w in self._workers]

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.pipe.close()  # those that are idle end by themselves
        for worker in self._workers:
            worker.process.join(1 if worker.task else 5)
            worker.process.kill()
            worker.process.join()


class Crew:
    """Worker processes that stay from run to run, so that each starts, and loads a model, once.

    `with Crew() as crew: run_plan(..., crew=crew)`.
    """

    def __init__(self) -> None:
        self._here: Processes | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    @property
    def started(self) -> bool:
        """Whether there are processes."""
        return self._here is not None

    def engine(self, count: int, place: Place) -> Lent:
        """The processes, for one run; others than before where these do not suit it."""
        if self._here is not None and self._here.suits(place, count):
            self._here.move(place)
        else:
            self.end()
            self._here = Processes(place, count)
        return Lent(self, self._here)

    def end(self) -> None:
        """End the processes."""
        if self._here is not None:
            self._here.close()
        self._here = None


class Lent:
    """The processes of a crew while one run has them; they end with it only where it leaves something undone."""

    def __init__(self, crew: Crew, processes: Processes) -> None:
        self._crew, self._processes = crew, processes
        self.idle, self.submit, self.events = processes.idle, processes.submit, processes.events
        self.pids = processes.pids

    def close(self) -> None:
        """Give them back."""
        if len(self._processes.idle()) < len(self._processes.pids()):
            self._crew.end()


def end_with(parent: Any) -> None:
    """End this process, whatever it is doing, when its parent has ended: `parent` is what `parent_process()` gives."""
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _serve(pipe: Connection, place: Place) -> None:
    """A worker's life: batches in, rows out, until the pipe closes."""
    Thread(target=end_with, args=(parent_process(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    quiet_worker()
    worker = place.worker()
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        if isinstance(task, Place):
            worker = task.worker().after(worker)
            continue
        result = worker.do(task)
        try:
            pipe.send(result)
        except OSError:
            return


def quiet_worker() -> None:
    """The libraries' own bars and log lines would cross the driver's."""
    from threading import RLock

    from tqdm import tqdm

    from unsample.models.loading import quiet_libraries

    tqdm.set_lock(RLock())  # its own is shared between processes, and a killed one would leave it behind
    quiet_libraries()
