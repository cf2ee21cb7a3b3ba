"""Index files of others, read a row at a time: JSON, JSON lines, CSV and Parquet. What is too large is refused.

Columns are found by their names, whatever the blanks and capitals in them.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

from unsample.datasets.limits import MAX_BYTES, capped
from unsample.errors import BadInput

MAX_JSON = 128 * 2**20  # of a JSON file, whose text stays in memory while it is read
MAX_LINE = 2**20  # letters of a JSON line
MAX_COLUMNS = 1000  # that are told of
BEYOND = ""  # the column of cells for which there is no name
LONG = 40  # digits of a number that stays whole; one that is longer is a float

Kin = Mapping[str, Sequence[str]]  # our name of a column to the names that files have for it, the first of them best
Row = dict[str, Any]
Seen = dict[str, str | None]  # the columns that were seen, in order, and what we call them
T = TypeVar("T")


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a key that stands there twice is seen."""


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= LONG else float(digits)


_BLANKS = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_int=_whole)


@contextmanager
def opened(path: Path, most: int = MAX_BYTES, newline: str | None = "") -> Iterator[IO[str]]:
    """A text file, to be read inside.

    Raises:
        BadInput: it cannot be read, is over `most` bytes, or is not UTF-8.
    """
    try:
        if (size := path.stat().st_size) > most:
            raise BadInput(f"{str(path)!r} has {size / 2**20:.0f} MB, the limit is {most // 2**20} MB; split it")
        with open(path, "rb") as raw:
            head = raw.read(4)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
            raise BadInput(f"{str(path)!r} is text in UTF-16, as Excel's 'Unicode Text' is; save it as 'CSV UTF-8'")
        if head in (b"PK\3\4", b"\xd0\xcf\x11\xe0"):
            raise BadInput(f"{str(path)!r} is a spreadsheet or an archive, not a text; save it as 'CSV UTF-8'")
        with open(path, encoding="utf-8-sig", newline=newline) as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{str(path)!r} cannot be read as text: {error}; save it as UTF-8") from error


# ---------------------------------------------------------------- JSON


class Json:
    """A JSON text, read value by value. What is no JSON raises ValueError or RecursionError (see `read_json`)."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def peek(self) -> str:
        """The next letter that is no blank."""
        self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
        return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """The next value, whole; objects come as `Pairs`."""
        self.peek()
        found, self._at = _DECODER.raw_decode(self._text, self._at)
        return found

    def keys(self) -> Iterator[str]:
        """The keys of the object that is next; before going on, its value must be taken."""
        for _ in self._members("{}"):
            if not isinstance(key := self.value(), str):
                raise json.JSONDecodeError("a name of a property must be a text", self._text, self._at)
            self._take(":")
            yield key

    def elements(self) -> Iterator[Any]:
        """The elements of the list that is next."""
        return (self.value() for _ in self._members("[]"))

    def end(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise json.JSONDecodeError("something follows the end", self._text, self._at)

    def _members(self, ends: str) -> Iterator[None]:
        self._take(ends[0])
        comma = False
        while comma or self.peek() != ends[1]:
            yield
            if comma := self.peek() == ",":
                self._take(",")
            elif self.peek() != ends[1]:
                break
        self._take(ends[1])

    def _take(self, letter: str) -> None:
        if self.peek() != letter:
            raise json.JSONDecodeError(f"{letter!r} is missing", self._text, self._at)
        self._at += 1


@contextmanager
def read_json(path: Path) -> Iterator[Json]:
    """A JSON file, to be read inside.

    Raises:
        BadInput: it is not JSON, or over 128 MB.
    """
    with opened(path, MAX_JSON) as file:
        text = file.read()
    try:
        yield Json(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{str(path)!r} is not JSON: {error}; get the file again") from error


# ---------------------------------------------------------------- tables


def fold(name: str) -> str:
    """A column's name without what is no part of it: blanks around it, capitals, a mark; blanks inside are lines."""
    return re.sub(r"[\s-]+", "_", name.strip("\ufeff \t\r\n")).casefold()


def find_columns(columns: Iterable[str], kin: Kin, where: str) -> dict[str, str]:
    """Our names for the columns that are there, to theirs.

    Raises:
        BadInput: two columns are one but for blanks and capitals.
    """
    there: dict[str, list[str]] = {}
    for name in columns:
        there.setdefault(fold(name), []).append(name)
    found = {ours: next((there[n] for n in names if n in there), []) for ours, names in kin.items()}
    for theirs in found.values():
        if len(theirs) > 1:
            raise BadInput(
                f"{where} has the columns {' and '.join(map(repr, theirs))}, which are one; rename one of them"
            )
    return {ours: theirs[0] for ours, theirs in found.items() if theirs}


