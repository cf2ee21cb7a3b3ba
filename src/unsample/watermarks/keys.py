"""What keys share, and the file that one is kept in, as JSON. Who has it can find the mark, and forge it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from unsample.errors import BadInput, BadOption, UnsampleError
from unsample.media.files import as_json, atomic_write
from unsample.numeric import is_whole

if TYPE_CHECKING:
    from torch import Tensor

NAME, VERSION = "unsample_watermark", 1
MOST = 2**20  # bytes of a file


class Key:
    """A watermark's key: a frozen dataclass of plain values, with the shape of the noise that it is for."""

    kind: ClassVar[str]
    shape: tuple[int, int, int]

    def embed(self, noise: Tensor) -> Tensor:
        """The noise (B, C, H, W) with the mark in it.

        Raises:
            BadInput: a noise of another shape.
        """
        raise NotImplementedError

    def p_values(self, noise: Tensor) -> list[float]:
        """How likely a noise without the mark looks as much like it, a noise of (B, C, H, W)."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key as JSON, readable by its owner alone where the file is new.

        Raises:
            BadInput: it cannot be written.
        """
        text = as_json({NAME: VERSION, "kind": self.kind, **asdict(cast(Any, self))})

        def write(temporary: Path) -> None:
            temporary.chmod(0o600)
            temporary.write_text(text + "\n", encoding="utf-8")

        atomic_write(path, write)


def load_key(path: str | os.PathLike[str]) -> Key:
    """Read a key that `save` wrote.

    Raises:
        BadInput: missing, not such a file, or of a later version.
    """
    from unsample.watermarks.gaussian_shading import GaussianShading
    from unsample.watermarks.tree_ring import TreeRing

    said = f"watermark key {os.fspath(path)!r}"
    try:
        with open(path, "rb") as file:
            content = file.read(MOST + 1)
    except (OSError, ValueError) as error:
        raise BadInput(f"{said} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        if len(content) > MOST:
            raise ValueError(f"it is larger than {MOST // 2**20} MB")
        told = json.loads(content)
        if not isinstance(told, dict) or NAME not in told:
            raise ValueError(f"it has no {NAME!r} in it")
        if told.pop(NAME) != VERSION:
            raise ValueError(f"it is not of version {VERSION}; a later unsample may read it")
        kinds: dict[str, Any] = {cls.kind: cls for cls in (TreeRing, GaussianShading)}
        cls = kinds.get(kind := str(told.pop("kind", None)))
        if cls is None:
            raise ValueError(f"its kind is {kind[:80]!r}, and none of {', '.join(kinds)}")
        if {*told} != {f.name for f in fields(cls)}:
            raise ValueError(f"a key of {kind} holds {', '.join(f.name for f in fields(cls))}")
        return cast(Key, cls(**told))
    except (ValueError, TypeError, RecursionError, UnsampleError) as error:
        raise BadInput(f"{said} is not one: {error}; give a file that a key's save wrote") from error


def check_shape(shape: Any) -> tuple[int, int, int]:
    """(C, H, W) as a tuple of ints.

    Raises:
        BadOption: it is none.
    """
    if not isinstance(shape, Sequence) or len(shape) != 3 or not all(is_whole(n) and 1 <= n <= 2**15 for n in shape):
        raise BadOption(f"the shape of a noise is (C, H, W); got {shape!r}")
    return cast(tuple[int, int, int], tuple(int(n) for n in shape))


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """Refuse what is not a whole number from `low` to `high` (`BadOption`)."""
    if not is_whole(value) or not low <= value <= high:
        raise BadOption(f"{name} is a whole number from {low} to {high}; got {value!r}")


def check_noise(key: Key, noise: Tensor) -> None:
    """Refuse a noise that the key is not for (`BadInput`)."""
    if tuple(noise.shape[1:]) != key.shape:
        raise BadInput(f"the key is for a noise of {key.shape}, and this one is {tuple(noise.shape[1:])}")
