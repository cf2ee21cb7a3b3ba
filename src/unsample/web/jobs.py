"""One job at a time, and a queue: who waits, who runs, how far it is, what came of it. Work is done in one thread."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsample.errors import UnsampleError
from unsample.web.asked import Asked
from unsample.web.commands import Command

MOST_WAITING = 16
MOST_KEPT = 100  # jobs that the session remembers; the oldest that is done goes first, with its folder
DONE = ("done", "failed", "cancelled")


class QueueFull(UnsampleError):
    """So many jobs wait already."""


class Cancelled(KeyboardInterrupt):
    """Raised at a call of the network: the verbs end at it as they do at Ctrl-C, with what they wrote whole."""


@dataclass(eq=False)
class Job:
    """One job; `revision` grows with every change of what is told of it."""

    id: str
    asked: Asked
    commands: list[Command]
    folder: Path
    title: str
    python: str  # the lines that do the same
    state: str = "waiting"  # then running, then one of DONE
    stage: str = ""  # what is done now, in a word or two
    step: tuple[int, int] = (0, 0)  # how many of how many
    preview: bytes | None = None  # PNG of x0 as it forms, while it runs
    previews: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)  # what can be fetched, by our names
    error: dict[str, Any] | None = None
    begun: float = field(default_factory=time.time)
    seconds: float | None = None
    revision: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop_here(self) -> None:
        """Where work may end.

        Raises:
            Cancelled: it shall.
        """
        if self.stopped.is_set():
            raise Cancelled

    def brief(self) -> dict[str, Any]:
        """What every page is told of it as it changes."""
        names = ("id", "title", "state", "stage", "step", "previews", "error", "begun", "seconds", "revision")
        return {"kind": self.asked.kind, **{name: getattr(self, name) for name in names}, "files": list(self.files)}

    def whole(self) -> dict[str, Any]:
        """All that is known of it."""
        lines = {"shell": [command.shell() for command in self.commands], "python": self.python}
        return {**self.brief(), **lines, "asked": self.asked.model_dump(), "result": self.result}


class Jobs:
    """The queue and its worker.

    Args:
        work: does a job, and fills it; what it raises is the job's failure.
        explained: the exit code and the sentence of what was raised.
        forget: is called with the folder of a job that is forgotten.
    """

    def __init__(
        self,
        work: Callable[[Job], None],
        explained: Callable[[BaseException, Job], tuple[int, str]],
        forget: Callable[[Path], None],
    ) -> None:
        self._work, self._explained, self._forget = work, explained, forget
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._change, self._revision, self._closed = threading.Condition(threading.RLock()), 0, False
        self._thread = threading.Thread(target=self._run, name="unsample-jobs", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Queue a job.

        Raises:
            QueueFull: 16 wait.
        """
        with self._change:
            self.check_room()
            self._jobs[job.id] = job
            self._waiting.append(job)
            self.changed(job)
            self._change.notify_all()
            old = [j for j in self._jobs.values() if j.state in DONE][: max(0, len(self._jobs) - MOST_KEPT)]
            for each in old:
                del self._jobs[each.id]
        for each in old:
            self._forget(each.folder)

    def check_room(self) -> None:
        """Refuse a job that could not be added now.

        Raises:
            QueueFull: 16 wait.
        """
        with self._change:
            if len(self._waiting) >= MOST_WAITING:
                raise QueueFull(f"{MOST_WAITING} jobs wait already; try again when one is done, or cancel one")

    def get(self, id: str) -> Job | None:
        """A job that is remembered."""
        with self._change:
            return self._jobs.get(id)

    def cancel(self, job: Job) -> None:
        """End a job: one that waits at once, one that runs at the next call of its network."""
        with self._change:
            job.stopped.set()
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"
                self.changed(job)

    def changed(self, job: Job) -> None:
        """Something about a job is new."""
        with self._change:
            self._revision += 1
            job.revision = self._revision

    def since(self, revision: int) -> tuple[int, list[dict[str, Any]], list[str]]:
        """The revision now, the jobs that have changed since another, newest first, and those that wait in order."""
        with self._change:
            new = [job.brief() for job in reversed(self._jobs.values()) if job.revision > revision]
            return self._revision, new, [job.id for job in self._waiting]

    def close(self, timeout: float = 5.0) -> None:
        """End what runs and take no more."""
        with self._change:
            self._closed = True
            for job in self._jobs.values():
                if job.state not in DONE:
                    job.stopped.set()
            self._waiting.clear()
            self._change.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                job = self._waiting.popleft()
                job.state = "running"
                self.changed(job)
            self._one(job)

    def _one(self, job: Job) -> None:
        begin = time.perf_counter()
        try:
            job.stop_here()
            self._work(job)
            state = "failed" if job.error else "done"
        except BaseException as error:  # the worker goes on, whatever one job raises
            state = "cancelled" if job.stopped.is_set() else "failed"
            if state == "failed":
                code, message = self._explained(error, job)
                job.error = {"code": code, "message": message}
        with self._change:
            job.state, job.seconds, job.preview, job.stage = state, time.perf_counter() - begin, None, ""
            self.changed(job)
