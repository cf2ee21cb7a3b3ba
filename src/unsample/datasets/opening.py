"""`open_dataset`: a data set from the text that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unsample.datasets.spec import read_spec
from unsample.datasets.table import DATASETS

if TYPE_CHECKING:
    from unsample.datasets.item import Dataset


def open_dataset(spec: str, *, size: int = 64) -> Dataset:
    """Open a data set; no picture is decoded, and torch is not needed yet.

    Args:
        spec: `NAME[:FIRST][,key=value]...`, as `DATASETS` and `unsample datasets` show.
        size: side in pixels of scenes; other pictures keep their own size.

    Raises:
        BadOption: the spec cannot be.
        BadInput: there is nothing at its path, its format is another one, or none of its rows can be used.

    Example:
        >>> item = open_dataset("scenes:3,split=tune")[0]
        >>> item.id, item.image.shape
        ('tune-0', torch.Size([3, 64, 64]))
    """
    found = read_spec(spec, DATASETS)
    return found.facts.opens(found, size)
