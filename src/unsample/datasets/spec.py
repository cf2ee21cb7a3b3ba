"""The text that names a data set: `NAME[:FIRST][,key=value]...`, taken apart and checked; and the table's facts.

FIRST is a count for pictures that are made and a path for those that are read; a path may hold commas, as long as
what follows them is no `key=value`. A few words stand alone (`ood`). Every mistake says what could have been meant.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption, unknown_name

if TYPE_CHECKING:
    from unsample.datasets.item import Dataset


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """One row of `DATASETS`."""

    name: str
    summary: str
    opens: Callable[[Spec, int], Dataset]  # the spec, and the side in pixels of what is rendered
    first: str  # what stands after the colon: a count, a folder ...
    takes_path: bool  # FIRST is a path, and must be given
    example: str
    options: Mapping[str, str]  # key to what it takes, in the order in which a spec is written
    flags: tuple[str, ...] = ()  # options that are a word without a value
    has: tuple[str, ...]  # of an item's fields, those that can be known
    layout: str  # how its files lie
    reference: str
    licence: str

    def told(self) -> dict[str, Any]:
        """A row of the table, for JSON."""
        kept = ("name", "summary", "first", "example", "layout", "reference", "licence")
        return {**{k: getattr(self, k) for k in kept}, "has": list(self.has), "options": dict(self.options)}


@dataclass(frozen=True)
class Spec:
    """A data set as it was asked for; the options are known names, their values still texts."""

    facts: DatasetFacts
    first: str | None
    options: Mapping[str, str]  # a word that stands alone has the value ""

    @property
    def limit(self) -> int | None:
        """The most items that are wanted."""
        return self.whole("limit", None, low=1)

    def whole(self, key: str, default: int | None, low: int) -> int | None:
        """An option that is a whole number."""
        return default if key not in self.options else self._whole(f"{key}=", self.options[key], low)

    def count(self, default: int) -> int:
        """FIRST as a count, cut by `limit`."""
        count = default if self.first is None else self._whole("", self.first, 1)
        return count if self.limit is None else min(count, self.limit)

    def number(self, key: str, default: float) -> float:
        """An option that is a number of at least 0."""
        text = self.options.get(key)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise BadOption(f"{self.facts.name}: {key}= takes a number of at least 0; got {text!r}")
        return value

    def choice(self, key: str, default: str, known: Iterable[str]) -> str:
        """An option that is one of some names."""
        value = self.options.get(key, default)
        if value not in (names := list(known)):
            raise unknown_name(f"{key} of {self.facts.name}", value, names)
        return value

    def several(self, key: str, default: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
        """An option that is some names, joined by +, each once."""
        found = [name.strip() for name in self.options[key].split("+")] if key in self.options else list(default)
        names = list(known)
        for name in found:
            if name not in names:
                raise unknown_name(f"{key} of {self.facts.name}", name, names)
        if twice := [name for name in names if found.count(name) > 1]:
            raise BadOption(f"{self.facts.name}: {key}= names {', '.join(twice)} twice; give each once")
        return tuple(found)

    def path(self, kind: str) -> Path:
        """FIRST as a path that is there; `kind` is folder, file, or any.

        Raises:
            BadInput: nothing there, or the other kind.
        """
        assert self.first is not None
        return existing(self.first, kind, self.facts.name)

    def written(self, first: object = None, *, leave: Iterable[str] = (), **more: object) -> str:
        """The spec again, normalised: options in the order of the table, some left out, some given anew."""
        anew = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in more.items()}
        options = {key: value for key, value in {**self.options, **anew}.items() if key not in leave}
        parts = [f"{key}={options[key]}" if options[key] else key for key in self.facts.options if key in options]
        return ",".join([f"{self.facts.name}:{self.first if first is None else first}", *parts])

    def _whole(self, key: str, text: str, low: int) -> int:
        value = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else low - 1
        if value < low:
            takes = f"{key} takes" if key else f"a count ({self.facts.example}) is"
            raise BadOption(f"{self.facts.name}: {takes} a whole number of at least {low}; got {text!r}")
        return value


def read_spec(text: str, table: Mapping[str, DatasetFacts]) -> Spec:
    """A spec, taken apart.

    Raises:
        UnknownName: no such data set or option.
        BadOption: anything else that cannot be.
    """
    name, colon, rest = text.strip().partition(":")
    if not colon and "," in name:  # scenes,split=tune
        name, _, rest = name.partition(",")
    if name not in table:
        raise unknown_name("data set", name, table)
    facts = table[name]
    first: list[str] = []
    options: dict[str, str] = {}
    for place, part in enumerate(rest.split(",") if rest else []):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        opens_path = facts.takes_path and not first and key not in facts.options  # a path may hold an equals sign
        if equals and not opens_path and re.fullmatch(r"\w+", key):
            _add(options, key, value, facts)
        elif part.strip() in facts.flags:
            _add(options, part.strip(), "", facts)
        elif not options and (facts.takes_path or place == 0):
            first.append(part)
        else:
            raise BadOption(f"{name}: {part!r} is not key=value; options are {', '.join(facts.options)}")
    joined = ",".join(first).strip() or None
    if facts.takes_path and joined is None:
        raise BadOption(f"{name} needs {facts.first}: for example {facts.example}")
    return Spec(facts, joined, options)


def existing(text: str, kind: str, name: str) -> Path:
    """A path given by the user.

    Raises:
        BadInput: nothing there, or a file in place of a folder, or a folder in place of a file.
    """
    path = Path(text).expanduser()
    try:
        there, is_folder = os.path.lexists(path), path.is_dir()
        readable = not there or os.access(path, os.R_OK | (os.X_OK if is_folder else 0))
    except (OSError, ValueError) as error:  # a name that is too long, a NUL character
        raise BadInput(f"{name}: {text!r} cannot be opened: {error}; check the path") from error
    if not there:
        raise BadInput(f"{name}: {text!r} is not there; check the path ('unsample datasets {name}' shows the layout)")
    if not readable:
        raise BadInput(f"{name}: {text!r} may not be read; check its permissions")
    if kind == "folder" and not is_folder:
        raise BadInput(f"{name}: {text!r} is a file, a folder is wanted; 'unsample datasets {name}' shows the layout")
    if kind == "file" and not path.is_file():
        raise BadInput(f"{name}: {text!r} is no file; 'unsample datasets {name}' shows the layout")
    return path


def _add(options: dict[str, str], key: str, value: str, facts: DatasetFacts) -> None:
    if key not in facts.options:
        raise unknown_name(f"option of {facts.name}", key, facts.options)
    if (key in facts.flags) != (value == ""):
        takes = (
            "stands alone, without a value" if key in facts.flags else f"takes {facts.options[key]}, and got nothing"
        )
        raise BadOption(f"{facts.name}: {key} {takes}; for example {facts.example}")
    if key in options:
        raise BadOption(f"{facts.name}: {key} was given twice; give it once")
    options[key] = value
