"""Data sets of files: rows looked at once, cheaply, and opened when they are asked for. Broken ones are kept apart.

An index file is others' text: what it names must lie inside the data set's folder.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from unsample.datasets.item import Item
from unsample.datasets.spec import existing
from unsample.errors import BadInput
from unsample.numeric import is_text

if TYPE_CHECKING:
    from unsample.media.masks import Mask
    from unsample.media.pictures import Picture

SHOWN = 3  # broken rows in one message

Raw = TypeVar("Raw")
Row = TypeVar("Row")


@dataclass(frozen=True)
class Rows(Generic[Row]):
    """A data set of rows. `read` is a module's function, or a partial of one, so that a data set can be pickled."""

    spec: str
    ids: Sequence[str]
    rows: Sequence[Row]
    broken: Sequence[tuple[str, str]]
    read: Callable[[str, Row], Item]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, k: int) -> Item:
        return self.read(self.ids[k], self.rows[k])

    def picked(self, places: Sequence[int]) -> Rows[Row]:
        """Some of its items, as a data set of their own."""
        return replace(self, ids=[self.ids[k] for k in places], rows=[self.rows[k] for k in places], broken=())

    def stamp(self, k: int) -> str:
        """What tells, without opening the picture, whether an item is still what it was: texts, and of files name, size
        and time of change."""
        row = self.rows[k]
        return getattr(row, "stamp", None) or hashlib.sha256(json.dumps(_stamped(row)).encode()).hexdigest()


def gather(
    spec: str,
    raws: Iterable[tuple[str, Raw]],
    check: Callable[[Raw], Row],
    read: Callable[[str, Row], Item],
    limit: int | None = None,
) -> Rows[Row]:
    """Look at rows in their order, up to `limit` good ones.

    Args:
        spec: normalised.
        raws: id and what the index holds.
        check: makes the row of it, or raises `BadInput`: broken.
        read: makes the item of a row.
        limit: the most items.

    Raises:
        BadInput: no row is good.
    """
    good: dict[str, Row] = {}
    broken: list[tuple[str, str]] = []
    for id, raw in raws:
        if len(good) == limit:
            break
        try:
            row = check(raw)
            if id in good:
                raise BadInput("another row has this id; the first one counts")
            good[id] = row
        except BadInput as error:
            broken.append((id, str(error)))
    if not good:
        raise BadInput(f"{spec}: {_none(broken)}")
    return Rows(spec, tuple(good), tuple(good.values()), tuple(broken), read)


def _none(broken: Sequence[tuple[str, str]]) -> str:
    if not broken:
        return "there are no rows in it; check the path, and what lies there"
    few = "; ".join(f"{id}: {reason}" for id, reason in broken[:SHOWN])
    more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    return f"none of its {len(broken)} rows can be used: {few}{more}"


def _stamped(value: Any) -> Any:
    """As JSON; a file by its name, size and time of change."""
    if is_dataclass(value):
        return [_stamped(getattr(value, f.name)) for f in fields(value)]
    if callable(value):
        return value.__qualname__
    if not isinstance(value, Path):
        return value if value is None or isinstance(value, int | float) else str(value)
    try:
        about = os.stat(value)
    except OSError:
        return [value.name, None]
    return [value.name, about.st_size, about.st_mtime_ns]


def files_at(text: str, suffix: str, name: str) -> list[Path]:
    """The files that a path means: itself, those of a folder, or those that a pattern such as `part-*.tar` matches.

    Raises:
        BadInput: there are none.
    """
    folder = Path(text).expanduser()
    if glob.has_magic(text) and not os.path.lexists(folder):
        found = [Path(file) for file in sorted(glob.glob(str(folder), recursive=True))]
    else:
        there = existing(text, "any", name)
        found = sorted(there.glob(f"*{suffix}")) if there.is_dir() else [there]
    found = [file for file in found if file.is_file() and file.suffix.lower() == suffix]
    if not found:
        raise BadInput(f"{name}: {text!r} is no {suffix} file, no folder of some and no pattern of their names")
    return found


