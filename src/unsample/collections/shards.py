"""Shards: what a batch made is written as a part, and parts are put together when there is a shard's worth of them.

A shard of inversions is a saved inversion of many pictures of one size (`Inversion.load`, and every verb, reads it); a
shard of pictures is a tar of PNGs that carry their settings (`webdataset`). Parts and shards are the same kind of file.
A file is on the disk before a row says that it is there, and goes when no row says so any more: whatever is killed,
what the rows name is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.bench.artefacts import kept
from unsample.errors import BadOption
from unsample.media.files import atomic_write

if TYPE_CHECKING:
    from unsample.verbs.results import Inversion

PARTS, SHARD = "parts", "shard"
SUFFIX = {"inversions": ".safetensors", "pictures": ".tar"}
SHARD_SIZE, SHARD_BYTES = 1024, 128 * 2**20  # of a shard, whichever is reached first
Pick = tuple[Path, Sequence[int]]  # a part, and which of its pictures are taken


def part_name(kind: str, ids: Sequence[str]) -> str:
    """Of what a batch makes: the same batch writes the same file again."""
    return f"{PARTS}/{hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:24]}{SUFFIX[kind]}"


def write_inversions(folder: Path, name: str, inversion: Inversion) -> int:
    """Write a part; its size in bytes."""
    with kept(folder, Path(name)) as path:
        inversion.save(path)
    return path.stat().st_size


def write_pictures(folder: Path, name: str, pictures: Sequence[tuple[str, bytes]]) -> int:
    """Write a part of PNGs by their names; its size in bytes."""

    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for id, content in pictures:
                about = tarfile.TarInfo(f"{id}.png")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))

    with kept(folder, Path(name)) as path:
        atomic_write(path, write)
    return path.stat().st_size


def join(kind: str, folder: Path, name: str, parts: Sequence[Pick]) -> None:
    """Put parts together, in their order."""
    if kind == "pictures":
        write_pictures(folder, name, [picture for part, rows in parts for picture in _pictures(part, rows)])
        return
    from unsample.verbs.joining import joined
    from unsample.verbs.results import Inversion

    loaded = [(Inversion.load(part), rows) for part, rows in parts]
    write_inversions(folder, name, joined([i if len(rows) == len(i) else i.picked(rows) for i, rows in loaded]))


def kind_of(inversion: Inversion) -> str:
    """What two inversions must have in common to go into one shard, as a hash."""
    from unsample.verbs.joining import common

    return hashlib.sha256(json.dumps(common(inversion), sort_keys=True).encode()).hexdigest()[:16]


def _pictures(part: Path, rows: Sequence[int]) -> list[tuple[str, bytes]]:
    from unsample.datasets.webdataset import members_of

    members = list(members_of(part))
    return [(members[k].name.removesuffix(".png"), members[k].read()) for k in rows]


def numbered(number: int, kind: str) -> str:
    """The name of a shard."""
    return f"{SHARD}-{number:05d}{SUFFIX[kind]}"


def number_of(name: str) -> int | None:
    """Of a shard's name; None of another file's."""
    stem, _, _ = name.partition(".")
    head, _, digits = stem.partition("-")
    return int(digits) if head == SHARD and digits.isdecimal() else None


def check_shard_size(size: Any) -> int:
    """How many pictures a shard holds at most.

    Raises:
        BadOption: none, or too many.
    """
    from unsample.numeric import is_whole

    if not is_whole(size) or not 1 <= size <= 2**20:
        raise BadOption(f"a shard holds from 1 to {2**20:,} pictures; got {size!r}")
    return int(size)
