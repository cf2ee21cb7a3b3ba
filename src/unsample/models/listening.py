"""Who is told while a walk goes on: a door that shows the work as it forms, and may end it within one network call.

`with listened(listener):` holds for all that the thread does inside. A listener looks and changes nothing: no bit and
no count of a result depends on it. What it raises ends the walk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsample.numbers.prediction import Prediction


class Listener:
    """Hears nothing; a door overrides what it wants to hear."""

    def asking(self) -> None:
        """Before every call of the denoiser."""

    def predicted(self, model: Any, prediction: Prediction) -> None:
        """The prediction at a point of a walk; of an edit, its rows first. x0 is worked out when it is asked for."""

    def stepped(self, what: str, done: int, of: int) -> None:
        """After a step: of which verb, or part of a method, and how many of how many."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_DEAF = Listener()


@contextmanager
def listened(listener: Listener) -> Iterator[None]:
    """While it lasts, `listener` is told."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener:
    """Who is to be told; one that hears nothing where nobody listens."""
    return _listener.get() or _DEAF


def is_heard() -> bool:
    """Whether somebody listens, who then shows how far it is."""
    return _listener.get() is not None
