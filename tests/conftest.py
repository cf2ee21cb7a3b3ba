"""For every test: no network, no hub, few threads; and a fixture that watches the global random number generators."""

from __future__ import annotations

import copy
import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["UNSAMPLE_CACHE"] = tempfile.mkdtemp(prefix="unsample-cache-")  # nothing of the user's home is written
os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest -n 2 on two cores: more threads only wait for each other

import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

THREADS = 1


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> Iterator[None]:
    """The tests share the machine (pytest-xdist, training in the background)."""
    import torch

    torch.set_num_threads(min(THREADS, torch.get_num_threads()))
    yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that leaves the machine, or could, is an error; unix sockets pass."""
    for name in ("connect", "connect_ex"):
        allowed = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, _allowed: Any = allowed) -> Any:
            if self.family != getattr(socket, "AF_UNIX", None):
                raise RuntimeError(f"a test tried to reach the network: {address!r}")
            return _allowed(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)


@pytest.fixture
def global_rng_unchanged() -> Iterator[None]:
    """The state of every global generator is the same after the test as before it, and so are torch's switches."""
    before = _globals()
    yield
    after = _globals()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"changed: {', '.join(changed)}"


@pytest.fixture
def tables_restored() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    from unsample import registry
    from unsample.edits import EDITORS
    from unsample.methods import METHODS
    from unsample.metrics import METRICS

    tables: tuple[Any, ...] = (METHODS, EDITORS, METRICS)
    names = ("registered", "packages", "_makers", "_listed")
    before = [{name: copy.copy(getattr(table, name)) for name in names} for table in tables]
    loaded = set(registry._LOADED)
    yield
    for table, kept in zip(tables, before, strict=True):
        vars(table).update(kept)
    registry._LOADED.clear()
    registry._LOADED.update(loaded)


def _globals() -> dict[str, Any]:
    import numpy as np
    import torch

    return {
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "numpy's generator": repr(np.random.get_state()),
        "random's generator": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
