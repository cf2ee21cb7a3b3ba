"""The pictures to look at: each method's worst, median and best item, as data URIs, so that the page stands alone.

Nothing that a ledger says of a picture is trusted: a path that leaves the run folder or goes through a link, a file
that is gone, that is not what was written or that is no picture becomes a sentence in its place.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption
from unsample.report import words
from unsample.report.columns import Column
from unsample.report.table import Block, Cell, MethodRow

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = {
    "source": "source",
    "record": "from the record",
    "noise": "from the noise",
    "edit": "edit",
    "truth": "true edit",
}
ABOUT = ("source", "truth")  # of an item, whoever edits it
LARGEST = 224  # pixels of a side; larger ones are shrunk
LOSSLESS = 128  # pixels of a side up to which nothing is lost


@dataclass(frozen=True)
class ShownPicture:
    """A picture on the page, or why there is none."""

    title: str
    alt: str
    uri: str | None = None
    side: int = 0
    note: str = ""


@dataclass(frozen=True)
class Pick:
    """An item of a method."""

    place: str  # worst | median | best
    item: str
    value: str
    pictures: Sequence[ShownPicture]


@dataclass(frozen=True)
class Strip:
    """A method's items."""

    label: str
    picks: Sequence[Pick]


class Album:
    """The pictures of a run folder, each opened once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: dict[tuple[str, str], Image | str] = {}

    def open(self, file: tuple[str, str]) -> Image | str:
        """A picture by its path and SHA-256, small enough for the page, or why there is none."""
        if file not in self._opened:
            self._opened[file] = self._read(*file)
        return self._opened[file]

    def _read(self, path: str, sha256: str) -> Image | str:
        from unsample.media.files import Outside, open_inside
        from unsample.media.pictures import MAX_BYTES, from_bytes

        try:
            with open_inside(self.folder, path) as file:
                content = file.read(MAX_BYTES + 1)
            if hashlib.sha256(content).hexdigest() != sha256:
                return "missing or damaged"
            image = from_bytes(content, path).pixels
        except Outside:
            return "outside of the run folder"
        except (BadInput, OSError):
            return "missing or damaged"
        image.thumbnail((LARGEST, LARGEST))
        return image


def strips(block: Block, by: Column | None, folder: Path) -> list[Strip]:
    """The worst, median and best item of each method in a column, with all their pictures."""
    if by is None:
        return []
    album = Album(folder)
    picked = [(m, _picked(m, m.cells[by.key], by)) for m in block.ordered(by) if by.key in m.cells]
    kinds = [k for k in KINDS if any(k in _paths(r) for m, picks in picked for _, r in picks)]
    if not kinds:
        return []
    factor = _factor([r for _, picks in picked for _, r in picks], album)
    return [
        Strip(m.label, [_pick(place, row, m, by, kinds, factor, album) for place, row in picks]) for m, picks in picked
    ]


def by_editor(block: Block, by: Column | None, folder: Path) -> list[Strip]:
    """Of each method that edits in several ways: source, true edit and all its edits of one item, the median one.

    None where `by` is no column of edits.
    """
    if by is None or by.stage != "edit":
        return []
    album, ways = Album(folder), dict.fromkeys(m.edits for m in block.methods if by.key in m.cells)
    found = []
    for name in dict.fromkeys(m.method for m in block.methods):
        own = {m.edits: m for m in block.methods if m.method == name and by.key in m.cells}
        item = _middle([m.cells[by.key] for m in own.values()])
        if len(own) < 2 or item is None:
            continue
        rows = {how: row for how, m in own.items() for row in m.rows if row["item"] == item}
        first = next(iter(rows.values()))
        given = [_shown(KINDS[k], f"{KINDS[k]} of item {item}", _paths(first).get(k), first, album) for k in ABOUT]
        edits = [_by(how, f"{name}, item {item}", rows.get(how), own.get(how), by, album) for how in ways]
        found.append(Strip(name, [Pick("median", words.line(item, 80), "", [*given, *edits])]))
    return found


def _middle(cells: Sequence[Cell]) -> str | None:
    """The item whose mean over the cells is the middle one, of those that all of them have."""
    if not cells:
        return None
    items = set.intersection(*({*cell.values.found} for cell in cells))
    order = sorted(items, key=lambda item: (sum(cell.values.found[item] for cell in cells), item))
    return order[(len(order) - 1) // 2] if order else None


def _by(
    how: str, whose: str, row: Mapping[str, Any] | None, method: MethodRow | None, by: Column, album: Album
) -> ShownPicture:
    title = words.line(how or "none", 80)
    if row is None or method is None:
        return ShownPicture(title, title, note="not tried")
    value = method.cells[by.key].values.found.get(row["item"])
    told = title if value is None else f"{title}: {by.metric} {words.number(value, by.unit)}"
    shown = _shown(title, f"edit by {title} of {whose}", _paths(row).get("edit"), row, album)
    return replace(shown, note=shown.note or told)


def _picked(method: MethodRow, cell: Cell, by: Column) -> list[tuple[str, Mapping[str, Any]]]:
    """Diverged items are the worst; a single item is its own median."""
    sign = 1 if by.higher else -1
    found = sorted(cell.values.found, key=lambda item: (sign * cell.values.found[item], item))
    order = [*sorted(cell.values.diverged), *found]
    places = {"median": (len(order) - 1) // 2, "worst": 0, "best": len(order) - 1}
    taken: dict[int, str] = {}
    for name, place in places.items() if order else ():
        taken.setdefault(place, name)
    rows = {row["item"]: row for row in method.rows}
    return [(name, rows[order[place]]) for place, name in sorted(taken.items())]


def _paths(row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {str(a["kind"]): (str(a["path"]), str(a["sha256"])) for a in row.get("artefacts") or ()}


def _compared(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What the difference is between: an edit and its truth, else the source; a reconstruction and the source."""
    paths = _paths(row)
    result = next((k for k in ("edit", "noise", "record") if k in paths), None)
    against = "truth" if result == "edit" and "truth" in paths else "source"
    return (result, against) if result and against in paths else None


