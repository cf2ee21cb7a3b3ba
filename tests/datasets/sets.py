"""Small data sets in the real formats, written into a folder: real PNGs, a real mapping_file.json, real parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 512


def colourful(seed: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """Noise in colour, so that two pictures are never the same."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def flat(colour: str, side: int = SIDE) -> Image.Image:
    """One colour; compresses to nothing."""
    return Image.new("RGB", (side, side), colour)


def saved(image: Image.Image, path: Path) -> Path:
    """Written, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def png(image: Image.Image) -> bytes:
    """As the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def damaged(path: Path) -> Path:
    """A PNG that is cut short."""
    content = png(colourful(99, (64, 64)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content[: len(content) // 2])
    return path


def independent_mask(runs: Sequence[int]) -> np.ndarray[Any, Any]:
    """PIE-Bench's mask, pixel by pixel: another way to the same (512, 512)."""
    inside = {
        pixel for start, length in zip(runs[::2], runs[1::2], strict=True) for pixel in range(start, start + length)
    }
    border = {0, SIDE - 1}
    return np.array(
        [[float(y in border or x in border or y * SIDE + x in inside) for x in range(SIDE)] for y in range(SIDE)]
    )


def pie_row(number: int, category: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of mapping_file.json; a change to None takes the field out."""
    row = {
        "image_path": f"{category}_type/{number:012d}.png",
        "original_prompt": "a [dog] on a wooden chair",
        "editing_prompt": "a [cat] on a wooden chair",
        "editing_instruction": "Change the animal from a dog to a cat",
        "editing_type_id": str(category),
        "blended_word": "dog cat",
        "mask": [SIDE * 100 + 50, 30, SIDE * 101 + 50, 30],
        **changes,
    }
    return {key: value for key, value in row.items() if value is not None}


def pie_folder(folder: Path, rows: Mapping[str, Any], text: str | None = None) -> Path:
    """The authors' edition: the index and a picture for each row that has none yet and names one inside."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mapping_file.json").write_text(json.dumps(rows) if text is None else text)
    for k, row in enumerate(rows.values()):
        name = row.get("image_path") if isinstance(row, dict) else None
        if name and ".." not in name and not name.startswith(("/", "gone")) and not (folder / name).exists():
            saved(flat(f"rgb({k * 20}, 90, 30)"), folder / "annotation_images" / name)
    return folder


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], group: int = 2) -> Path:
    """Rows as parquet, pictures as the hub has them: {bytes, path}."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{key: _cell(value, key) for key, value in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(cells), path, row_group_size=group)
    return path


def _cell(value: Any, key: str) -> Any:
    return {"bytes": png(value), "path": f"{key}.png"} if isinstance(value, Image.Image) else value


def genai_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of GenAI-Bench's image edition."""
    return {
        "source_prompt": f"a photo of {number} dogs",
        "target_prompt": f"a photo of {number} cats",
        "instruct_prompt": "replace the dogs by cats",
        "source_image": colourful(number),
        "left_model": "Prompt2prompt",
        "left_output_image": colourful(number + 100),
        "right_model": "CycleDiffusion",
        "right_output_image": colourful(number + 200),
        "vote_type": "leftvote",
        **changes,
    }
