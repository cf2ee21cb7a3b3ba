"""unsample: diffusion inversion. Generation samples; we unsample.

Public names are imported when they are first used, so `import unsample` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsample import datasets, edits, methods, metrics, studies, testing, watermarks
    from unsample.collections.api import invert_collection
    from unsample.collections.opened import Collection
    from unsample.errors import BadInput, BadOption, Diverged, Incompatible, UnknownName, UnsampleError, WeightsMissing
    from unsample.metrics.measuring import measure
    from unsample.studies.api import study
    from unsample.verbs.api import edit, interpolate, invert, load, reconstruct, sample, wrap
    from unsample.verbs.checking import check
    from unsample.verbs.comfyui import from_comfyui
    from unsample.verbs.learning import train_inverse
    from unsample.verbs.results import Images, Inversion

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("edit", "interpolate", "invert", "load", "reconstruct", "sample", "wrap"), "verbs.api"),
    **dict.fromkeys(("Images", "Inversion"), "verbs.results"),
    "check": "verbs.checking",
    "from_comfyui": "verbs.comfyui",
    "invert_collection": "collections.api",
    "Collection": "collections.opened",
    "measure": "metrics.measuring",
    "study": "studies.api",
    "train_inverse": "verbs.learning",
    **dict.fromkeys(("BadInput", "BadOption", "Diverged", "Incompatible"), "errors"),
    **dict.fromkeys(("UnknownName", "UnsampleError", "WeightsMissing"), "errors"),
}
_PACKAGES = ("datasets", "edits", "methods", "metrics", "studies", "testing", "watermarks")

__all__ = [
    "BadInput",
    "BadOption",
    "Collection",
    "Diverged",
    "Images",
    "Incompatible",
    "Inversion",
    "UnknownName",
    "UnsampleError",
    "WeightsMissing",
    "check",
    "datasets",
    "edit",
    "edits",
    "from_comfyui",
    "interpolate",
    "invert",
    "invert_collection",
    "load",
    "measure",
    "methods",
    "metrics",
    "reconstruct",
    "sample",
    "studies",
    "study",
    "testing",
    "train_inverse",
    "watermarks",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"unsample.{name}")
    if name in _HOMES:
        return getattr(import_module(f"unsample.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'unsample' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
