"""What is said, and where: JSON and asked-for text on stdout, everything else on stderr, one clean line each."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from unsample.errors import OutOfDomainWarning, UnsampleWarning

_COLOURS = {"error": "\033[1;31m", "warning": "\033[33m"}
_PACKAGE = Path(__file__).resolve().parent.parent
_QUIET = {
    "DIFFUSERS_VERBOSITY": "critical",
    "TRANSFORMERS_VERBOSITY": "critical",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass
class Heard:
    """What a verb said and answered: lines with their tag ("" for one of progress), and JSON documents."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)


_heard: ContextVar[Heard | None] = ContextVar("heard", default=None)


@contextmanager
def hearing() -> Iterator[Heard]:
    """While it lasts, what this thread's verbs say is kept in place of being written: another door shows it."""
    heard = Heard()
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def say(text: str) -> None:
    """A line of progress, on stderr."""
    line = printable(text.replace("\n", " "))
    if (heard := _heard.get()) is None:
        _to_stderr(line)
    else:
        heard.lines.append(("", line))


def warn(text: str) -> None:
    """A warning, on stderr."""
    _tagged("warning", text)


def note(text: str) -> None:
    """What was done to a file without being asked, on stderr."""
    _tagged("note", text)


def notes(pairs: Iterable[tuple[str, str]]) -> None:
    """Notes on files; the same note on several is one line."""
    files: dict[str, list[str]] = {}
    for file, text in pairs:
        files.setdefault(text, []).append(file)
    for text, some in files.items():
        note(f"{some[0]}{f' and {len(some) - 1} more' if len(some) > 1 else ''}: {text}")


def error(text: str) -> None:
    """Something that failed while others went on, on stderr."""
    _tagged("error", text)


def fail(code: int, message: str, as_json: bool, details: Mapping[str, Any] | None = None) -> None:
    """An error, on stderr, and as a JSON document on stdout where that was asked for."""
    error(message)
    if as_json:
        document({"error": {"code": code, "message": message}, **(details or {})})


def answer(text: str) -> None:
    """What was asked for, on stdout."""
    if (heard := _heard.get()) is not None:
        heard.lines.append(("", printable(text)))
        return
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter shows its code
    print(printable(text), flush=True)


def document(value: dict[str, Any]) -> None:
    """The one JSON document, on stdout."""
    if (heard := _heard.get()) is not None:
        heard.documents.append(finite(value))
        return
    print(json.dumps(finite(value), indent=2, allow_nan=False), flush=True)


def printable(text: str) -> str:
    """Without control characters: file names and metadata are others' text, and a terminal obeys some of them.

    Those that turn the direction of writing make a name read as another one; they go too.
    """
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", "", text)


def _to_stderr(line: str) -> None:
    """A line on stderr, and none where it was closed: print would take None for stdout, which is the JSON's."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


def _tagged(tag: str, text: str) -> None:
    line = printable(" ".join(text.split()))
    if (heard := _heard.get()) is not None:
        heard.lines.append((tag, line))
        return
    plain = (
        sys.stderr is None or not sys.stderr.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    )
    colour, end = ("", "") if plain or tag not in _COLOURS else (_COLOURS[tag], "\033[0m")
    _to_stderr(f"{colour}{tag}:{end} {line}")


def finite(value: Any) -> Any:
    """NaN and infinity are not JSON."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_names: Sequence[str] = ()
_everything = False


@contextmanager
def naming(names: Sequence[str]) -> Iterator[None]:
    """While it lasts, `picture 0` in the library's warnings is the first of `names`.

    Which of them diverged is not said here: the verb says it, with what was not written.
    """
    global _names
    before, _names = _names, names
    try:
        yield
    finally:
        _names = before


@contextmanager
def listening(everything: bool = False) -> Iterator[None]:
    """Show the library's warnings as lines, each once; other libraries' chatter only when everything is wanted."""
    global _everything
    before, _everything = _everything, everything
    seen: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, OutOfDomainWarning) and not everything:
            return  # the verb has said it, with the file's name
        told = message if isinstance(message, UnsampleWarning) else None
        if told is not None and told.kind == "diverged" and _names:
            return  # the verb says it
        ours = issubclass(category, UserWarning) and Path(filename).resolve().is_relative_to(_PACKAGE)
        if not ours and not everything:
            return
        text = str(message) if told is None else told.told(_names)
        if text not in seen:
            seen.add(text)
            warn(text if ours else f"{text} ({category.__name__}, {filename})")

    if not everything:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            yield
    finally:
        _everything = before


def hears_everything() -> bool:
    """Whether other libraries may speak too (--debug)."""
    return _everything
