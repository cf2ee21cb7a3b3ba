"""A data set looked at: its first items, its broken rows, a sheet of its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.datasets.item import Dataset, Item
from unsample.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 256  # of a picture on the sheet
MOST = 64  # items on one sheet


@dataclass(frozen=True)
class Looked:
    """What was found while items were opened."""

    dataset: Dataset
    items: Sequence[Item]  # the first ones, with their pictures
    broken: Sequence[tuple[str, str]]  # id and reason; those of the index first
    opened: int  # items, those that turned out to be broken too
    failed: int  # of the opened ones

    def told(self) -> dict[str, Any]:
        """All of it in words and numbers, for JSON."""
        return {
            "dataset": self.dataset.spec,
            "count": len(self.dataset) - self.failed,
            "opened": self.opened,
            "checked": self.opened == len(self.dataset),
            "broken": [{"id": id, "reason": reason} for id, reason in self.broken],
            "items": [about(item) for item in self.items],
        }


def look(
    dataset: Dataset,
    wanted: int,
    whole: bool = False,
    each: Callable[[Iterable[int]], Iterable[int]] = lambda places: places,
) -> Looked:
    """Open items in order: until there are `wanted` good ones, or all.

    Args:
        each: goes through the places of the items: a progress bar.

    Raises:
        BadInput: none of the items that were opened can be read.
    """
    items: list[Item] = []
    failed: list[tuple[str, str]] = []
    opened = 0
    for k in each(range(len(dataset))):
        if len(items) >= wanted and not whole:
            break
        opened += 1
        try:
            item = dataset[k]
        except BadInput as error:
            failed.append((dataset.ids[k], str(error)))
            continue
        if len(items) < wanted:
            items.append(item)
    if not items:
        id, reason = failed[0]
        raise BadInput(f"{dataset.spec}: none of the {opened} items that were opened can be read: {id}: {reason}")
    return Looked(dataset, items, [*dataset.broken, *failed], opened, len(failed))


def about(item: Item) -> dict[str, Any]:
    """An item in words and numbers."""
    return {
        "id": item.id,
        "size": None if item.image is None else list(_size(item.image)),
        "prompt": item.prompt,
        "target_prompt": item.target_prompt,
        "mask_share": None if item.mask is None else round(float(item.mask.mean()), 4),
        "category": item.category,
        "changed": item.changed,
        "truth": item.truth is not None,
        "seed": item.seed,
        "digest": item.digest(),
    }


def files_of(dataset: Dataset) -> Iterator[str]:
    """The files that its rows name."""
    for row in getattr(dataset, "rows", ()):
        yield from (str(value) for f in fields(row) if isinstance(value := getattr(row, f.name), Path))


def contact_sheet(items: Sequence[Item]) -> Image:
    """A row an item: its source, and mask and truth where any item has them."""
    from PIL import Image

    from unsample.media.figures import sheet
    from unsample.media.pictures import MIN_SIDE

    panels: list[Image.Image] = []
    texts: list[str] = []
    kinds = [k for k in ("image", "mask", "truth") if any(getattr(item, k) is not None for item in items)]
    for item in items:
        edited = item.target_prompt or ""
        labels = {"image": item.prompt or item.id, "mask": "to be edited", "truth": edited or "true edit"}
        if "truth" not in kinds and edited:
            labels["mask"] = f"to be edited: {edited}"
        for kind in kinds:
            value = getattr(item, kind)
            panels.append(Image.new("RGB", (MIN_SIDE, MIN_SIDE), "white") if value is None else thumbnail(value))
            texts.append("" if value is None else labels[kind])
    return sheet(panels, texts, columns=len(kinds))


def thumbnail(value: Any) -> Image:
    """A PIL image or a tensor (C, H, W) in [0, 1], at most 256 pixels a side."""
    from PIL import Image

    if not isinstance(value, Image.Image):
        value = Image.fromarray((value.expand(3, -1, -1) * 255).round().byte().permute(1, 2, 0).numpy())
    small = value.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def _size(image: Any) -> tuple[int, int]:
    """Width and height."""
    return image.size if hasattr(image, "getbands") else (image.shape[2], image.shape[1])
