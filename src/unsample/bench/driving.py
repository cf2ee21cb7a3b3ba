"""Batches to workers, and what failed tried again: alone, in halves where memory is short, by another worker where one
died. What a kind of run does with what comes back stands in a `Driver` of its own (`bench.run`, `collections.run`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, Self, TypeVar

from unsample.bench.local import Crew, Event, InProcess, Place, Processes
from unsample.errors import BadInput

ATTEMPTS, DEATHS = 3, 5
STOP_AFTER = 3  # first cells that all fail for one reason: the others are not tried


class Batch(Protocol):
    """What a worker does at once: a frozen dataclass that can be pickled."""

    @property
    def ids(self) -> Sequence[str]:
        """Of its items."""

    @property
    def attempt(self) -> int:
        """Its how-manieth it is, from 1."""

    @property
    def deaths(self) -> int:
        """How many workers died of it."""

    @property
    def group(self) -> object:
        """One worker does batches of one group best."""

    @property
    def sized(self) -> Hashable:
        """What memory depends on beside the number of items."""

    def alone(self) -> list[Self]:
        """Each of its items in a batch of its own."""

    def halves(self) -> list[Self]:
        """Two batches."""


T = TypeVar("T", bound=Batch)


class Engine(Protocol):
    """What does batches."""

    def idle(self) -> list[int]: ...  # numbers of the workers that have nothing to do
    def submit(self, task: Any, worker: int) -> None: ...
    def events(self) -> list[Event]: ...
    def close(self) -> None: ...


class Driver(Generic[T]):
    """Drives an engine until nothing waits and nobody is busy.

    Args:
        waiting: batches, in the order in which they are done.
        halving: whether a batch that is too large for the memory is halved.
    """

    def __init__(self, waiting: deque[T], halving: bool) -> None:
        self.waiting, self.halving = waiting, halving
        self.out = 0  # batches that a worker has
        self.most: dict[Hashable, int] = {}  # `Batch.sized` to the largest batch that fits
        self.doing: dict[int, object] = {}  # worker to the group that it does, or did last

    # ------------------------------------------------------------ what a kind of run does

    def observe(self) -> None:
        """After every batch."""

    def commit(self, task: T, found: dict[str, Any]) -> None:
        """Take what a worker made."""
        raise NotImplementedError

    def fail(self, task: T, error: str, traceback: str) -> None:
        """Take that nothing can be made of these items."""
        raise NotImplementedError

    def unloadable(self, task: T, found: dict[str, Any]) -> None:
        """Take that the model of a batch cannot be loaded."""
        raise found["raised"]

    def dropped(self, task: T) -> bool:
        """Whether a batch that failed is not wanted any more."""
        return False

    # ------------------------------------------------------------ what all of them do

    def drive(self, engine: Engine) -> None:
        """Until nothing waits and nobody is busy."""
        self.observe()
        try:
            while self.waiting or self.out:
                while self.waiting and (idle := engine.idle()):
                    engine.submit(self._next(idle[0]), idle[0])
                    self.out += 1
                for event in engine.events():
                    self.out -= 1
                    self._take(event)
                    self.observe()
        finally:
            engine.close()

    def _next(self, worker: int) -> T:
        """What a worker does next: the first batch of a group that nobody else is at, which is mostly what it has."""
        others = {group for number, group in self.doing.items() if number != worker}
        task = next((t for t in self.waiting if t.group not in others), self.waiting[0])
        self.waiting.remove(task)
        self.doing[worker] = task.group
        while len(task.ids) > self.most.get(task.sized, len(task.ids)):
            task, rest = task.halves()
            self.waiting.appendleft(rest)
        return task

    def _take(self, event: Event) -> None:
        task, found = event.task, event.found
        if found is not None and "rows" in found:
            self.commit(task, found)
        elif self.dropped(task):
            return
        elif found is None:
            task = replace(task, deaths=task.deaths + 1)
            if task.deaths < DEATHS:  # from the third on alone, so that what kills workers fails without its neighbours
                parts = [task] if task.deaths < DEATHS - 2 else task.alone()
                self.waiting.extendleft(reversed(parts))
            else:
                self.fail(task, f"its worker died {DEATHS} times while it ran", "")
        elif found["kind"] == "fatal":
            raise BadInput(f"{found['error']}; the run can be gone on with by the same command")
        elif found["kind"] == "model":
            self.unloadable(task, found)
        elif found["kind"] == "memory" and self.halving and len(task.ids) > 1:
            self.most[task.sized] = (len(task.ids) + 1) // 2
            self.waiting.extendleft(reversed(task.halves()))
        elif task.attempt < ATTEMPTS:  # alone, so that one bad picture does not fail its neighbours
            again = replace(task, attempt=task.attempt + 1)
            self.waiting.extendleft(reversed(again.alone()))
        elif len(task.ids) > 1:
            self.waiting.extendleft(reversed(task.alone()))
        else:
            self.fail(task, found["error"], found["traceback"])


def engine_of(
    place: Place,
    name: str,
    workers: int,
    address: str | None,
    loaded: Mapping[str, Any] | None,
    crew: Crew | None = None,
) -> Engine:
    """The engine of a name: this process for one local worker and for models that it has `loaded`, processes, Ray."""
    if loaded:
        return InProcess(place, loaded)
    if name == "ray":
        from unsample.bench.ray_engine import RayActors

        return RayActors(place, workers, address)
    if workers == 1:
        return InProcess(place)
    return crew.engine(workers, place) if crew else Processes(place, workers)


def threads_each(workers: int, threads: int | None) -> int:
    """CPU threads of one worker: as asked, else as `OMP_NUM_THREADS` says, else the cores shared out."""
    if threads:
        return threads
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if said.isdecimal() and int(said) > 0:
        return int(said)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)
