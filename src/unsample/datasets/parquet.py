"""Parquet tables with pictures in their cells, as the Hugging Face hub keeps them; the extra `[parquet]`.

Texts are read at once; pictures by row groups when they are asked for, of which one is kept. A picture is a struct
{bytes, path}, bytes alone, or the path of a file beside the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.datasets.rows import inside
from unsample.errors import BadInput, first_line

if TYPE_CHECKING:
    from unsample.pictures import Picture

MAX_GROUP = 4 * 2**30  # bytes of a row group in memory


@dataclass(frozen=True)
class Place:
    """Where a row lies."""

    file: Path
    group: int
    row: int  # in the group


def tables_in(path: Path, name: str) -> list[Path]:
    """The .parquet files below a folder, in order, or the one file.

    Raises:
        BadInput: there is none, or pyarrow is not installed.
    """
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*.parquet") if p.is_file())
    if not found:
        raise BadInput(f"{name}: {str(path)!r} holds no .parquet file; 'unsample datasets {name}' shows the layout")
    if find_spec("pyarrow") is None:
        raise BadInput(f"{name}: reading {found[0].name} needs pyarrow: pip install 'unsample[parquet]'")
    return found


def split_of(file: Path) -> str:
    """The split that a file belongs to: test-00000-of-00001.parquet, or test/0000.parquet."""
    match = re.fullmatch(r"(.+?)-\d+-of-\d+", file.stem)
    return match[1] if match else file.parent.name if file.stem.isdigit() else file.stem


def columns_of(files: Sequence[Path]) -> list[str]:
    """The columns that all files have, in the order of the first.

    Raises:
        BadInput: a file that is no parquet file.
    """
    schemas = [list(_opened(file).schema_arrow.names) for file in files]
    return [name for name in schemas[0] if all(name in names for names in schemas)]


def texts_of(files: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Where each row lies, and its cells in some columns without pictures."""
    for file in files:
        opened = _opened(file)
        for group in range(opened.metadata.num_row_groups):
            count = opened.metadata.row_group(group).num_rows
            rows = _table(file, group, tuple(columns)).to_pylist() if columns else [{}] * count
            yield from ((Place(file, group, k), row) for k, row in enumerate(rows))


def cells_of(place: Place, columns: Sequence[str]) -> dict[str, Any]:
    """The cells of one row, pictures too.

    Raises:
        BadInput: they cannot be read.
    """
    table = _kept(place.file, place.group, tuple(columns), os.stat(place.file).st_mtime_ns)
    row: dict[str, Any] = table.slice(place.row, 1).to_pylist()[0]
    return row


def picture_of(cell: Any, name: str, folder: Path | None) -> Picture:
    """The picture of a cell; a path in it must lie inside the folder.

    Raises:
        BadInput: it is none.
    """
    from unsample.pictures import from_bytes, open_picture

    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    if isinstance(data, bytes):
        return from_bytes(data, name)
    if isinstance(path, str) and folder is not None:
        return open_picture(inside(folder, path))
    raise BadInput(f"its {name} is {'missing' if cell is None else f'a {type(cell).__name__} without bytes'}")


@lru_cache(maxsize=1)
def _kept(file: Path, group: int, columns: tuple[str, ...], changed: int) -> Any:
    return _table(file, group, columns)


def _table(file: Path, group: int, columns: tuple[str, ...]) -> Any:
    try:
        opened = _opened(file)
        if (size := opened.metadata.row_group(group).total_byte_size) > MAX_GROUP:
            limit = f"the limit is {MAX_GROUP // 2**30} GB; write it anew with smaller row groups"
            raise BadInput(f"{str(file)!r} has a row group of {size / 2**30:.1f} GB, {limit}")
        return opened.read_row_group(group, columns=list(columns), use_threads=False)
    except (OSError, ValueError) as error:  # pyarrow's own kinds are children of both
        raise BadInput(
            f"{str(file)!r} is damaged: {first_line(error, type(error).__name__)}; get the file again"
        ) from error


def _opened(file: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(file)
    except (OSError, ValueError) as error:
        reason = first_line(error, type(error).__name__)
        raise BadInput(f"{str(file)!r} is no parquet file, or damaged: {reason}; get the file again") from error
