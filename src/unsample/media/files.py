"""Writing files so that a half-written one is never seen.

A file is written beside its place under a temporary name, flushed to the disk, and then moved over in one step
(`os.replace`), so that a full disk, an error or Ctrl-C leaves the old file or none. Whatever the system says
becomes `BadInput`: what was to be written, what is in the way, what to do.

A name that stands in a file is somebody else's word: `inside` and `open_inside` hold it to one folder and follow no
link.

A table goes out as CSV through `as_csv` alone, which keeps spreadsheets from running what a text says.

Settings that are kept in a file pass through `plain_settings`: JSON's own types, and no folder of the user's.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from unsample.errors import BadInput

_FILE_KEYS = frozenset({"input", "output", "path", "inversion", "reconstruction", "edit"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # the wide ones too, in the East
_NUMBER = re.compile(r"-(\d+\.?\d*(e[-+]?\d+)?|inf)", re.ASCII)  # as Python writes one
_PICTURES = (".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")  # a folder of such a name is not meant
_FULL = ("the disk is full", "free some space or choose another folder")
_FORBIDDEN = ("it may not be written to", "choose another folder, or change its permissions")
_CAUSES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: ("the file would be larger than is allowed here", "choose another disk or raise the limit"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.ENOENT: ("its folder does not exist", "create the folder first, or choose another"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "choose another folder"),
    errno.EEXIST: ("it is a file, not a folder", "choose another folder"),
    errno.ENAMETOOLONG: ("its name is too long", "choose a shorter one"),
}


def atomic_write(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file in the folder of `path`, then move it to `path` in one step.

    Args:
        path: where the file shall be; an ordinary file there is replaced and its permissions are kept. A link is
            replaced itself; what it points to stays as it is.
        write: called once with the temporary path, an empty file that exists already and ends in `.tmp`.

    Raises:
        BadInput: when the system refuses (no folder, no space, read-only ...), or `path` is a folder or a device.
    """
    target = Path(path)
    try:
        mode = _check_replaceable(target)
        temporary = target.with_name(_temporary_name())
        try:
            os.close(_create(temporary, 0o666 if mode is None else mode & 0o666 | stat.S_IWUSR))
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            if mode is not None and stat.S_IMODE(temporary.stat().st_mode) != mode:
                temporary.chmod(mode)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def check_writable_folder(path: str | os.PathLike[str]) -> Path:
    """Create the folder when it is missing, and write a small file there to be sure; returns the folder.

    Permission bits are not asked: they say nothing to root, on a read-only disk or on a full one.
    """
    if not os.fspath(path):
        raise BadInput("cannot write to a folder without a name; give one, for example 'out'")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / _temporary_name()
        try:
            with open(_create(probe), "wb") as file:
                file.write(bytes(4096))  # an empty file can be made on a full disk
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise cannot_write(path, error, kind="folder") from error
    return folder


class Outside(BadInput):
    """A name in a file leads out of the folder that it must stay in."""


