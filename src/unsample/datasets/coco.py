"""`coco`: a captions file of COCO (Lin et al., 2014, arXiv:1405.0312; captions: Chen et al., 2015, arXiv:1504.00325).

{"images": [{"id", "file_name"} ...], "annotations": [{"id", "image_id", "caption"} ...]}. A picture has some five
captions; the one with the lowest annotation id is its prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unsample.datasets.folder import Shot, read_shot
from unsample.datasets.index import Pairs, read_json
from unsample.datasets.rows import Rows, file_ids, gather, inside, needed, text
from unsample.datasets.spec import Spec, existing
from unsample.errors import BadInput, BadOption


def open_coco(spec: Spec, size: int) -> Rows[Shot]:
    """Pictures in the order of their ids."""
    if "images" not in spec.options:
        raise BadOption(f"coco needs images=, the folder of the pictures: for example {spec.facts.example}")
    file = spec.path("file")
    folder = existing(spec.options["images"], "folder", "coco")
    images, captions = _read(file)
    names = [
        name if isinstance(name := image.get("file_name"), str) else f"row-{k + 1}" for k, image in enumerate(images)
    ]
    listed = sorted(zip(file_ids(names), images, strict=True), key=lambda pair: _number(pair[1].get("id")))
    return gather(spec.written(), listed, partial(_check, folder, captions), read_shot, spec.limit)


def _check(folder: Path, captions: Mapping[object, str], image: Mapping[str, Any]) -> Shot:
    path = inside(folder, needed(image, "file_name"))
    key = image.get("id")
    caption = captions.get(key) if isinstance(key, int | str) else None
    if caption is None:
        raise BadInput(f"no caption belongs to its id {key!r}")
    return Shot(path, caption)


def _read(file: Path) -> tuple[list[dict[str, Any]], dict[object, str]]:
    """The images, and the first caption of each image id.

    Raises:
        BadInput: not a captions file.
    """
    found = read_json(file)
    parts = dict(found) if isinstance(found, Pairs) else {}
    images, annotations = parts.get("images"), parts.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        keys = ", ".join(list(parts)[:8]) or f"a {type(found).__name__}"
        raise BadInput(f"{str(file)!r} is no captions file: it needs 'images' and 'annotations'; found {keys}")
    rows = [dict(a) for a in annotations if isinstance(a, Pairs)]
    if rows and not any("caption" in row for row in rows):
        raise BadInput(f"{str(file)!r} has annotations without captions; give captions_val2017.json or the like")
    captions: dict[object, str] = {}
    for row in sorted(rows, key=lambda row: _number(row.get("id"))):
        caption = text(row, "caption") if isinstance(row.get("caption"), str) else None
        if caption is not None and isinstance(row.get("image_id"), int | str):
            captions.setdefault(row["image_id"], caption)
    return [dict(i) if isinstance(i, Pairs) else {} for i in images], captions


def _number(value: object) -> float:
    """What sorts by an id; ids that are no numbers come last."""
    return value if isinstance(value, int) else float("inf")
