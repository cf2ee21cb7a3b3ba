"""`genai_bench`: the image edition of GenAI-Bench (Jiang et al., 2024, arXiv:2406.04485): prompts, pictures, votes.

Parquet files in a folder, or a hub id through the package `datasets` (the extra `[datasets]`). Copies of the set name
their columns differently, so they are looked for when it is opened. Two other benchmarks have the same name: one of
text to picture (CMU) and one of serving language models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unsample.datasets.index import find_columns as match_columns
from unsample.datasets.item import Item
from unsample.datasets.parquet import RowPlace, cells_of, columns_of, picture_of, split_of, tables_in, texts_of
from unsample.datasets.rows import Rows, gather, needed, noted, text
from unsample.datasets.spec import Spec
from unsample.errors import BadInput, first_line

EDITION = "image_edition"
TEXTS = {  # our name to the names that copies use
    "source_prompt": ("source_prompt", "original_prompt", "input_prompt", "source_caption", "input_caption"),
    "target_prompt": ("target_prompt", "edited_prompt", "output_prompt", "target_caption", "output_caption"),
    "instruct_prompt": ("instruct_prompt", "instruction", "instruction_prompt", "edit_prompt", "edit_instruction"),
    "left_model": ("left_model", "model_left", "model_a"),
    "right_model": ("right_model", "model_right", "model_b"),
    "vote_type": ("vote_type", "vote", "preference"),
}
PICTURES = {
    "source_image": ("source_image", "input_image", "original_image", "source", "image"),
    "left_output_image": ("left_output_image", "left_image", "output_image_left", "image_a"),
    "right_output_image": ("right_output_image", "right_image", "output_image_right", "image_b"),
}


@dataclass(frozen=True, slots=True)
class Battle:
    """A row: where it lies (in a file, or its number in `datasets`), and its texts by our names."""

    place: RowPlace | int
    texts: Mapping[str, str]


def open_genai_bench(spec: Spec, size: int) -> Rows[Battle]:
    """Rows in their order; an id is the number of a row."""
    if spec.first is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", spec.first) and not Path(spec.first).exists():
        return _from_hub(spec, spec.first)
    path = spec.path("any")
    files = _of_one_split(tables_in(path, "genai_bench"), path, spec)
    names = find_columns(columns_of(files))
    texts = {ours: theirs for ours, theirs in names.items() if ours in TEXTS}
    pictures = {ours: theirs for ours, theirs in names.items() if ours in PICTURES}
    read = partial(_read_cells, pictures, path if path.is_dir() else path.parent)
    return gather(
        spec.written(), _numbered(texts_of(files, list(texts.values()))), partial(_check, texts), read, spec.limit
    )


def find_columns(columns: Sequence[str]) -> dict[str, str]:
    """Our names for the columns that are there, to theirs.

    Raises:
        BadInput: no source picture, neither target prompt nor instruction, or two columns that are one.
    """
    found = match_columns(columns, {**TEXTS, **PICTURES}, "genai_bench: the table")
    if "source_image" not in found or not {"target_prompt", "instruct_prompt"} & set(found):
        raise BadInput(
            f"genai_bench: this is not the image edition: it needs a column source_image, and target_prompt or "
            f"instruct_prompt; found {', '.join(columns)}"
        )
    return found


def _of_one_split(files: list[Path], path: Path, spec: Spec) -> list[Path]:
    """The files of the image edition, and of one split of it.

    Raises:
        BadInput: no such split, or several and none asked for.
    """
    config = spec.options.get("config", EDITION)
    named = [f for f in files if config in f.relative_to(path.parent).parts]
    if not named and "config" in spec.options:
        raise BadInput(f"genai_bench: there is no folder {config!r} with .parquet files in {str(path)!r}")
    files = named or files
    splits = sorted({split_of(f) for f in files})
    wanted = spec.options.get("split", splits[0])
    if wanted not in splits or (len(splits) > 1 and "split" not in spec.options):
        raise BadInput(
            f"genai_bench: {str(path)!r} holds the split{'s' * (len(splits) > 1)} {', '.join(splits)}; "
            f"choose with split={splits[-1]}"
        )
    return [f for f in files if split_of(f) == wanted]


def _numbered(rows: Iterator[tuple[Any, Mapping[str, Any]]]) -> Iterator[tuple[str, tuple[Any, Mapping[str, Any]]]]:
    return ((f"{number:06d}", row) for number, row in enumerate(rows))


def _check(names: Mapping[str, str], row: tuple[RowPlace | int, Mapping[str, Any]]) -> Battle:
    place, cells = row
    prompts = [n for n in ("source_prompt", "target_prompt") if n in names] or ["instruct_prompt"]
    for name in prompts:
        needed(cells, names[name])
    found = {ours: text(cells, theirs) for ours, theirs in names.items()}
    return Battle(place, {ours: value for ours, value in found.items() if value is not None})


def _read_cells(pictures: Mapping[str, str], folder: Path, id: str, battle: Battle) -> Item:
    assert isinstance(battle.place, RowPlace)
    return _item(id, battle, cells_of(battle.place, list(pictures.values())), pictures, folder)


def _item(id: str, battle: Battle, cells: Mapping[str, Any], names: Mapping[str, str], folder: Path | None) -> Item:
    source = picture_of(cells[names["source_image"]], "source_image", folder)
    extra: dict[str, Any] = {k: v for k, v in battle.texts.items() if k not in ("source_prompt", "target_prompt")}
    for ours in ("left_output_image", "right_output_image"):
        if ours in names and cells[names[ours]] is not None:
            extra[ours] = picture_of(cells[names[ours]], ours, folder).pixels
    return Item(
        id=id,
        image=source.pixels,
        prompt=battle.texts.get("source_prompt"),
        target_prompt=battle.texts.get("target_prompt"),
        extra={**extra, **noted(source)},
    )


# ---------------------------------------------------------------- through the package `datasets`


def _from_hub(spec: Spec, name: str) -> Rows[Battle]:
    """A set of the hub, or of its cache.

    Raises:
        BadInput: `datasets` is not installed, or cannot load it.
    """
    if find_spec("datasets") is None:
        raise BadInput(
            f"genai_bench: there is no folder {name!r}, and a hub id needs the package datasets: pip install "
            "'unsample[datasets]'"
        )
    import datasets

    config, split = spec.options.get("config"), spec.options.get("split")
    try:
        loaded = datasets.load_dataset(
            name, config or (EDITION if name.endswith("/GenAI-Bench") else None), split=split
        )
    except Exception as error:  # it raises its own kinds, OSError, ValueError and the hub's
        reason = first_line(error, type(error).__name__)
        raise BadInput(f"genai_bench: cannot load {name!r}: {reason}; see config= and split=") from error
    if split is None:
        if len(loaded) != 1:
            raise BadInput(f"genai_bench: {name!r} holds the splits {', '.join(loaded)}; choose with split=")
        loaded = next(iter(loaded.values()))
    names = find_columns(loaded.column_names)
    pictures = {ours: theirs for ours, theirs in names.items() if ours in PICTURES}
    for theirs in pictures.values():
        loaded = loaded.cast_column(theirs, datasets.Image(decode=False))
    texts = {ours: theirs for ours, theirs in names.items() if ours in TEXTS}
    rows = enumerate(loaded.select_columns(list(texts.values())))
    return gather(
        spec.written(), _numbered(rows), partial(_check, texts), partial(_read_hub, loaded, pictures), spec.limit
    )


def _read_hub(loaded: Any, pictures: Mapping[str, str], id: str, battle: Battle) -> Item:
    return _item(id, battle, loaded[battle.place], pictures, None)
