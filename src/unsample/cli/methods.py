"""`unsample methods`: the table of inversion methods, or one of them with its settings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument

from unsample.cli import options, talk
from unsample.cli.options import examples


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    app.command("methods", epilog=examples("unsample methods", "unsample methods fixed_point"))(methods)


def methods(
    name: Annotated[
        str | None, Argument(metavar="[NAME]", help="A method, to see its settings.", show_default="all, in short")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """List the inversion methods, or show one with its settings and its paper."""
    from unsample.methods import METHODS, get_method

    if name is not None:
        get_method(name)  # refuses a name that is not in the table
    rows = [row(n) for n in METHODS if name in (None, n)]
    if json:
        talk.document({"methods": rows})
    elif name is None:
        talk.answer(
            table(
                [
                    ("name", "cost", "year", "what"),
                    *((r["name"], r["cost"], str(r["year"]), r["summary"]) for r in rows),
                ]
            )
        )
        talk.answer("\nT is the number of steps. 'unsample methods NAME' shows a method's settings.")
    else:
        talk.answer(page(rows[0]))
    return 0


def row(name: str) -> dict[str, Any]:
    """All that the table knows of a method."""
    from unsample.methods import METHODS

    facts = METHODS[name]
    settings = [
        {"name": n, "default": p.default, "type": p.annotation if isinstance(p.annotation, str) else str(p.annotation)}
        for n, p in inspect.signature(facts.factory).parameters.items()
    ]
    kept = ("summary", "family", "equation", "cost", "year", "reference")
    return {"name": name} | {k: getattr(facts, k) for k in kept} | {"settings": settings}


def page(method: dict[str, Any]) -> str:
    """One method, for reading."""
    settings = [f"  --set {s['name']}={s['default']}   ({s['type']})" for s in method["settings"]]
    lines = [
        f"{method['name']}: {method['summary']}",
        "",
        f"  {method['equation']}",
        "",
        *table([(k, str(method[k])) for k in ("family", "cost", "reference")]).splitlines(),
        "",
        "settings, with their defaults:",
        *(settings or ["  none"]),
    ]
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, padded."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
