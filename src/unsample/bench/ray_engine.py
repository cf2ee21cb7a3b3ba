"""The Ray engine: an actor per device (or per core), each with its models loaded; the driver stays the only writer.

Ray restarts an actor that died; which batches are done again is decided here, as for local workers, so that what a
result depends on is the same.
"""

from __future__ import annotations

import os
from typing import Any

from unsample.bench.local import Event, Place, quiet_worker
from unsample.errors import BadOption


def import_ray() -> Any:
    """Ray, or the error that says how to get it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent unasked
    os.environ.setdefault("RAY_worker_niceness", "0")  # its 15 would starve a worker beside anything else
    try:
        import ray
    except ImportError as error:
        raise BadOption("--engine ray needs Ray: pip install 'unsample[ray]'; or use --engine local") from error
    return ray


class RayActors:
    """Several workers in a Ray cluster; without an address one is started on this machine."""

    def __init__(self, place: Place, count: int, address: str | None = None) -> None:
        self._ray = ray = import_ray()
        if not ray.is_initialized():
            given = {"address": address} if address else {"num_cpus": count, "include_dashboard": False}
            ray.init(**given, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        gpus = 1 if (place.device or "").startswith("cuda") else 0
        actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=0)(_Actor)
        self._actors = [actor.remote(place) for _ in range(count)]
        self._running: dict[Any, tuple[Any, int]] = {}

    def idle(self) -> list[int]:
        """Who has nothing to do."""
        used = {number for _, number in self._running.values()}
        return [k for k in range(len(self._actors)) if k not in used]

    def submit(self, task: Any, worker: int = 0) -> None:
        """Give a batch to an actor that has none."""
        self._running[self._actors[worker].do.remote(task)] = (task, worker)

    def events(self) -> list[Event]:
        """Wait until a batch comes back or an actor dies."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1.0)
        found = []
        for reference in ready:
            task, _ = self._running.pop(reference)
            try:
                found.append(Event(task, self._ray.get(reference)))
            except self._ray.exceptions.RayActorError:
                found.append(Event(task, None))
        return found

    def pids(self) -> list[int]:
        """Of the actors' processes."""
        return [int(pid) for pid in self._ray.get([a.pid.remote() for a in self._actors])]

    def close(self) -> None:
        """End the actors, and the cluster where this process started it."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.shutdown()


class _Actor:
    def __init__(self, place: Place) -> None:
        quiet_worker()
        self._worker = place.worker()

    def do(self, task: Any) -> dict[str, Any]:
        return self._worker.do(task)

    def pid(self) -> int:
        return os.getpid()
