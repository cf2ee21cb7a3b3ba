"""How a message writes an argument: `prompt` and `fit='crop'` in Python, `--prompt` and `--fit crop` in a shell.

A rule says `argument("prompt")`; a door says once, around all that it does, how its readers write arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from unsample.errors import BadOption


class Wording(Protocol):
    """How the readers of one door write."""

    def argument(self, name: str) -> str:
        """An argument by its name in Python."""

    def given(self, name: str, value: object) -> str:
        """An argument with a value."""

    def value(self, value: object) -> str:
        """A value alone."""

    def call(self, verb: str, *switches: str) -> str:
        """A verb with arguments that are switched on."""

    def prefix(self, name: str) -> str:
        """What stands before a message that does not name its argument as the reader does."""


class Python:
    """As in Python."""

    def argument(self, name: str) -> str:
        return name

    def given(self, name: str, value: object) -> str:
        return f"{name}={self.value(value)}"

    def value(self, value: object) -> str:
        return repr(value)

    def prefix(self, name: str) -> str:
        return ""

    def call(self, verb: str, *switches: str) -> str:
        return f"{verb}({', '.join(f'{name}=True' for name in switches)})"


class CommandLine:
    """As in a shell."""

    def argument(self, name: str) -> str:
        return f"--{name.replace('_', '-')}"

    def given(self, name: str, value: object) -> str:
        return f"{self.argument(name)} {self.value(value)}"

    def value(self, value: object) -> str:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return ",".join(map(self.value, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    def prefix(self, name: str) -> str:
        return f"{self.argument(name)}: "

    def call(self, verb: str, *switches: str) -> str:
        return f"'{' '.join(['unsample', verb, *map(self.argument, switches)])}'"


PYTHON, COMMAND_LINE = Python(), CommandLine()
_current: ContextVar[Wording] = ContextVar("wording", default=PYTHON)


@contextmanager
def worded(wording: Wording) -> Iterator[None]:
    """While it lasts, messages are written in this way."""
    token = _current.set(wording)
    try:
        yield
    finally:
        _current.reset(token)


def argument(name: str) -> str:
    """An argument, by its name in Python: `prompt`, or `--prompt`."""
    return _current.get().argument(name)


def given(name: str, value: object) -> str:
    """An argument with a value: `fit='crop'`, or `--fit crop`."""
    return _current.get().given(name, value)


def value(value: object) -> str:
    """A value alone: `[3]`, or `3`."""
    return _current.get().value(value)


@contextmanager
def of(name: str) -> Iterator[None]:
    """Put the argument before what the library says of its value, where it calls it otherwise than the reader does."""
    try:
        yield
    except BadOption as error:
        raise type(error)(f"{_current.get().prefix(name)}{error}") from error


def call(verb: str, *switches: str) -> str:
    """A verb with what is switched on: `sample(keep_trajectory=True)`, or `'unsample sample --keep-trajectory'`."""
    return _current.get().call(verb, *switches)
