"""What the table knows of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unsample.datasets.item import Dataset
    from unsample.datasets.spec import Spec


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """One row of `DATASETS`."""

    name: str
    summary: str
    opens: Callable[[Spec, int], Dataset]  # the spec, and the side in pixels of what is rendered
    first: str  # what stands after the colon: a count, a folder ...
    takes_path: bool  # FIRST is a path, and must be given
    example: str
    options: Mapping[str, str]  # key to what it takes, in the order in which a spec is written
    flags: tuple[str, ...] = ()  # options that are a word without a value
    has: tuple[str, ...]  # of an item's fields, those that can be known
    layout: str  # how its files lie
    reference: str
    licence: str
