"""`list`: a table of pictures, a row a picture: its file, what it shows, what an edit shall show, its mask."""

from __future__ import annotations

from functools import partial

from unsample.datasets.folder import COLUMNS, Shot, read_shot, shot_of
from unsample.datasets.index import Row, read_table
from unsample.datasets.rows import Rows, file_ids, gather
from unsample.datasets.spec import Spec, existing
from unsample.errors import BadInput
from unsample.media.files import numbered


def open_list(spec: Spec, size: int) -> Rows[Shot]:
    """Rows in their order; their files lie below the table's folder, or the one that is given."""
    file = spec.path("file")
    folder = existing(spec.options["images"], "folder", "list") if "images" in spec.options else file.parent
    rows = read_table(file, COLUMNS)
    names = [_file(row) for row in rows]
    known = iter(numbered(file_ids([name for name in names if name is not None])))
    ids = [f"row-{k}" if name is None else next(known) for k, name in enumerate(names, 1)]
    return gather(spec.written(), zip(ids, rows, strict=True), partial(shot_of, folder), read_shot, spec.limit)


def _file(row: Row | BadInput) -> str | None:
    name = row.get("file") if isinstance(row, dict) else None
    return name if isinstance(name, str) else None