def read_table(path: Path, kin: Kin) -> list[Row | BadInput]:
    """The rows of a table (.csv, .tsv, .txt, .parquet, else JSON lines) by our names; of one that is none, the reason.

    A CSV has a line of names; commas, semicolons and tabs are told apart by it. A cell is None where it is empty. It
    is warned of columns that are not known, where only the first of `kin` is, or where one is misspelled.

    Raises:
        BadInput: it cannot be read at all, or lacks the first column of `kin`.
    """
    kind = path.suffix.lower()
    seen: Seen = {}
    made = _parquet if kind == ".parquet" else _csv if kind in (".csv", ".tsv", ".txt") else _json_lines
    rows = list(capped(made(path, kin, seen), path, "split it"))
    if seen and next(iter(kin)) not in seen.values():
        there, known = ", ".join(sorted(map(str.strip, seen))), ", ".join(kin)
        raise BadInput(f"{str(path)!r} has no column {next(iter(kin))!r}; found {there}; known are {known}")
    if said := _left_alone(kin, seen):
        warnings.warn(f"{path.name}: {said}", stacklevel=3)
    return rows


def _left_alone(kin: Kin, seen: Seen) -> str:
    """What is to be said of columns that may have been meant."""
    found = {ours: theirs for theirs, ours in seen.items() if ours}
    missing = {name: ours for ours, names in kin.items() if ours not in found for name in names}
    left = [name for name, ours in seen.items() if not ours and name.strip()]
    if left and len(found) == 1:
        return f"of its columns only {next(iter(kin))!r} is known, not {', '.join(left)}; known are {', '.join(kin)}"
    beside = {n: ours for n in left for ours, names in kin.items() if fold(n) in names}
    near = {n: m[0] for n in left if (m := difflib.get_close_matches(fold(n), missing, n=1, cutoff=0.8))}
    return "; ".join(
        [f"column {n!r} is left alone, {found[ours]!r} is taken for {ours}" for n, ours in beside.items()]
        + [f"column {n!r} is not known; did you mean {meant!r}?" for n, meant in near.items()]
    )


def _see(seen: Seen, columns: Iterable[str], found: Mapping[str, str]) -> None:
    taken = {theirs: ours for ours, theirs in found.items()}
    for name in columns:
        if name in seen or len(seen) < MAX_COLUMNS:
            seen[name] = seen.get(name) or taken.get(name)


def _picked(found: Mapping[str, str], columns: Sequence[str], cells: Sequence[Any]) -> Row:
    row = dict(zip(columns, cells, strict=False))
    texts = {ours: row.get(theirs) for ours, theirs in found.items()}
    return {ours: value.strip() or None if isinstance(value, str) else value for ours, value in texts.items()}


def _csv(path: Path, kin: Kin, seen: Seen) -> Iterator[Row | BadInput]:
    with opened(path) as file:
        try:
            head = next((line for line in file if line.strip()), "")
            told = re.fullmatch(r'"?sep=(.)"?\s*', head)  # Excel's own way to say it
            lines = file if told else chain([head], file)
            cut = told[1] if told else _separator(head, kin)
            reader = csv.reader(lines, delimiter=cut, strict=True, skipinitialspace=cut != "\t")
            columns = next(reader, [])
            found = find_columns(columns, kin, path.name)
            _see(seen, columns, found)
            for cells in reader:
                if more := [cell for cell in cells[len(columns) :] if cell.strip()]:
                    yield _picked(found, columns, cells) | {BEYOND: more}
                elif any(cell.strip() for cell in cells):
                    yield _picked(found, columns, cells)
        except csv.Error as error:
            raise BadInput(f"{str(path)!r} is not CSV: {error}; save it anew, with commas and double quotes") from error


def _separator(head: str, kin: Kin) -> str:
    """The letter that makes most of a line of names: most known ones, then most at all."""

    def names(letter: str) -> tuple[int, int]:
        columns = next(csv.reader([head], delimiter=letter), [])
        return sum(fold(c) in names for c in columns for names in kin.values()), len(columns)

    return max((",", ";", "\t"), key=names)


def _json_lines(path: Path, kin: Kin, seen: Seen) -> Iterator[Row | BadInput]:
    before: list[str] = []  # the columns of the line before, mostly the same
    found: dict[str, str] = {}
    with opened(path, newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                if len(line) > MAX_LINE:
                    raise BadInput(f"line {number} is over {MAX_LINE // 2**20} MB")
                pairs = _DECODER.decode(line)
                if not isinstance(pairs, Pairs):
                    raise BadInput(f"line {number} is no JSON object")
                columns = [key for key, _ in pairs]
                if columns != before:
                    before, found = [], find_columns(columns, kin, f"line {number}")
                    _see(seen, columns, found)
                    before = columns
                yield _picked(found, columns, [value for _, value in pairs])
            except BadInput as error:
                yield error
            except (ValueError, RecursionError) as error:
                yield BadInput(f"line {number} is not JSON: {error}")


def _parquet(path: Path, kin: Kin, seen: Seen) -> Iterator[Row | BadInput]:
    from unsample.datasets.parquet import columns_of, tables_in, texts_of

    files = tables_in(path, path.name)
    columns = columns_of(files)
    found = find_columns(columns, kin, path.name)
    _see(seen, columns, found)
    chosen = list(found.values())
    for _, cells in texts_of(files, chosen):
        yield _picked(found, chosen, [cells[name] for name in chosen])
