"""What the verbs say of their options, in the words of the page: `--target-prompt` is "What the edit shall show"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LABELS = {
    "model": "Model",
    "prompt": "What the picture shows",
    "source-prompt": "What the picture shows",
    "target-prompt": "What the edit shall show",
    "negative-prompt": "Lead away from",
    "class-labels": "Class",
    "source-class-labels": "Class",
    "negative-class-labels": "Class that stands for none",
    "method": "Method",
    "methods": "Methods to compare",
    "set": "Settings of the method",
    "steps": "Steps",
    "num-inference-steps": "Steps",
    "inversion-guidance-scale": "Guidance while inverting",
    "sampling-guidance-scale": "Guidance of the reconstruction",
    "edit-guidance-scale": "Guidance of the edit",
    "guidance-schedule": "Schedule of guidance",
    "strength": "Strength",
    "seed": "Seed",
    "fit": "Fit",
    "clip": "Clip",
    "first-step-radius": "Ask whether the first step contracts",
    "editor": "Editor",
    "editor-set": "Settings of the editor",
    "mask": "Mask",
    "mask-feather": "Soft edge",
    "mask-dilate": "Grow by",
    "paste": "Keep the picture's own pixels outside",
    "quick": "Quick settings",
    "force": "Go on with what the model does not know",
}
"""The fields of the page by the options that they are; `page/index.html` has the same texts."""

FORMS = {
    "greater_than_equal": "is at least {ge}",
    "less_than": "is less than {lt}",
    "string_too_long": "has at most {max_length} letters",
    "too_long": "has at most {max_length} items",
    "extra_forbidden": "is nothing that a job has",
    "literal_error": "is {expected}",
    "int": "is a whole number",
    "float": "is a number",
    "finite": "is a finite number",
    "string": "is a text",
    "bool": "is true or false",
    "json": "is JSON",
    "dict": "is an object",
    "list": "is a list",
}
"""What is wrong in the form of a request, by pydantic's name for it, or the first word of that."""


def named(option: str) -> str:
    """A field as the page calls it, with its name for programs."""
    label = LABELS.get(option.replace("_", "-"))
    return f"“{label}” ({option})" if label else option


def formed(error: Mapping[str, Any]) -> str:
    """What pydantic found wrong first, in our words: what has what form, and what came."""
    first, *more = [str(part)[:40] for part in error["loc"] if part != "body"] or ["the request"]
    kind, context = str(error["type"]), dict(error.get("ctx") or {})
    form = FORMS.get(kind) or FORMS.get(kind.partition("_")[0])
    said = error["msg"] if form is None else form.format(**context)
    got = "" if kind in ("extra_forbidden", "json_invalid") else f"; got {error['input']!r:.40}"
    return f"{'.'.join([named(first), *more])} {said}{got}"


def told(text: str, verb: str, folder: Path) -> str:
    """A line of a verb for the reader of the page: without our folder, and with fields in place of options."""
    text = text.replace(f"{folder}/", "").replace(str(folder), "the session's folder")
    guidance = {"edit": "edit-guidance-scale"}.get(verb, "inversion-guidance-scale")

    def label(found: re.Match[str]) -> str:
        option = found[1] or found[2]
        name = guidance if option == "guidance-scale" else option
        return f"“{LABELS[name]}”" if name in LABELS else found[0]

    text = re.sub(r"; see 'unsample [a-z]+ --help'", "", text)
    text = re.sub(r"(?:(?<!')--([a-z][a-z-]*[a-z])|'--([a-z][a-z-]*[a-z])')", label, text)  # no commands in quotes
    return re.sub(
        r"'(--model [^']+)'", r"start the server with 'unsample serve \1'", text
    )  # the page lists what it has
