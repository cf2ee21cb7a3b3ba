"""How much of others' files is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from unsample.errors import BadInput

MAX_BYTES = 512 * 2**20  # of a file that is read row by row
MAX_ROWS = 500_000
T = TypeVar("T")


def capped(rows: Iterable[T], where: Path, advice: str = "split it, or take the first ones with limit=") -> Iterator[T]:
    """The rows, as long as they are not too many.

    Raises:
        BadInput: over 500,000.
    """
    for number, row in enumerate(rows):
        if number == MAX_ROWS:
            raise BadInput(f"{str(where)!r} has over {MAX_ROWS:,} rows; {advice}")
        yield row
