"""`unsample methods`, `unsample editors`: their tables, or a row with its settings. `unsample cite`: BibTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer import Argument

from unsample.cli import options, talk
from unsample.cli.options import examples

EDITOR_COLUMNS = ("name", "needs", "mask", "year", "paper", "cost")
COLUMNS = ("name", "family", "keeps", "gradients", "exact", "models", "year", "paper", "cost")


def add_to(app: typer.Typer) -> None:
    """The verbs and their examples."""
    app.command("methods", epilog=examples("unsample methods", "unsample methods fixed_point"))(methods)
    app.command("editors", epilog=examples("unsample editors", "unsample editors p2p"))(editors)
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


def editors(
    name: Annotated[
        str | None, Argument(metavar="[NAME]", help="An editor, to see its settings.", show_default="all, in short")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """List the editors of an edit, or show one with its settings and its paper."""
    from unsample.edits import EDITORS, get_editor

    if name is not None:
        get_editor(name)  # refuses a name that is not in the table
    rows = [editor_row(n) for n in EDITORS if name in (None, n)]
    if json:
        talk.document({"editors": rows})
    elif name is None:
        talk.answer(table([EDITOR_COLUMNS, *([_short(r[c]) for c in EDITOR_COLUMNS] for r in rows)]))
        talk.answer(
            "\nneeds: prompts, that of the source and that of the edit; or settings that say what is edited. mask: it\n"
            "makes one. 'unsample editors NAME' shows an editor's equation, settings and presets, 'unsample cite\n"
            "NAME' its BibTeX. Every editor goes with every method, but for what it says."
        )
    else:
        talk.answer(editor_page(rows[0]))
    return 0


def cite(
    names: Annotated[
        list[str] | None, Argument(metavar="[NAME]...", help="Methods and editors.", show_default="all of them")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Print the BibTeX of the papers behind methods and editors."""
    from unsample.edits import EDITORS
    from unsample.errors import unknown_name
    from unsample.methods import METHODS
    from unsample.methods.citations import arxiv_ids, entries

    every = list(dict.fromkeys([*METHODS, *EDITORS]))
    for name in names or []:
        if name not in METHODS and name not in EDITORS:
            raise unknown_name("method or editor", name, every)
    asked = names or every
    rows = [(n, kind[n]) for kind in (METHODS, EDITORS) for n in asked if n in kind]  # a name may be of both
    papers = {n: list(dict.fromkeys(i for own, facts in rows if own == n for i in arxiv_ids(facts.reference)))
              for n in asked}  # fmt: skip
    text = "\n\n".join(dict.fromkeys(entry for name, facts in rows for entry in entries(name, facts)))
    if json:
        told = [{n: papers[n] for n in asked if n in kind} for kind in (METHODS, EDITORS)]
        talk.document({"methods": told[0], "editors": told[1], "bibtex": text})
    else:
        talk.answer(text)
    return 0


def row(name: str) -> dict[str, Any]:
    """All that the table knows of a method."""
    from unsample.methods import METHODS, get_method

    facts, method = METHODS[name], get_method(name)
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
        "settings": _declared(facts.factory),
        "presets": {n: dict(values) for n, values in facts.named_settings().items()},
    }


def editor_row(name: str) -> dict[str, Any]:
    """All that the table knows of an editor."""
    from unsample.edits import EDITORS, get_editor

    facts, editor = EDITORS[name], get_editor(name)
    needed = ["a source prompt"] * editor.needs_source_prompt + ["a target prompt"] * editor.needs_prompt
    return {
        "name": name,
        **{k: getattr(facts, k) for k in ("summary", "equation", "cost", "year", "reference")},
        "paper": _ids(facts.reference)[0],
        "registered_by": EDITORS.origin(name) or None,
        "needs": " and ".join(needed) or "settings",
        "mask": editor.makes_mask,
        "edit_guidance_scale": editor.edit_guidance_scale,
        "settings": _declared(facts.factory),
        "presets": {n: dict(values) for n, values in facts.presets.items()},
    }


def _declared(factory: Any) -> list[dict[str, Any]]:
    """The settings of a factory."""
    from unsample.methods import declarations

    return [
        {"name": d.name, "default": d.default, "type": d.spelling, "what": d.setting.text}
        for d in declarations(factory)
    ]


def page(method: dict[str, Any]) -> str:
    """One method, for reading."""
    facts = ("family", "stores", "cost", "gradients", "exact", "models", "reference")
    scales = {"inversion": "guidance_scale", "sampling": "sampling_guidance_scale", "edit": "edit_guidance_scale"}
    own = {f"{of} guidance": method[name] for of, name in scales.items()} | {"strength": method["strength"]}
    refused = {"a diffusion model": method["refuses_diffusion"], "flow matching": method["refuses_flow"]}
    told = [
        *(f"kept: {k['name']} {k['shape']}, {k['what']}" for k in method["kept"]),
        *(f"its own {k}: {v:g}" for k, v in own.items() if v is not None),
        *(f"not on {on}: {why}" for on, why in refused.items() if why),
    ]
    return _page(method, facts, told, "--set")


def editor_page(editor: dict[str, Any]) -> str:
    """One editor, for reading."""
    own = editor["edit_guidance_scale"]
    told = [] if own is None else [f"its own edit guidance: {own:g}"]
    return _page(editor, ("needs", "mask", "cost", "reference"), told, "--editor-set")


def _page(row: dict[str, Any], facts: Sequence[str], told: Sequence[str], option: str) -> str:
    """A row for reading: what it is, its facts, what else is told of it, and its settings and presets."""
    settings = [
        line
        for s in row["settings"]
        for line in (
            f"  {option} {s['name']}={s['default']}   ({s['type']})",
            textwrap.indent(_wrapped(s["what"]), 6 * " "),
        )
    ]
    presets = [
        f"  {option} preset={name}   ({', '.join(f'{k}={v}' for k, v in values.items()) or 'the defaults'})"
        for name, values in row["presets"].items()
    ]
    lines = [
        f"{row['name']}: {row['summary']}",
        "",
        f"  {row['equation']}",
        "",
        *table([(k, _short(row[k])) for k in facts]).splitlines(),
        *told,
        "",
        *([f"registered by {row['registered_by']}", ""] if row["registered_by"] else []),
        "settings, with their defaults:",
        *(settings or ["  none"]),
        *(["", "presets:", *presets] if presets else []),
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
