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
from unsample.datasets.limits import MAX_ROWS, capped
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
    caption = text({"caption": captions.get(key)}, "caption") if isinstance(key, int | str) else None
    if caption is None:
        raise BadInput(f"no caption belongs to its id {key!r}")
    return Shot(path, caption)


def _read(file: Path) -> tuple[list[dict[str, Any]], dict[object, str]]:
    """The images, and the first caption of each image id.

    Raises:
        BadInput: not a captions file.
    """
    images: list[dict[str, Any]] = []
    captions: dict[object, tuple[float, str]] = {}  # image id to the lowest annotation id and its caption
    lists: set[str] = set()
    others: list[str] = []
    annotated = captioned = False
    with read_json(file) as reader:
        if reader.peek() != "{":
            raise _no_captions(file, f"a {type(reader.value()).__name__}")
        for key in reader.keys():  # noqa: SIM118
            if key not in ("images", "annotations") or reader.peek() != "[":
                others.append(key)
                reader.value()
                continue
            lists.add(key)
            if key == "images":
                rows = (dict(row) if isinstance(row, Pairs) else {} for row in reader.elements())
                images = [{k: row.get(k) for k in ("id", "file_name")} for row in capped(rows, file)]
                continue
            for row in (dict(row) for row in reader.elements() if isinstance(row, Pairs)):
                annotated, captioned = True, captioned or "caption" in row
                _keep(captions, row, file)
        reader.end()
    if len(lists) < 2:
        raise _no_captions(file, ", ".join([*sorted(lists), *others][:8]))
    if annotated and not captioned:
        raise BadInput(f"{str(file)!r} has annotations without captions; give captions_val2017.json or the like")
    return images, {id: caption for id, (_, caption) in captions.items()}


def _no_captions(file: Path, found: str) -> BadInput:
    return BadInput(f"{str(file)!r} is no captions file: it needs 'images' and 'annotations'; found {found}")


def _keep(captions: dict[object, tuple[float, str]], row: Mapping[str, Any], file: Path) -> None:
    """Keep the caption of an image with the lowest id."""
    caption, id, number = row.get("caption"), row.get("image_id"), _number(row.get("id"))
    if isinstance(caption, str) and caption.strip() and isinstance(id, int | str):
        if id not in captions and len(captions) == MAX_ROWS:
            raise BadInput(f"{str(file)!r} has captions of over {MAX_ROWS:,} images; split it")
        if id not in captions or number < captions[id][0]:
            captions[id] = number, caption


def _number(value: object) -> float:
    """What sorts by an id; ids that are no numbers come last."""
    return value if isinstance(value, int) else float("inf")
