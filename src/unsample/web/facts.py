"""What the page lets choose from: models, methods, editors, with their own words, as the command line lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unsample import __version__
from unsample.cli.methods import editor_row, row
from unsample.datasets.scenes import ATTRIBUTES
from unsample.edits import EDITORS
from unsample.edits.choose import AUTO
from unsample.methods import METHODS
from unsample.models.domain import DRAWN, drawn
from unsample.models.loading import BUNDLED
from unsample.preflight.known import KnownModel, known_model
from unsample.web.asked import OF_FILES
from unsample.web.settings import as_texts

METHOD = (
    *("name", "summary", "family", "cost", "equation", "reference", "models", "edits", "gradients"),
    *("refuses_diffusion", "refuses_flow", "settings", "presets"),
)
EDITOR = ("name", "summary", "cost", "equation", "reference", "needs", "mask", "settings", "presets")
CHOSEN_LATER = "Editor, guidance and mask by the kind of edit that the two prompts ask for."


def models(given: tuple[str, ...]) -> dict[str, KnownModel]:
    """The models that may be named: those that the server was started with, and the bundled ones.

    Raises:
        WeightsMissing: one that was given is not here.
    """
    return {name: known_model(name) for name in dict.fromkeys([*given, *BUNDLED])}


def facts(known: Mapping[str, KnownModel]) -> dict[str, Any]:
    """All that the page is told at its start."""
    return {
        "version": __version__,
        "models": [_model(name, model) for name, model in known.items()],
        "methods": [_told(own, METHOD) for own in map(row, METHODS) if not own["needs_trajectory"]],
        "editors": [
            {"name": AUTO, "summary": CHOSEN_LATER, "needs": "a source prompt and a target prompt", "settings": [],
             "presets": {}, "mask": True, "cost": ""},
            *(_told(editor_row(name), EDITOR) for name in EDITORS),
        ],
        "words": {name: list(values) for name, values in ATTRIBUTES.items()},
    }  # fmt: skip


def _told(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    own = {name: row[name] for name in names}
    defaults = as_texts({s["name"]: s["default"] for s in row["settings"]})
    shown = [s for s in row["settings"] if s["name"] not in OF_FILES]
    settings = [{**s, "default": defaults.get(s["name"], "")} for s in shown]
    return own | {"settings": settings, "presets": list(row["presets"])}


def _model(name: str, known: KnownModel) -> dict[str, Any]:
    world = drawn(name)
    return {
        "name": name,
        "what": BUNDLED.get(name, "given when the server was started"),
        "takes_prompt": known.takes_prompt,
        "steps": known.num_train_timesteps,
        "classes": known.num_classes or 0,
        "flow": known.flow,
        "draws_scenes": world is not None,
        "side": DRAWN[world][0] if world else None,
    }
