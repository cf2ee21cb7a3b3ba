"""Parquet tables with pictures in their cells, as the Hugging Face hub keeps them; the extra `[parquet]`.

Texts are read in small batches; pictures by row groups when they are asked for, of which one is kept. A picture is a
struct {bytes, path}, bytes alone, or the path of a file beside the table. Of what stands there many times a single copy
is kept (`read_dictionary`), and how large a group is, is known from the file's end before it is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.datasets.limits import MAX_BYTES, MAX_ROWS, capped
from unsample.datasets.rows import inside
from unsample.errors import BadInput, first_line

if TYPE_CHECKING:
    from unsample.media.pictures import Picture

MAX_GROUP = 2**30  # bytes of the wanted columns of a row group in memory; of its texts MAX_BYTES
BATCH = 1024  # rows of texts at once


@dataclass(frozen=True, slots=True)
class RowPlace:
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


def texts_of(files: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[RowPlace, dict[str, Any]]]:
    """Where each row lies, and its cells in some columns without pictures; bytes where a cell is no UTF-8.

    Raises:
        BadInput: a file that is damaged, or holds too many rows or too long texts.
    """
    for file in files:
        yield from capped(_texts_of(file, list(columns)), file)


def _texts_of(file: Path, columns: list[str]) -> Iterator[tuple[RowPlace, dict[str, Any]]]:
    opened = _opened(file, tuple(columns))
    shared: dict[str, str] = {}  # a text that stands there many times is one
    left = MAX_BYTES
    for group in range(opened.metadata.num_row_groups):
        if not columns:
            yield from ((RowPlace(file, group, k), {}) for k in range(opened.metadata.row_group(group).num_rows))
            continue
        _check_size(file, opened, group, columns, MAX_BYTES)
        batches = opened.iter_batches(BATCH, row_groups=[group], columns=columns, use_threads=False)
        first = 0
        while (batch := _next(file, batches)) is not None:
            listed = [_cells(batch.column(name)) for name in columns]
            for k, cells in enumerate(zip(*listed, strict=True), first):
                for cell in cells:
                    if isinstance(cell, str) and cell not in shared:
                        shared[cell] = cell.strip()  # as every reader of texts does
                        left -= len(cell)
                if left < 0:
                    raise BadInput(f"{str(file)!r} holds texts of over {MAX_BYTES // 2**20} MB; split it")
                kept = (shared[c] if isinstance(c, str) else c for c in cells)
                yield RowPlace(file, group, k), dict(zip(columns, kept, strict=True))
            first += batch.num_rows


def _next(file: Path, batches: Iterator[Any]) -> Any:
    """The next batch, or None."""
    with _readable(file, "is damaged"):
        return next(batches, None)


def _cells(column: Any) -> list[Any]:
    """The cells of a column as Python has them: of a dictionary those that are used; bytes where a text is none."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        places = column.indices.unique().drop_null()
        known = dict(zip(places.to_pylist(), _cells(column.dictionary.take(places)), strict=True))
        return [None if k is None else known[k] for k in column.indices.to_pylist()]
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(cell) for cell in column.cast(pa.large_binary()).to_pylist()]


def _decoded(cell: bytes | None) -> str | bytes | None:
    try:
        return None if cell is None else cell.decode("utf-8")
    except UnicodeDecodeError:
        return cell


def cells_of(place: RowPlace, columns: Sequence[str]) -> dict[str, Any]:
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
    from unsample.media.pictures import from_bytes, open_picture

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
    names = [column.path for column in _opened(file).schema if column.physical_type == "BYTE_ARRAY"]
    opened = _opened(file, tuple(names))
    _check_size(file, opened, group, columns, MAX_GROUP)
    with _readable(file, "is damaged"):
        return opened.read_row_group(group, columns=list(columns), use_threads=False)


def _check_size(file: Path, opened: Any, group: int, columns: Sequence[str], most: int) -> None:
    """Refuse a row group whose wanted columns are too large, by what the end of the file says of them."""
    about = opened.metadata.row_group(group)
    chunks = (about.column(k) for k in range(about.num_columns))
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
    if size > most or about.num_rows > MAX_ROWS:
        limit = f"the limits are {most / 2**30:g} GB and {MAX_ROWS:,} rows; write it anew with smaller row groups"
        raise BadInput(f"{str(file)!r} has a row group of {size / 2**30:.1f} GB and {about.num_rows:,} rows, {limit}")


def _opened(file: Path, dictionary: tuple[str, ...] = ()) -> Any:
    from pyarrow.parquet import ParquetFile

    with _readable(file, "is no parquet file, or damaged"):
        return ParquetFile(file, read_dictionary=list(dictionary), pre_buffer=False)


@contextmanager
def _readable(file: Path, said: str) -> Iterator[None]:
    from pyarrow.lib import ArrowException

    try:
        yield
    except (OSError, ValueError, ArrowException) as error:
        reason = first_line(error, type(error).__name__)
        raise BadInput(f"{str(file)!r} {said}: {reason}; get the file again") from error
