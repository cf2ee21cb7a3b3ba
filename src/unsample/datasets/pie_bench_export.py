"""A data set written in PIE-Bench's own layout (`pie_bench`), so that whatever reads PIE-Bench reads it.

mapping_file.json, and annotation_images/TYPE/ID.png at 512x512. The words in which two prompts differ stand in
brackets; a single word replaced by a single word is a blended word too. The folder appears whole or not at all.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.datasets.item import Dataset, Item
from unsample.datasets.pie_bench import CATEGORIES, INDEX, PICTURES, SIDE
from unsample.errors import BadInput
from unsample.media.files import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

OF_SCENES = {  # PIE-Bench's type of an edit of scenes
    "shape": "change_object",
    "size": "change_attribute_content",
    "place": "change_attribute_pose",
    "colour": "change_attribute_color",
    "texture": "change_attribute_material",
    "background_texture": "change_background",
    "background": "change_background",
}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    count: int
    broken: Sequence[tuple[str, str]]  # id and why it was left out
    notes: Sequence[str]  # what the layout cannot hold, and what was done to pictures

    def told(self) -> dict[str, Any]:
        """For JSON."""
        broken = [{"id": id, "reason": reason} for id, reason in self.broken]
        return {"folder": str(self.folder), "count": self.count, "broken": broken, "notes": list(self.notes)}


@dataclass
class _Writing:
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # in the order in which they came up


def export_pie_bench(
    dataset: Dataset,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    each: Callable[[Iterable[int]], Iterable[int]] = lambda places: places,
) -> Exported:
    """Write a data set as PIE-Bench lies: `open_dataset(f"pie_bench:{folder}")` opens it.

    Pictures come to 512x512: one whose side divides 512 by repeating its pixels, which every `fit` takes back to that
    very picture; any other by its central square, resized (Lanczos). Masks are taken by nearest neighbour; who reads
    PIE-Bench sets their four borders to 1. A true edit has no place in the layout.

    Args:
        dataset: its items need a picture, two prompts and a mask; those without are left out, with the reason.
        folder: new, or empty.
        overwrite: replace a folder that holds nothing but such an export.
        each: goes through the places of the items: a progress bar.

    Raises:
        BadInput: a folder that is in the way or cannot be written, or no item that can be written.
    """
    target = Path(folder)
    check_folder(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder_made:
        making = Path(folder_made) / "whole"
        done = _Writing(broken=list(dataset.broken))
        for k in each(range(len(dataset))):
            _add(dataset, k, making, done)
        if not done.rows:
            few = "; ".join(f"{id}: {reason}" for id, reason in done.broken[:3])
            raise BadInput(f"{dataset.spec}: none of its {len(done.broken)} items can be written as PIE-Bench: {few}")
        index = json.dumps(done.rows, indent=1, ensure_ascii=False) + "\n"
        atomic_write(making / INDEX, lambda temporary: temporary.write_text(index, encoding="utf-8"))
        if target.exists():
            shutil.rmtree(target)
        os.replace(making, target)
    return Exported(target, len(done.rows), done.broken, list(done.notes))


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that is in the way.

    Raises:
        BadInput: a file, a folder with other things in it, or an export without `overwrite`.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise BadInput(f"{str(folder)!r} is no folder; choose another --output")
    found = {path.name for path in folder.iterdir()}
    if found and not (found <= {INDEX, PICTURES} and INDEX in found):
        raise BadInput(f"folder {str(folder)!r} holds other things ({sorted(found)[0]} ...); choose another --output")
    if found and not overwrite:
        raise BadInput(f"folder {str(folder)!r} holds a PIE-Bench already; give --overwrite, or another --output")


def bracketed(source: str, target: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Two prompts with brackets around the words in which they differ, and those words, pair by pair.

    Example:
        >>> bracketed("a red circle at the left", "a blue circle")
        ('a [red] circle [at the left]', 'a [blue] circle', [('red', 'blue'), ('at the left', '')])
    """
    texts = source, target
    words = [[match.span() for match in re.finditer(r"\w+|[^\w\s]", text)] for text in texts]
    spoken = [[text[a:b] for a, b in spans] for text, spans in zip(texts, words, strict=True)]
    matcher = difflib.SequenceMatcher(None, spoken[0], spoken[1], autojunk=False)
    pairs, made = [], ["", ""]
    ends = [0, 0]
    for tag, *spans in matcher.get_opcodes():
        if tag == "equal":
            continue
        parts = []
        for k, (first, last) in enumerate((spans[:2], spans[2:])):
            start, stop = (words[k][first][0], words[k][last - 1][1]) if first < last else (ends[k], ends[k])
            parts.append(texts[k][start:stop])
            if first < last:
                made[k] += texts[k][ends[k] : start] + f"[{parts[-1]}]"
                ends[k] = stop
        pairs.append((parts[0], parts[1]))
    return made[0] + source[ends[0] :], made[1] + target[ends[1] :], pairs


