"""`unsample models`: what is bundled. `unsample models families`: what else is served, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument

from unsample.cli import options, talk
from unsample.cli.methods import table
from unsample.cli.options import examples
from unsample.errors import BadOption


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    app.command("models", epilog=examples("unsample models", "unsample models families --json"))(models)


def models(
    what: Annotated[
        str | None, Argument(metavar="[families]", help="What else --model takes.", show_default="what is bundled")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """List the bundled models and judges, with their sizes and what they are for.

    --model takes any diffusers folder or hub id of a supported kind as well:
    'unsample models families' lists those, how each is served and what was tried,
    and what is refused and why.
    """
    if what is not None:
        if what != "families":
            raise BadOption(f"unsample models lists what is bundled, and 'families' what else is served; got {what!r}")
        return families(json)
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


def families(json: bool) -> int:
    """What is served beside the bundled models, and what is refused."""
    from unsample.models.families import FAMILIES, SUPPORTED
    from unsample.models.served import HEAD, cells, refused

    if json:
        served = [asdict(family) for family in FAMILIES]
        reasons = [{"why": why, "names": names} for why, names in refused().items()]
        talk.document({"served": served, "refused": reasons, "supported": SUPPORTED})
        return 0
    talk.answer(table([HEAD, *map(cells, FAMILIES)]))
    talk.answer(
        "\nAny other text-to-image, class-to-image or unconditional pipeline with one denoiser is replayed too."
    )
    talk.answer("None was run on real weights: 'unsample doctor --model NAME' checks yours.\n")
    talk.answer("Refused, by a part of the class's name:")
    talk.answer("\n".join(f"  {', '.join(names)}: {why}" for why, names in refused().items()))
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
