"""Data sets: `open_dataset("scenes:200")`, and the table `DATASETS`. `scenes` is built in: `unsample.datasets.scenes`.

Names are imported when they are first used: the world of scenes stands below the models, and brings nothing with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unsample.datasets.scenes import Scene, Scenes, draw_scene, render

if TYPE_CHECKING:
    from unsample.datasets.edits import changed
    from unsample.datasets.item import Dataset, Item
    from unsample.datasets.opening import open_dataset
    from unsample.datasets.spec import DatasetFacts
    from unsample.datasets.table import DATASETS

_HOMES = {
    "changed": "edits",
    "DatasetFacts": "spec",
    **dict.fromkeys(("Dataset", "Item"), "item"),
    "open_dataset": "opening",
    "DATASETS": "table",
}

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetFacts",
    "Item",
    "Scene",
    "Scenes",
    "changed",
    "draw_scene",
    "open_dataset",
    "render",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"unsample.datasets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'unsample.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