def runs_of(mask: Tensor) -> list[int]:
    """Start, length, start, length ... of what is over one half in a mask (1, 512, 512), over its rows."""
    import torch

    flat = (mask.flatten() > 0.5).int()
    edges = torch.diff(flat, prepend=flat.new_zeros(1), append=flat.new_zeros(1)).nonzero().flatten().tolist()
    return [n for start, stop in zip(edges[::2], edges[1::2], strict=True) for n in (start, stop - start)]


def _add(dataset: Dataset, k: int, folder: Path, done: _Writing) -> None:
    """Write one picture, and its row."""
    try:
        item = dataset[k]
        row = _row(item, done.notes)
        picture, mask = _square(item, done.notes)
    except BadInput as error:
        done.broken.append((dataset.ids[k], str(error)))
        return
    file = folder / PICTURES / row["image_path"]
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
    done.rows[item.id] = {**row, "mask": runs_of(mask)}


def _row(item: Item, notes: dict[str, None]) -> dict[str, Any]:
    """All but the mask."""
    if item.image is None:
        raise BadInput("it has no picture until a model makes it")
    if item.prompt is None or item.target_prompt is None:
        raise BadInput(f"it has no {'prompt' if item.prompt is None else 'target prompt'}")
    if any(letter in item.prompt + item.target_prompt for letter in "[]"):
        raise BadInput("its prompts hold brackets, which PIE-Bench keeps for the words that change")
    if item.mask is None:
        raise BadInput("it has no mask")
    if item.truth is not None:
        notes["true edits and scenes have no place in PIE-Bench's layout: metrics that need them answer null"] = None
    before, after, pairs = bracketed(item.prompt, item.target_prompt)
    one = [pair for pair in pairs if all(re.fullmatch(r"\w+", word) for word in pair)]
    name = item.category or OF_SCENES.get(item.changed or "", CATEGORIES[0])
    number = CATEGORIES.index(name)
    said = "; ".join(f"{a!r} to {b!r}" if a and b else f"add {b!r}" if b else f"remove {a!r}" for a, b in pairs)
    return {
        "image_path": f"{number}_{name}/{item.id}.png",
        "original_prompt": before,
        "editing_prompt": after,
        "editing_instruction": item.extra.get("instruction") or said,
        "editing_type_id": str(number),
        "blended_word": item.extra.get("blended_words") or (" ".join(one[0]) if len(pairs) == len(one) == 1 else ""),
    }


def _square(item: Item, notes: dict[str, None]) -> tuple[Image, Tensor]:
    """Picture and mask (1, 512, 512)."""
    import torch
    from PIL import Image

    picture, mask = item.image, item.mask
    assert mask is not None
    if isinstance(picture, torch.Tensor):
        picture = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if width != height:
        notes["pictures that are not square were cropped to their central square, and their masks with them"] = None
        picture = picture.crop((left, top, left + side, top + side))
    nearest = ((torch.arange(SIDE) + 0.5) * side / SIDE).long()
    mask = mask[..., top + nearest, :][..., left + nearest]
    if side == SIDE:
        return picture, mask
    repeated = SIDE % side == 0
    how = "by repeating their pixels" if repeated else "resized"
    notes[f"pictures of {side}x{side} were brought to {SIDE}x{SIDE}, {how}"] = None
    return picture.resize((SIDE, SIDE), Image.Resampling.NEAREST if repeated else Image.Resampling.LANCZOS), mask
