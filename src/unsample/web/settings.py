"""What a PNG or an inversion of ours says of itself, as fields of the page. The text is others': shown, never obeyed.

A field is taken only where it has the type that the page gives; what a form sends back is checked like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LONGEST = 2000  # letters of a text
TEXTS = ("prompt", "negative_prompt", "model", "method", "guidance_schedule", "fit", "clip", "editor")
NUMBERS = ("steps", "guidance_scale", "sampling_guidance_scale", "edit_guidance_scale", "strength", "seed")

Told = tuple[dict[str, Any], str]


def of_picture(found: Mapping[str, Any]) -> Told:
    """The fields that a PNG's settings fill, and a line that says what made it; nothing of a picture without any.

    Its prompt is what it shows, also where it is an edit: that is what an inversion of it is to be told.
    """
    if not found:
        return {}, ""
    verb, scale, inverted_at = found.get("verb"), found.get("guidance_scale"), found.get("inversion_guidance_scale")
    given = dict(found) | {"steps": found.get("num_inference_steps"), "guidance_scale": inverted_at}
    if inverted_at is not None and verb != "edit":
        given["sampling_guidance_scale"] = scale
    elif verb == "edit":
        given["edit_guidance_scale"] = scale
    fields = _typed(given)
    fields["settings"] = as_texts(found.get("method_settings"))
    if "editor" in fields:
        fields["editor_settings"] = as_texts(found.get("editor_settings"))
    source = found.get("source_prompt")
    was = f", of a picture of {_short(source)}" if isinstance(source, str) and source else ""
    return fields, f"made by unsample: {_short(verb or 'sample')}{was}"


def of_inversion(meta: Mapping[str, Any]) -> Told:
    """The fields that an inversion of one picture fills."""
    from unsample.preflight.walk import recorded

    found = recorded(meta)
    fields = _typed({**found, "model": meta["model"]["id"]})
    fields["settings"] = as_texts(found["settings"])
    return fields, f"an inversion by {_short(found['method'])}"


def as_texts(settings: object) -> dict[str, str]:
    """Settings of a method or an editor as `--set` takes them; those of a method within it by `base.NAME`."""
    found: dict[str, str] = {}
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            found[str(name)] = value["name"]
            found |= {f"{name}.{inner}": text for inner, text in as_texts(value.get("settings")).items()}
        elif isinstance(value, Mapping):
            found[str(name)] = ",".join(f"{word}={number}" for word, number in value.items())
        elif isinstance(value, list):
            found[str(name)] = "; ".join(map(str, value))
        else:
            found[str(name)] = "none" if value is None else str(value)
    return {name[:200]: text[:LONGEST] for name, text in list(found.items())[:64]}


def _typed(given: Mapping[str, Any]) -> dict[str, Any]:
    """What has the type of its field."""
    texts = {n: given[n][:LONGEST] for n in TEXTS if isinstance(given.get(n), str)}
    numbers = {n: given[n] for n in NUMBERS if _is_number(given.get(n))}
    return texts | numbers


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and abs(value) < 2**63


def _short(text: object) -> str:
    return str(text)[:200]
