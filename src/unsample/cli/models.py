"""`unsample models`: what is bundled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from unsample.cli import options, talk
from unsample.cli.methods import table
from unsample.cli.options import examples


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    app.command("models", epilog=examples("unsample models", "unsample models --json"))(models)


def models(json: options.Json = False, debug: options.Debug = False) -> int:
    """List the bundled models and judges, with their sizes and what they are for.

    --model takes any diffusers folder or hub id of a supported kind as well.
    """
    from unsample.models.families import SUPPORTED
    from unsample.models.loading import BUNDLED, JUDGES

    rows = [row(name, what) for name, what in {**BUNDLED, **JUDGES}.items()]
    if json:
        talk.document({"models": rows, "families": SUPPORTED})
        return 0
    lines = [(r["name"], r["state"] if r["bytes"] is None else f"{r['bytes'] / 1e6:.1f} MB", r["what"]) for r in rows]
    talk.answer(table([("name", "size", "what"), *lines]))
    talk.answer(f"\n--model also takes a folder or a hub id (owner/name) of {SUPPORTED}.")
    return 0


def row(name: str, what: str) -> dict[str, Any]:
    """One bundled model, or one that only judges."""
    from unsample.models.loading import BUNDLED, BUNDLED_FOLDER, MIXTURE

    folder = BUNDLED_FOLDER / name
    about: dict[str, Any] = {"name": name, "what": what, "invertible": name in BUNDLED, "bytes": None, "folder": None}
    if name == MIXTURE:
        return about | {"state": "no file"}
    if not (folder / ("model_index.json" if name in BUNDLED else "config.json")).is_file():
        return about | {"state": "missing"}
    return about | {"state": "here", "bytes": size(folder), "folder": str(folder)}


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