def _factor(rows: Sequence[Mapping[str, Any]], album: Album) -> int:
    """One brightening for all differences, so that they compare: the largest that clips none."""
    from unsample.media.figures import difference

    factors = []
    for row in rows:
        pair = _pair(row, album)
        if pair:
            factors.append(difference(*pair)[1])
    return min((f for f in factors if f), default=1)


def _pair(row: Mapping[str, Any], album: Album) -> tuple[Image, Image] | None:
    compared, paths = _compared(row), _paths(row)
    if compared is None:
        return None
    after, before = (album.open(paths[k]) for k in compared)
    if isinstance(before, str) or isinstance(after, str) or before.size != after.size:
        return None
    return before, after


def _pick(
    place: str, row: Mapping[str, Any], method: MethodRow, by: Column, kinds: Sequence[str], factor: int, album: Album
) -> Pick:
    item, paths = words.line(row["item"], 80), _paths(row)
    whose = f"{method.label}, {place} item {item}"
    pictures = [_shown(KINDS[k], f"{KINDS[k]} of {whose}", paths.get(k), row, album) for k in kinds]
    cell = method.cells[by.key]
    value = cell.values.found.get(row["item"])
    text = "diverged" if value is None else f"{by.metric} {words.number(value, by.unit)}"
    text += f" {by.unit}" if by.unit not in ("", "1") and value is not None and value != float("inf") else ""
    return Pick(place, item, text, [*pictures, _difference(row, whose, factor, album)])


def _shown(title: str, alt: str, path: tuple[str, str] | None, row: Mapping[str, Any], album: Album) -> ShownPicture:
    if path is None:
        return ShownPicture(title, alt, note="diverged" if row["status"] == "diverged" else "none")
    image = album.open(path)
    if isinstance(image, str):
        return ShownPicture(title, alt, note=image)
    return ShownPicture(title, alt, data_uri(image), max(image.size))


def _difference(row: Mapping[str, Any], whose: str, factor: int, album: Album) -> ShownPicture:
    from unsample.media.figures import difference

    compared, pair = _compared(row), _pair(row, album)
    if compared is None or pair is None:
        return ShownPicture("difference", f"difference of {whose}", note="none")
    result, against = (KINDS[k] for k in compared)
    title = f"difference ×{factor}"
    try:
        heat, _ = difference(*pair, factor)
    except (BadOption, ValueError):
        return ShownPicture(title, f"difference of {whose}", note="none")
    return ShownPicture(title, f"difference ({result}, {against}) of {whose}", data_uri(heat), max(heat.size))


def data_uri(image: Image) -> str:
    """A picture as text: WebP without loss where it is small, PNG where Pillow has no WebP."""
    from PIL import features

    kept = io.BytesIO()
    kind = "webp" if features.check("webp") else "png"
    small = max(image.size) <= LOSSLESS
    image.save(kept, kind, **({"lossless": small, "quality": 90} if kind == "webp" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(kept.getvalue()).decode()}"
