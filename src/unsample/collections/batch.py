"""A batch of a collection: neighbouring items, with the rows of their data set, so that a worker needs no index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from unsample.bench.cells import Divided


@dataclass(frozen=True)
class Chunk(Divided):
    """Some items of a collection. Picklable."""

    data: Any  # a data set of these items alone, or (of one that is made on the spot) the whole of it
    places: tuple[int, ...]  # in `data`
    ids: tuple[str, ...]
    stamps: tuple[str, ...]
    digests: tuple[str | None, ...]  # of those that were done before, as another file
    group: object = ()
    attempt: int = 1
    deaths: int = 0

    @property
    def sized(self) -> str:
        """What memory depends on beside the number of pictures: one job, one model."""
        return ""

    def only(self, keep: Sequence[int]) -> Self:
        """See `Divided`."""
        lists = ("places", "ids", "stamps", "digests")
        picked: dict[str, Any] = {name: tuple(getattr(self, name)[k] for k in keep) for name in lists}
        return replace(self, **picked)
