"""Files in and out, checked before any work: every input is opened, every output name is free, nothing is written."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unsample.errors import BadInput, BadOption
from unsample.media.files import cannot_write, check_writable_folder
from unsample.media.files import free_stems as free_stems
from unsample.preflight.rules import check_needs_trajectory

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.media.pictures import Picture
    from unsample.methods import Method
    from unsample.verbs.provenance import Provenance

Checked = TypeVar("Checked")
SHOWN = 3  # bad files named in one message


@dataclass(frozen=True)
class Source:
    """A picture file that can be read; its pixels are read again when their turn comes, so that many files fit."""

    path: str
    name: str
    size: tuple[int, int]
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def open(self) -> Picture:
        """The picture."""
        from unsample.media.pictures import open_picture

        return open_picture(self.path)


@dataclass(frozen=True)
class Recorded:
    """A saved inversion whose header is sound."""

    path: str
    header: dict[str, Any]

    @property
    def meta(self) -> Provenance:
        """How it was made."""
        return self.header["meta"]  # type: ignore[no-any-return]

    @property
    def count(self) -> int:
        """How many pictures it holds."""
        return len(self.header["status"])

    def text(self, name: str, index: int = 0) -> str | None:
        """A recorded prompt."""
        values = self.meta.get(name)
        return values[index] if isinstance(values, list) and len(values) > index else None


def expanded(paths: Sequence[str]) -> list[str]:
    """File names, with the files of a pattern such as `*.jpg` in the place of one that no shell has expanded.

    Raises:
        BadInput: a pattern that nothing matches.
    """
    found: list[str] = []
    for path in paths:
        if not glob.has_magic(path) or os.path.lexists(path):
            found.append(path)
            continue
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise BadInput(f"no file matches the pattern {path!r}; check the folder and the ending of the names")
        found += matches
    return found


def the_one(path: str) -> str:
    """The same of an argument that is one file.

    Raises:
        BadInput: nothing, or more than one file.
    """
    found = expanded([path])
    if len(found) > 1:
        raise BadInput(
            f"the pattern {path!r} matches {len(found)} files, and one is wanted: {', '.join(found[:SHOWN])}"
        )
    return found[0]


def open_pictures(paths: Sequence[str]) -> list[Source]:
    """All pictures, or `BadInput` naming those that cannot be used."""

    def look(path: str) -> Source:
        from unsample.media.pictures import open_picture

        picture = open_picture(path)
        return Source(path, picture.name, picture.pixels.size, picture.notes, picture.metadata)

    return _all(paths, look)


def open_inversions(paths: Sequence[str]) -> list[Recorded]:
    """All inversions' headers, or `BadInput` naming those that cannot be used."""

    def look(path: str) -> Recorded:
        from unsample.media.pictures import starts_like_a_picture
        from unsample.verbs.saved import read_header

        try:
            head = _head(path)
            if starts_like_a_picture(head) and not _holds_tensors(head):
                raise BadInput(f"{path} is a picture, not an inversion; 'unsample invert' makes one of it")
            return Recorded(path, read_header(path))
        except OSError as error:  # a name that is too long, a missing permission
            reason = error.strerror or error
            raise BadInput(
                f"inversion {path!r} cannot be opened: {reason}; check the path and its permissions"
            ) from error

    return _all(paths, look)


def open_one_inversion(path: str) -> Recorded:
    """An inversion of a single picture."""
    recorded = open_inversions([path])[0]
    if recorded.count != 1:
        raise BadInput(
            f"{path} holds {recorded.count} pictures, one is wanted; save them one by one: inversion[k].save(path)"
        )
    return recorded


def is_inversion(path: str) -> bool:
    """Whether a file is to be read as an inversion: by its name, or else by its first bytes."""
    if Path(path).suffix.lower() == ".safetensors":
        return True
    try:
        head = _head(path)
    except OSError:
        return False
    return _holds_tensors(head)


