"""`celeba` and `lsun`: pictures below a folder, at any depth, without prompts. Only the pictures are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from unsample.datasets.folder import Shot, is_picture, read_shot
from unsample.datasets.rows import Rows, file_ids, gather
from unsample.datasets.spec import Spec
from unsample.errors import BadInput


def open_plain(spec: Spec, size: int) -> Rows[Shot]:
    """Pictures in the order of their paths inside the folder."""
    folder = spec.path("folder")
    names = sorted(_below(folder))
    if not names and any(folder.rglob("data.mdb")):
        raise BadInput(f"{spec.facts.name}: {str(folder)!r} holds an LMDB; export it to picture files first")
    listed = zip(file_ids(names), names, strict=True)
    return gather(spec.written(), listed, lambda name: Shot(folder / name), read_shot, spec.limit)


def _below(folder: Path) -> Iterator[str]:
    """Paths of pictures inside the folder, with forward slashes; hidden files and linked folders are left out."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        at = Path(place).relative_to(folder)
        yield from ((at / name).as_posix() for name in files if is_picture(name))