def name_parts(name: object) -> list[str]:
    """The parts of a file's name as a file gives it: relative, with forward slashes, leading nowhere else.

    Raises:
        Outside: it is absolute, has a drive or `..` in it. BadInput: it is no such name.
    """
    said = f"{str(name)[:100]!r}"
    if not isinstance(name, str) or not name:
        raise BadInput(f"{said} is no name of a file")
    if re.match(r"[/\\]|[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise Outside(f"{said} leads out of its folder, which is not followed")
    parts = name.split("/")
    if re.search(r"[\\\x00-\x1f\x7f\ud800-\udfff]", name) or any(part in ("", ".") for part in parts):
        raise BadInput(f"{said} is no name of a file: plain parts with forward slashes between them are wanted")
    return parts


def inside(folder: str | os.PathLike[str], name: object) -> Path:
    """Where in a folder a file lies that another file names; it need not be there yet.

    Args:
        folder: it may be a link itself: the user named it.
        name: as `name_parts` takes it. Links are looked for now; whoever changes the folder between
            this call and the next is not guarded against.

    Raises:
        Outside: the name is absolute, has a drive or `..` in it, or goes through a link.
        BadInput: it is no such name, or something else than a file or folder lies there.
    """
    parts, said = name_parts(name), f"{str(name)[:100]!r}"
    place = Path(folder)
    for number, part in enumerate(parts, 1):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            break
        except OSError as error:
            raise BadInput(f"{said} cannot be looked at: {error.strerror or error}") from error
        if stat.S_ISLNK(mode):
            raise Outside(f"{said} goes through a link, which is not followed")
        if not (stat.S_ISREG(mode) if number == len(parts) else stat.S_ISDIR(mode)):
            raise BadInput(f"{said} is no ordinary file")
    return Path(folder, *parts)


def open_inside(folder: str | os.PathLike[str], name: object) -> io.BufferedReader:
    """The same file, opened for reading.

    Raises:
        FileNotFoundError: there is none. BadInput, Outside: as `inside`, or it cannot be read.
    """
    place = inside(folder, name)
    try:
        return os.fdopen(_open_itself(place, os.O_RDONLY), "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadInput(f"{name!r} cannot be read: {error.strerror or error}") from error


def lock(folder: str | os.PathLike[str], name: str, wait: bool) -> IO[bytes] | None:
    """A lock that goes with its process or the file's closing; what stands in the file is left alone.

    Args:
        folder: where it lies.
        name: of the file; made when missing, opened as it is, never through a link.
        wait: until another process lets go of it.

    Returns:
        The open file, or None where another process has it and `wait` is false. Without `fcntl` (Windows) nothing is
        locked.

    Raises:
        BadInput, Outside: it cannot be opened, is a link or no ordinary file.
    """
    place = inside(folder, name)
    try:
        file = os.fdopen(_open_itself(place, os.O_RDWR | os.O_CREAT), "rb+")
    except OSError as error:
        raise cannot_write(place, error) from error
    try:
        import fcntl
    except ImportError:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        file.close()
        return None
    return file


def cannot_write(path: str | os.PathLike[str], error: Exception, kind: str = "file") -> BadInput:
    """The `BadInput` for a failed write: which path, what was in the way, what to do."""
    code = error.errno if isinstance(error, OSError) else None
    found, advice = _CAUSES.get(code or 0, (str(error) or type(error).__name__, "choose another path"))
    return BadInput(f"cannot write {kind} {os.fspath(path)!r}: {found}; {advice}")


def numbered(names: Sequence[str], key: Callable[[str], str] = str) -> list[str]:
    """The names, of which equal ones get -2, -3 ... where no other has that; `key` tells which are equal."""
    taken, reached, found = {key(name) for name in names}, dict.fromkeys(map(key, names), 0), []
    for name in names:
        number = reached[key(name)] + 1
        while number > 1 and key(f"{name}-{number}") in taken:
            number += 1
        reached[key(name)] = number  # so that many equal ones cost no search
        found.append(name if number == 1 else f"{name}-{number}")
        taken.add(key(found[-1]))
    return found


def free_stems(names: Sequence[str]) -> list[str]:
    """A stem for each name; a file system may not tell cases apart."""
    return numbered(names, str.casefold)


def png_files(output: str | os.PathLike[str], stems: Sequence[str], name: str = "") -> list[Path]:
    """Where pictures go: `output` ends in .png (several become STEM-2.png ...), or it is a folder for STEM.png of each.

    Args:
        output: need not exist.
        stems: one a picture, for a folder.
        name: of the option, for messages.

    Raises:
        BadInput: a name of another kind of picture, or a file that is no PNG.
    """
    path = Path(output)
    if path.suffix.lower() == ".png" and not os.path.isdir(path):
        return [path.with_name(f"{stem}{path.suffix}") for stem in free_stems([path.stem] * len(stems))]
    said = f"{name} {os.fspath(output)!r}".lstrip()
    if path.suffix.lower() in _PICTURES and not os.path.isdir(path):
        raise BadInput(f"{said}: only PNG is written; give {path.stem}.png, or a folder")
    if os.path.isfile(path):
        raise BadInput(f"{said} is a file that is no PNG; give a folder, or a name that ends in .png")
    return [path / f"{stem}.png" for stem in free_stems(stems)]


def plain_settings(settings: Mapping[str, Any], max_bytes: int | None = None) -> dict[str, Any]:
    """Settings as JSON takes them: numbers that are not finite become None, file names lose their folders.

    A file name is a `Path`, a text under one of the keys input, output, path, inversion, reconstruction and edit,
    or a `model` that is a local path rather than a name or a hub id. With `max_bytes` long texts are shortened
    until the JSON fits, and `"shortened": true` says so.
    """
    plain = {str(key): _plain(value, str(key)) for key, value in settings.items()}
    if max_bytes is None:
        return plain
    for limit in (8000, 2000, 400, 0):
        if len(as_json(plain).encode("utf-8", "replace")) <= max_bytes:
            return plain
        plain = {**_shortened(plain, limit), "shortened": True}
    return {"shortened": True}  # not texts but endless lists: nothing that a picture should carry


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], raw: bool = False) -> str:
    """A table as CSV, with a line of names; what a row lacks and None are empty.

    A text that a spreadsheet would run as a formula (it begins with =, +, -, @, a tab or a new line, and is no number)
    gets an apostrophe before it, unless `raw`. What UTF-8 cannot hold is written as an escape.
    """
    lines: list[str] = []
    ended = SimpleNamespace(write=lambda line: lines.append(line[:-2] + "\n"))
    writer = csv.writer(ended, lineterminator="\r\n")  # so that a cell with either of the two is quoted
    writer.writerow([_cell(name, raw) for name in columns])
    writer.writerows([_cell(row.get(name), raw) for name in columns] for row in rows)
    return "".join(lines).encode("utf-8", "backslashreplace").decode()