def _holds_tensors(head: bytes) -> bool:
    """Whether a safetensors file begins like this: the length of its JSON, and the JSON."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27


def _head(path: str) -> bytes:
    """The first bytes of an ordinary file; of a pipe, which would let us wait for ever, none."""
    if not os.path.isfile(path):
        return b""
    with open(path, "rb") as file:
        return file.read(12)


def _all(paths: Sequence[str], look: Callable[[str], Checked]) -> list[Checked]:
    good: list[Checked] = []
    bad: list[BadInput] = []
    for path in paths:
        try:
            good.append(look(path))
        except BadInput as error:
            bad.append(error)
    if len(bad) == 1 and len(paths) == 1:
        raise bad[0]
    if bad:
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        listed = "; ".join(str(error) for error in bad[:SHOWN])
        raise BadInput(f"{len(bad)} of {len(paths)} files cannot be used, so nothing was written: {listed}{more}")
    return good


# ---------------------------------------------------------------- out


def check_outputs(files: Sequence[Path], overwrite: bool, inputs: Iterable[str] = ()) -> None:
    """Refuse outputs that are not free; then make their folder and try to write there.

    Raises:
        BadInput: with what is in the way.
    """
    check_free(files, overwrite, inputs)
    for folder in dict.fromkeys(file.parent for file in files):
        check_writable_folder(folder)


def check_free(files: Sequence[Path], overwrite: bool, inputs: Iterable[str] = ()) -> None:
    """Refuse outputs that exist, or that are inputs of this very call: the one rule of every verb. It writes nothing.

    Raises:
        BadInput: with what is in the way.
    """
    read = {os.path.realpath(path) for path in inputs}
    for file in files:
        try:
            real, is_folder = os.path.realpath(file), file.is_dir()
            is_device = not is_folder and file.exists() and not file.is_file()
        except (OSError, ValueError) as error:  # a name that is too long
            raise cannot_write(file, error) from error
        if real in read:
            raise BadInput(f"{file} would be written over, and it is an input of this command; choose another --output")
        if is_folder or is_device:
            what = "a folder" if is_folder else "a device or a pipe"
            raise BadInput(f"cannot write file {str(file)!r}: it is {what}; choose another --output")
    there = [] if overwrite else [str(f) for f in files if os.path.lexists(f)]
    if there:
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        verb = "exists" if len(there) == 1 else "exist"
        raise BadInput(f"{', '.join(there[:SHOWN])}{more} {verb} already; give --overwrite, or another --output")


def png_path(path: str) -> Path:
    """An output that is one picture."""
    if Path(path).suffix.lower() != ".png":
        raise BadInput(f"--output {path!r} must be the name of a PNG file, for example {Path(path).stem or 'out'}.png")
    return Path(path)


def trajectory_path(picture: Path) -> Path:
    """Where the latents of a sampling run go: beside its picture."""
    return picture.with_name(f"{picture.stem}.trajectory.safetensors")


def write_trajectory(trajectory: Tensor, picture: Path) -> None:
    """The latents (N + 1, 1, C, H, W) of one picture, noisiest first."""
    from safetensors.torch import save

    from unsample.media.files import atomic_write

    content = save({"trajectory": trajectory.cpu().contiguous()}, metadata={"unsample_trajectory": "1"})
    atomic_write(trajectory_path(picture), lambda temporary: temporary.write_bytes(content))


def open_trajectory(path: str | None, method: Method, pictures: int) -> Tensor | None:
    """The trajectory that a method needs, or None where it needs none.

    Raises:
        BadOption: needed and not given, given and not needed, or given for several pictures. BadInput: no such file.
    """
    check_needs_trajectory(method, path is not None)
    if path is None:
        return None
    if not method.needs_trajectory:
        raise BadOption(f"--trajectory is of no use to {method.name}; leave it out, or use --method oracle")
    if pictures != 1:
        raise BadOption(f"--trajectory is of one picture and {pictures} were given; invert them one by one")
    if not os.path.isfile(path):  # a pipe would let us wait for ever
        raise BadInput(f"trajectory {path} is not there, or no file; 'unsample sample --keep-trajectory' writes one")
    from safetensors.torch import load_file

    try:
        return load_file(path)["trajectory"]
    except Exception as error:  # safetensors raises its own kind, OSError, KeyError and ValueError
        raise BadInput(
            f"cannot read trajectory {path}: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