def safe_id(text: str) -> str:
    """An id of letters, digits, dot, hyphen and underscore: the text itself, or what is left of it and a hash."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", text):
        return text
    left = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[-60:]
    try:
        content = os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair, which no file name holds
        content = text.encode("utf-8", "surrogatepass")
    return f"{left or 'item'}-{hashlib.sha256(content).hexdigest()[:8]}"


def file_ids(names: Sequence[str]) -> list[str]:
    """Ids for file names or paths inside a folder: without their suffix, where that tells them apart."""
    stems = [os.path.splitext(name)[0] for name in names]
    files: dict[str, set[str]] = {}
    for stem, name in zip(stems, names, strict=True):
        files.setdefault(stem, set()).add(name)
    return [safe_id(s if len(files[s]) == 1 else n) for s, n in zip(stems, names, strict=True)]


def inside(folder: Path, name: object) -> Path:
    """The file that an index names, which must be inside the folder, links followed.

    Raises:
        BadInput: no name, one that leads out of the folder, or no such file.
    """
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"it names no file, but {name!r}")
    try:
        about = os.stat(folder)
        base = _real(os.fspath(folder), about.st_dev, about.st_ino)
        name = slashed(name, base)
        found = _below(base, name) or os.path.realpath(os.path.join(base, name))
        absolute = os.path.isabs(name) or re.match(r"[A-Za-z]:[\\/]|[\\/]", name)
        if absolute or not found.startswith(os.path.join(base, "")):
            raise BadInput(f"{name!r} leads out of the data set's folder, which is not followed")
        if not os.path.isfile(found):
            raise BadInput(f"there is no file {name!r} in the data set's folder")
    except (OSError, ValueError) as error:  # a NUL character, a loop of links
        raise BadInput(f"{name!r} is no file name: {error}") from error
    return Path(found)


@lru_cache(maxsize=8)
def _real(folder: str, device: int, number: int) -> str:
    """A folder, links followed; as long as it is the same one."""
    return os.path.realpath(folder)


def _below(base: str, name: str) -> str | None:
    """The path of a name without links or dots on its way, which needs no more looking; None where it has some."""
    path = base
    for part in name.split("/"):
        path = f"{path}/{part}"
        if part in ("", ".", "..") or "\0" in part or os.sep != "/" or os.path.islink(path):
            return None
    return path


def slashed(name: str, folder: str | os.PathLike[str]) -> str:
    """A path of an index with the slashes of this system; a file whose very name holds a backslash keeps it."""
    if "\\" not in name or os.path.lexists(os.path.join(folder, name)):
        return name
    return name.replace("\\", "/")


def text(row: Mapping[str, Any], key: str) -> str | None:
    """A text of a row, or None where there is none.

    Raises:
        BadInput: it is something else.
    """
    value = row.get(key)
    if isinstance(value, bytes):
        raise BadInput(f"{key} is no text in UTF-8")
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{key} is a {type(value).__name__}, not a text")
    if value and not is_text(value):
        raise BadInput(f"{key} holds half a letter (an unpaired surrogate); save it as UTF-8")
    return value.strip() or None if value else None


def needed(row: Mapping[str, Any], key: str) -> str:
    """A text that a row must have."""
    value = text(row, key)
    if value is None:
        raise BadInput(f"it has no {key}")
    return value


def noted(picture: Picture, mask: Mask | None = None) -> dict[str, Any]:
    """What was done to a picture to bring it to 8-bit RGB, what was taken as its mask, and what its file says of how it
    was made, for `Item.extra`."""
    notes = [*picture.notes, *(f"mask: {note}" for note in (mask.notes if mask else ()))]
    return ({"notes": notes} if notes else {}) | ({"metadata": picture.metadata} if picture.metadata else {})
