"""`folder`: a folder of pictures, and what a table in it (prompts.csv, metadata.jsonl ...) says of them.

Columns: file, source_prompt, target_prompt, mask (a picture that `unsample.media.masks` reads), by these names or those
of Hugging Face's ImageFolder. Pictures without a row have no prompt; one with several rows is an item for each; a row
may also name a picture further down in the folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.datasets.index import BEYOND, Row, read_table
from unsample.datasets.item import Item
from unsample.datasets.rows import Rows, file_ids, gather, inside, noted, slashed, text
from unsample.datasets.spec import Spec
from unsample.errors import BadInput
from unsample.media.files import numbered
from unsample.media.formats import SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.media.masks import Mask
    from unsample.media.pictures import Picture

TABLES = ("prompts", "metadata")  # the first that is there, with one of ...
ENDS = (".csv", ".tsv", ".jsonl", ".parquet")
COLUMNS = {
    "file": ("file", "file_name", "filename", "image_file_name"),
    "source_prompt": ("source_prompt", "prompt", "text", "caption"),
    "target_prompt": ("target_prompt",),
    "mask": ("mask", "mask_file_name"),
}


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture file and what the table says of it."""

    path: Path
    prompt: str | None = None
    target_prompt: str | None = None
    mask: Path | None = None


def open_folder(spec: Spec, size: int) -> Rows[Shot]:
    """Pictures in the order of their names."""
    folder = spec.path("folder")
    table, lost = _table(folder)
    masks = {_place(folder, row["mask"]) for row in table if isinstance(row.get("mask"), str)}
    rows: dict[str, list[Row]] = {name: [] for name in pictures_of(folder) if name not in masks}
    told: set[int] = set()
    for row in table:
        again = hash(repr(row)) in told
        told.add(hash(repr(row)))
        rows.setdefault(_place(folder, row["file"]), []).append(row | {"again": True} if again else row)
    names = sorted(rows)
    items = [
        (id, row) for id, n in zip(file_ids(names), names, strict=True) for row in rows[n] or [{"file": n, "own": True}]
    ]
    listed = zip(numbered([id for id, _ in items]), (row for _, row in items), strict=True)
    return gather(spec.written(), chain(lost, listed), partial(shot_of, folder), read_shot, spec.limit)


def _place(folder: Path, name: str) -> str:
    """A name of the table as the folder has it."""
    return os.path.normpath(slashed(name, folder))


def pictures_of(folder: Path) -> list[str]:
    """The names of the pictures that lie in a folder itself.

    Raises:
        BadInput: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return [e.name for e in entries if is_picture(e.name) and e.is_file()]
    except OSError as error:
        raise BadInput(f"folder {str(folder)!r} cannot be listed: {error.strerror}; check its permissions") from error


def is_picture(name: str) -> bool:
    """Whether a file is a picture, by its name."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def read_shot(id: str, shot: Shot) -> Item:
    """The item of a picture file."""
    from unsample.media.masks import open_mask
    from unsample.media.pictures import open_picture

    mask = None if shot.mask is None else open_mask(shot.mask)
    return item_of(id, open_picture(shot.path), mask, shot.prompt, shot.target_prompt)


def item_of(id: str, picture: Picture, mask: Mask | None, prompt: str | None, target_prompt: str | None) -> Item:
    """The item of an opened picture, with its mask.

    Raises:
        BadInput: the mask is of another size.
    """
    return Item(
        id=id,
        image=picture.pixels,
        prompt=prompt,
        target_prompt=target_prompt,
        mask=None if mask is None else as_mask(mask, picture.pixels.size),
        extra=noted(picture, mask),
    )


def as_mask(mask: Mask, size: tuple[int, int]) -> Tensor:
    """A mask for a picture of that size: (1, H, W) of 0 and 1.

    Raises:
        BadInput: another size.
    """
    import torch

    height, width = mask.where.shape
    if (width, height) != size:
        raise BadInput(f"its mask is {width}x{height} and its picture {size[0]}x{size[1]}; they must be of one size")
    return torch.from_numpy(mask.where.astype("float32"))[None]


def shot_of(folder: Path, row: Mapping[str, Any] | BadInput) -> Shot:
    """A row of a table, checked; what it names lies inside the folder.

    Raises:
        BadInput: what is wrong with it.
    """
    if isinstance(row, BadInput):
        raise row
    if row.get("again"):
        raise BadInput("another row says the same; the first one counts")
    if row.get(BEYOND):
        raise BadInput(f"its row has {len(row[BEYOND])} cells more than there are columns; quote texts with commas")
    if not isinstance(name := row.get("file"), str):
        raise BadInput("its row names no file")
    path = folder / name if row.get("own") is True else inside(folder, name)
    mask = text(row, "mask")
    return Shot(
        path,
        text(row, "source_prompt"),
        text(row, "target_prompt"),
        None if mask is None else inside(folder, mask),
    )


def _table(folder: Path) -> tuple[list[Row], list[tuple[str, BadInput]]]:
    """The rows of the table, if there is one, and those that name no file.

    Raises:
        BadInput: two tables, or one without the column `file`.
    """
    there = [[f for end in ENDS if (f := folder / f"{name}{end}").is_file()] for name in TABLES]
    found = there[0] or there[1]
    if len(found) > 1:
        both = " and ".join(file.name for file in found)
        raise BadInput(f"folder {str(folder)!r} holds both {both}; keep one of them")
    named, lost = [], []
    for number, row in enumerate(read_table(found[0], COLUMNS) if found else [], 1):
        if isinstance(row, dict) and isinstance(row.get("file"), str):
            named.append(row)
        else:
            lost.append((f"row-{number}", row if isinstance(row, BadInput) else BadInput("it names no file")))
    return named, lost
