"""`parquet`: Parquet tables with a picture a row, as the Hugging Face hub keeps data sets of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unsample.datasets.folder import COLUMNS, item_of
from unsample.datasets.index import find_columns
from unsample.datasets.item import Item
from unsample.datasets.parquet import RowPlace, cells_of, columns_of, picture_of, tables_in, texts_of
from unsample.datasets.rows import Rows, files_at, gather, safe_id, text
from unsample.datasets.spec import Spec
from unsample.errors import BadInput

PICTURES = ("image", "img", "picture", "jpg", "png", "webp", *COLUMNS["file"])
IDS = ("id", "key", "__key__", "name", "image_id", "uid")
KIN = {"image": PICTURES, "id": IDS, **{name: COLUMNS[name] for name in ("source_prompt", "target_prompt", "mask")}}


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture in a table, and what the row says of it."""

    place: RowPlace
    image: str  # the column
    mask: str | None = None  # the column
    prompt: str | None = None
    target_prompt: str | None = None


def open_parquet(spec: Spec, size: int) -> Rows[Cell]:
    """Rows in the order of the files."""
    assert spec.first is not None
    files = [table for file in files_at(spec.first, ".parquet", "parquet") for table in tables_in(file, "parquet")]
    columns = columns_of(files)
    found = find_columns(columns, KIN, files[0].name)
    if "image" not in found:
        raise BadInput(
            f"{str(files[0])!r} has no column of pictures ({', '.join(PICTURES[:3])} ...); found {', '.join(columns)}"
        )
    image, mask = found.pop("image"), found.pop("mask", None)

    def listed() -> Iterator[tuple[str, tuple[RowPlace, dict[str, Any]]]]:
        for number, (place, cells) in enumerate(texts_of(files, list(found.values()))):
            row = {ours: cells[theirs] for ours, theirs in found.items()}
            own = row.get("id")
            yield safe_id(f"row-{number}" if own is None else str(own)), (place, row)

    def check(raw: tuple[RowPlace, dict[str, Any]]) -> Cell:
        place, row = raw
        return Cell(place, image, mask, text(row, "source_prompt"), text(row, "target_prompt"))

    return gather(spec.written(), listed(), check, read_cell, spec.limit)


def read_cell(id: str, cell: Cell) -> Item:
    """The item of a row."""
    from unsample.media.masks import mask_of_picture

    cells = cells_of(cell.place, [cell.image, *([cell.mask] if cell.mask else [])])
    folder = cell.place.file.parent
    picture = picture_of(cells[cell.image], cell.image, folder)
    drawn = None if cell.mask is None or cells[cell.mask] is None else picture_of(cells[cell.mask], cell.mask, folder)
    mask = None if drawn is None else mask_of_picture(drawn.pixels)
    return item_of(id, picture, mask, cell.prompt, cell.target_prompt)
