"""Index files: JSON, JSON lines and CSV of others, read with a limit on their size."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from unsample.errors import BadInput

MAX_BYTES = 512 * 2**20
BEYOND = ""  # the column of cells for which there is no name


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a key that stands there twice is seen."""


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        BadInput: it cannot be read, is over 512 MB, or is not UTF-8.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadInput(f"{str(path)!r} has {size / 2**20:.0f} MB, the limit is {MAX_BYTES // 2**20} MB; split it")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{str(path)!r} cannot be read as text: {error}; save it as UTF-8") from error


def read_json(path: Path) -> Any:
    """A JSON file; its objects come as `Pairs`.

    Raises:
        BadInput: it is not JSON.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=Pairs)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{str(path)!r} is not JSON: {error}; get the file again") from error


def read_table(path: Path) -> list[dict[str, Any] | BadInput]:
    """The rows of a .csv (with a line of names) or .jsonl file; of a line that is no row, the reason.

    Raises:
        BadInput: it cannot be read at all.
    """
    content = read_text(path)
    return _csv(path, content) if path.suffix.lower() == ".csv" else _json_lines(content)


def _csv(path: Path, content: str) -> list[dict[str, Any] | BadInput]:
    try:
        return list(csv.DictReader(io.StringIO(content, newline=""), restkey=BEYOND, strict=True))
    except csv.Error as error:
        raise BadInput(f"{str(path)!r} is not CSV: {error}; save it anew, with commas and double quotes") from error


def _json_lines(content: str) -> list[dict[str, Any] | BadInput]:
    rows: list[dict[str, Any] | BadInput] = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append(row if isinstance(row, dict) else BadInput(f"line {number} is no JSON object"))
        except (ValueError, RecursionError) as error:
            rows.append(BadInput(f"line {number} is not JSON: {error}"))
    return rows
