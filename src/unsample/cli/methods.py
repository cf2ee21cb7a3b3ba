"""`unsample methods`: the table of inversion methods, or one of them with its settings. `unsample cite`: BibTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument

from unsample.cli import options, talk
from unsample.cli.options import examples

COLUMNS = ("name", "family", "keeps", "gradients", "exact", "models", "year", "paper", "cost")


def add_to(app: typer.Typer) -> None:
    """The verbs and their examples."""
    app.command("methods", epilog=examples("unsample methods", "unsample methods fixed_point"))(methods)
    app.command("cite", epilog=examples("unsample cite ddim null_text", "unsample cite --json"))(cite)


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
        shown = [[_short(r[c]) for c in COLUMNS] for r in rows]
        talk.answer(table([COLUMNS, *shown]))
        talk.answer(
            "\nkeeps: the noise alone, or a record with more. T is the number of steps; a guided pass (guidance other\n"
            "than 0 and 1) counts twice. 'unsample methods NAME' shows a method's equation, settings and presets,\n"
            "'unsample cite NAME' its BibTeX."
        )
    else:
        talk.answer(page(rows[0]))
    return 0


def cite(
    names: Annotated[
        list[str] | None, Argument(metavar="[NAME]...", help="Methods.", show_default="all of them")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Print the BibTeX of the papers behind methods."""
    from unsample.methods import METHODS, get_method
    from unsample.methods.citations import arxiv_ids, entries

    for name in names or []:
        get_method(name)
    found = {name: arxiv_ids(METHODS[name].reference) for name in names or METHODS}
    text = "\n\n".join(dict.fromkeys(entry for name in found for entry in entries(name, METHODS[name])))
    if json:
        talk.document({"methods": found, "bibtex": text})
    else:
        talk.answer(text)
    return 0


def row(name: str) -> dict[str, Any]:
    """All that the table knows of a method."""
    from unsample.methods import METHODS, declarations, get_method

    facts, method = METHODS[name], get_method(name)
    settings = [
        {"name": d.name, "default": d.default, "type": d.spelling, "what": d.setting.text}
        for d in declarations(facts.factory)
    ]
    kept = ("summary", "family", "equation", "cost", "year", "reference")
    return {
        "name": name,
        **{k: getattr(facts, k) for k in kept},
        "paper": _ids(facts.reference)[0],
        "registered_by": METHODS.origin(name) or None,
        "stores": method.stores,
        "kept": [{"name": n, "shape": k.shape, "what": k.what} for n, k in method.keeps.items()],
        "keeps": "record" if method.keeps or method.playback else "noise",
        "fitted_to_picture": method.fitted,
        "gradients": method.needs_grad,
        "exact": method.exact,
        "models": "text" if method.needs_prompt else "any",
        "refuses_diffusion": method.refuses_vp,
        "refuses_flow": method.refuses_flow,
        "needs_trajectory": method.needs_trajectory,
        "edits": method.refuses_edit is None,
        "guidance_scale": method.guidance_scale,
        "sampling_guidance_scale": method.sampling_guidance_scale,
        "edit_guidance_scale": method.edit_guidance_scale,
        "strength": method.strength,
        "settings": settings,
        "presets": {n: dict(values) for n, values in facts.named_settings().items()},
    }


def page(method: dict[str, Any]) -> str:
    """One method, for reading."""
    facts = ("family", "stores", "cost", "gradients", "exact", "models", "reference")
    settings = [
        line
        for s in method["settings"]
        for line in (
            f"  --set {s['name']}={s['default']}   ({s['type']})",
            textwrap.indent(_wrapped(s["what"]), 6 * " "),
        )
    ]
    presets = [
        f"  --set preset={name}   ({', '.join(f'{k}={v}' for k, v in values.items()) or 'the defaults'})"
        for name, values in method["presets"].items()
    ]
    scales = {"inversion": "guidance_scale", "sampling": "sampling_guidance_scale", "edit": "edit_guidance_scale"}
    own = {f"{of} guidance": method[name] for of, name in scales.items()} | {"strength": method["strength"]}
    refused = {"a diffusion model": method["refuses_diffusion"], "flow matching": method["refuses_flow"]}
    lines = [
        f"{method['name']}: {method['summary']}",
        "",
        f"  {method['equation']}",
        "",
        *table([(k, _short(method[k])) for k in facts]).splitlines(),
        *(f"kept: {k['name']} {k['shape']}, {k['what']}" for k in method["kept"]),
        *(f"its own {k}: {v:g}" for k, v in own.items() if v is not None),
        *(f"not on {on}: {why}" for on, why in refused.items() if why),
        "",
        *([f"registered by {method['registered_by']}", ""] if method["registered_by"] else []),
        "settings, with their defaults:",
        *(settings or ["  none"]),
        "",
        "presets:",
        *presets,
    ]
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, padded."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_on_hyphens=False)


def _short(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _ids(reference: str) -> list[str]:
    from unsample.methods.citations import arxiv_ids

    return [f"arXiv:{i}" for i in arxiv_ids(reference)] or [reference]