def _cell(value: Any, raw: bool) -> Any:
    harmless = raw or not isinstance(value, str) or not value.startswith(_FORMULA) or _NUMBER.fullmatch(value)
    return value if harmless else f"'{value}"


def as_json(plain: Mapping[str, Any]) -> str:
    """JSON as every reader knows it: no NaN, letters as they are."""
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def base_name(text: str) -> str:
    """The last part of a path, whichever way its slashes lean."""
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1]


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, os.PathLike):
        return base_name(os.fspath(value))
    if isinstance(value, str):
        is_file = key in _FILE_KEYS or (key == "model" and re.match(r"[/\\~.]|[A-Za-z]:[/\\]", value))
        return base_name(value) if is_file else value
    if isinstance(value, Mapping):
        return plain_settings(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, key) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):  # numpy's too
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return str(value)


def _shortened(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= limit else value[:limit] + "…"
    if isinstance(value, dict):
        return {key: _shortened(item, limit) for key, item in value.items()}
    return [_shortened(item, limit) for item in value] if isinstance(value, list) else value


def _check_replaceable(target: Path) -> int | None:
    """Refuse a folder, and a device or pipe: `os.replace` would put an ordinary file in place of /dev/null.

    Returns:
        The permissions of the file that is there; None where there is none.
    """
    if not target.name:
        raise BadInput(f"cannot write file {str(target)!r}: it is a folder; add a file name to it")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    except ValueError as error:  # a NUL character in the path
        raise cannot_write(target, error) from error
    if stat.S_ISDIR(mode):
        raise BadInput(f"cannot write file {str(target)!r}: it is a folder; add a file name to it")
    if not stat.S_ISREG(mode):
        raise BadInput(f"cannot write file {str(target)!r}: it is a device or a pipe; give an ordinary path")
    return mode & 0o777


def _temporary_name() -> str:
    return f".unsample-{secrets.token_hex(6)}.tmp"


def _create(path: Path, mode: int = 0o666) -> int:
    """A new file with the user's usual permissions (`tempfile` would make it readable by its owner alone)."""
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), mode)


def _open_itself(path: Path, flags: int) -> int:
    """Open a file, not what it links to, and without waiting for the other end of a pipe."""
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    return os.open(path, flags, 0o666)
