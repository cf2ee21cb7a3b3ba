"""`pie_bench`: PIE-Bench, 700 pictures of 512x512 with prompts before and after an edit and a mask of it.

Two editions: the authors' folder (mapping_file.json and annotation_images/), and parquet (PIE-Bench++, a folder a
category). A mask is a list start, length, start, length ... over the rows of 512x512 pixels, 1 where the picture is to
be edited; like the authors' code, `decode_mask` cuts a run that reaches past the end, and sets all four border rows
and columns to 1 (annotation errors). Words in brackets are those that change; the brackets are not part of a prompt.

The parquet edition changes several aspects at once: its prompts are others, and its figures do not compare.

Reference: Ju et al., 2023, arXiv:2310.01506; PIE-Bench++: Huang et al., 2024, arXiv:2406.00985.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.datasets.index import Pairs, find_columns, read_json
from unsample.datasets.item import Item
from unsample.datasets.limits import capped
from unsample.datasets.parquet import RowPlace, cells_of, columns_of, picture_of, tables_in, texts_of
from unsample.datasets.rows import Rows, gather, inside, needed, noted, safe_id
from unsample.datasets.spec import Spec
from unsample.errors import BadInput, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.media.pictures import Picture

SIDE = 512
INDEX, PICTURES = "mapping_file.json", "annotation_images"
CATEGORIES = (
    "random",
    "change_object",
    "add_object",
    "delete_object",
    "change_attribute_content",
    "change_attribute_pose",
    "change_attribute_color",
    "change_attribute_material",
    "change_background",
    "change_style",
)
KIN = {  # our name to the names that editions use
    "image": ("image", "source_image"),
    "id": ("id", "image_id", "key"),
    "source_prompt": ("source_prompt", "original_prompt"),
    "target_prompt": ("target_prompt", "editing_prompt", "edit_prompt"),
    "mask": ("mask",),
    "category": ("editing_type_id", "category"),
    "instruction": ("editing_instruction", "instruction", "edit_action"),
    "blended_words": ("blended_words", "blended_word"),
}


@dataclass(frozen=True, slots=True)
class PromptEdit:
    """A row: where its picture is, and all else."""

    picture: Path | RowPlace
    source_prompt: str  # with the brackets around what changes
    target_prompt: str
    runs: Sequence[int] | None
    category: str | None
    instruction: Any = None
    blended_words: Any = None


def open_pie_bench(spec: Spec, size: int) -> Rows[PromptEdit]:
    """Either edition, by what lies in the folder; `category=0+3` or names keep some types."""
    wanted = categories(spec.options["category"]) if "category" in spec.options else None
    path = spec.path("any")
    if path.is_dir() and (path / INDEX).is_file():
        return gather(spec.written(), _listed(path, wanted), partial(_check_listed, path / PICTURES), _read, spec.limit)
    if path.is_dir() and not any(path.rglob("*.parquet")):
        raise BadInput(
            f"pie_bench: {str(path)!r} holds neither {INDEX} nor .parquet files; 'unsample datasets pie_bench' shows "
            "both layouts"
        )
    files = tables_in(path, "pie_bench")
    columns = columns_of(files)
    names = find_columns(columns, KIN, f"pie_bench: {files[0].name}")
    if lacking := [n for n in ("image", "id", "source_prompt", "target_prompt") if n not in names]:
        found = ", ".join(columns)
        raise BadInput(f"pie_bench: {files[0].name} has no column {' and no '.join(lacking)}; found {found}")
    return gather(
        spec.written(),
        _cells(files, names, wanted),
        partial(_check, path),
        partial(_read_cell, names["image"], path if path.is_dir() else path.parent),
        spec.limit,
    )


def categories(text: str) -> list[str]:
    """Names of types of edits from `0+3` or names.

    Raises:
        UnknownName: no such type.
    """
    found = []
    for word in text.split("+"):
        name = CATEGORIES[int(word)] if re.fullmatch("[0-9]", word.strip()) else word.strip()
        if name not in CATEGORIES:
            raise unknown_name("category of pie_bench", name, [*CATEGORIES, *map(str, range(len(CATEGORIES)))])
        found.append(name)
    return found


def check_mask(value: Any) -> Sequence[int]:
    """The runs of a mask: numbers, or the text that the parquet edition has; what reaches past the end is cut.

    Raises:
        BadInput: not pairs of whole numbers inside the picture.
    """
    runs = value
    if isinstance(value, str):
        if not re.fullmatch(r"[\[\]\s,0-9]*", value):
            raise BadInput(f"its mask is no list of numbers: {value[:40]!r}")
        runs = [int(number[:12]) for number in re.findall("[0-9]+", value)]  # longer ones are past the end too
    if not isinstance(runs, list) or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in runs):
        raise BadInput("its mask is no list of whole numbers")
    if len(runs) >= SIDE * SIDE:
        raise BadInput(f"its mask has {len(runs)} numbers, as many as pixels; runs of start and length are wanted")
    if len(runs) % 2:
        raise BadInput(f"its mask has {len(runs)} numbers; pairs of start and length are wanted")
    if runs and max(runs[::2]) >= SIDE * SIDE:
        raise BadInput(f"its mask has a run that starts at {max(runs[::2])}, past the {SIDE}x{SIDE} pixels")
    return array("I", (min(n, SIDE * SIDE) for n in runs))


def decode_mask(runs: Sequence[int], size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    """A mask (1, H, W) of 0 and 1 from runs; a square picture of another size gets it by nearest neighbour.

    Raises:
        BadInput: the picture is not square.
    """
    import torch

    width, height = size
    if width != height:
        raise BadInput(f"its picture is {width}x{height}; masks are of the square {SIDE}x{SIDE}")
    flat = torch.zeros(SIDE * SIDE)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 1  # cut at the end
    mask = flat.view(SIDE, SIDE)
    if width != SIDE:
        nearest = ((torch.arange(width) + 0.5) * SIDE / width).long()
        mask = mask[nearest][:, nearest]
    mask[[0, -1]] = 1
    mask[:, [0, -1]] = 1
    return mask[None]


def _listed(folder: Path, wanted: list[str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    with read_json(folder / INDEX) as reader:
        if reader.peek() != "{":
            kind = type(reader.value()).__name__
            raise BadInput(f"{str(folder / INDEX)!r} is no mapping of ids to rows, but a {kind}")
        for key in capped(reader.keys(), folder / INDEX):
            value = reader.value()
            row = dict(value) if isinstance(value, Pairs) else {"row": value}
            category = category_of(row.get("editing_type_id"))
            if wanted is None or category is None or category in wanted:
                yield safe_id(key), {**row, "picture": row.get("image_path"), "category": category}
        reader.end()


def _cells(
    files: list[Path], names: Mapping[str, str], wanted: list[str] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    light = {ours: theirs for ours, theirs in names.items() if ours != "image"}
    for number, (place, cells) in enumerate(texts_of(files, list(light.values()))):
        row = {ours: cells[theirs] for ours, theirs in light.items()}
        folders = (re.match("([0-9])_", part) for part in reversed(place.file.parts))
        category = category_of(row.get("category")) or category_of(next((m[1] for m in folders if m), None))
        if wanted is None or category in wanted:
            id = safe_id(str(row["id"])) if isinstance(row["id"], str | int) else f"row-{number}"
            kept = {"original_prompt": row["source_prompt"], "editing_prompt": row["target_prompt"]}
            more = {"editing_instruction": row.get("instruction"), "blended_word": row.get("blended_words")}
            more |= {"mask": row.get("mask"), "picture": place, "category": category}
            yield id, {**kept, **more}


def category_of(value: Any) -> str | None:
    """The name of a type from its number, "0" to "9", or its name."""
    text = str(value) if isinstance(value, str | int) else ""
    return CATEGORIES[int(text)] if re.fullmatch("[0-9]", text) else text if text in CATEGORIES else None


def _check_listed(folder: Path, row: Mapping[str, Any]) -> PromptEdit:
    """A row of mapping_file.json, which must be whole."""
    if "row" in row:
        raise BadInput(f"it is no JSON object, but a {type(row['row']).__name__}")
    edit = _check(folder, row)
    if edit.category is None:
        raise BadInput(f"its editing_type_id is {row.get('editing_type_id')!r}; 0 to 9 are known")
    if edit.runs is None:
        raise BadInput("it has no mask")
    return edit


def _check(folder: Path, row: Mapping[str, Any]) -> PromptEdit:
    before, after = needed(row, "original_prompt"), needed(row, "editing_prompt")
    runs = None if row.get("mask") is None else check_mask(row["mask"])
    picture = row["picture"] if isinstance(row["picture"], RowPlace) else inside(folder, row["picture"])
    return PromptEdit(
        picture, before, after, runs, row["category"], row.get("editing_instruction"), row.get("blended_word")
    )


def _bare(prompt: str) -> str:
    return prompt.replace("[", "").replace("]", "")


def _read(id: str, edit: PromptEdit) -> Item:
    from unsample.media.pictures import open_picture

    assert isinstance(edit.picture, Path)
    return _item(id, edit, open_picture(edit.picture))


def _read_cell(column: str, folder: Path, id: str, edit: PromptEdit) -> Item:
    assert isinstance(edit.picture, RowPlace)
    return _item(id, edit, picture_of(cells_of(edit.picture, [column])[column], "image", folder))


def _item(id: str, edit: PromptEdit, picture: Picture) -> Item:
    kept = ("source_prompt", "target_prompt", "instruction", "blended_words")
    extra = {name: value for name in kept if (value := getattr(edit, name))}
    return Item(
        id=id,
        image=picture.pixels,
        prompt=_bare(edit.source_prompt),
        target_prompt=_bare(edit.target_prompt),
        mask=None if edit.runs is None else decode_mask(edit.runs, picture.pixels.size),
        category=edit.category,
        extra={**extra, **noted(picture)},
    )
