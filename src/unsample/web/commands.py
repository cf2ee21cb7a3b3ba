"""One verb with its options, as a value: what is run, and how the same is written in a shell and in Python.

All files lie in one folder and are named relative to it, so what is shown works wherever the source picture lies.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unsample.cli.options import Placement

Options = Mapping[str, Any]  # by their names in Python; a list is an option that is repeated, None one that is left out
FILES = ("mask", "output")  # options that name a file
WORDS = ("auto", "attention", "thing")  # masks that are none: with ":" more may follow


@dataclass(frozen=True)
class Command:
    """`unsample VERB INPUT --option=value ...`; `input` and what FILES name are relative to the job's folder."""

    verb: str
    input: str | None = None
    options: Options = field(default_factory=dict)

    def argv(self, folder: Path) -> list[str]:
        """The arguments as they are run, in the folder of a job."""
        own = [str(folder / self.input)] if self.input else []
        written = [
            option if value is None else f"{option}={value}"
            for option, value in self._written(lambda f: str(folder / f))
        ]
        return [self.verb, *own, *written, "--json"]

    def shell(self) -> str:
        """The line to copy."""
        words: list[str] = ["unsample", self.verb, *([self.input] if self.input else [])]
        for option, value in self._written(str):
            if value is None:
                words.append(option)
            elif value == "" or value.startswith("-"):  # the latter would be taken for an option
                words.append(f"{option}={value}")
            else:
                words += [option, value]
        return shlex.join(words)

    def _written(self, place: Callable[[str], str]) -> Iterator[tuple[str, str | None]]:
        """Each option with its value, None for one that is switched on."""
        for name, value in self.options.items():
            option = f"--{name.replace('_', '-')}"
            for each in value if isinstance(value, list) else [value]:
                if each is not None and each is not False:
                    is_file = name in FILES and str(each).partition(":")[0] not in WORDS
                    yield option, None if each is True else place(each) if is_file else _plain(each)


def _plain(value: object) -> str:
    """As one types it: `3`, not `3.0`."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


# ---------------------------------------------------------------- the same in Python

PLACING = tuple(field.name for field in fields(Placement))
SAID = {  # options whose argument in Python has another name
    "steps": "num_inference_steps",
    "seed": "generator",
    "source_prompt": "prompt",
    "target_prompt": "prompt",
}
WALK = (
    *("num_inference_steps", "guidance_scale", "sampling_guidance_scale", "guidance_schedule", "strength", "generator"),
    *("negative_prompt", "class_labels", "negative_class_labels", "first_step_radius", "fit", "clip"),
)
EDIT = (
    *("mask", "mask_feather", "mask_dilate", "paste", "guidance_scale", "guidance_schedule", "negative_prompt"),
    *("class_labels", "negative_class_labels"),
)
LABELS = ("class_labels", "negative_class_labels")


def python(commands: Sequence[Command]) -> str:
    """The lines of Python that do what the commands do."""
    first = commands[0]
    placed = {name: first.options[name] for name in PLACING if first.options.get(name) not in (None, False)}
    lines = ["import unsample", "", f"model = {_call('unsample.load', [first.options['model']], placed)}"]
    for command in commands:
        lines += _VERBS[command.verb](command, _renamed(command.options))
    return "\n".join(lines)


def _renamed(options: Options) -> dict[str, Any]:
    there = {name: value for name, value in options.items() if not (value is None or value is False or value == [])}
    given = {SAID.get(name, name): value for name, value in there.items()}
    return given | {name: int(given[name]) for name in LABELS if name in given}


def _invert(command: Command, given: dict[str, Any]) -> list[str]:
    out, stem = given["output"], Path(str(command.input)).stem
    return [
        f"inversion = {_inverted(command, given, given['method'], given.get('set', []))}",
        f"unsample.reconstruct(model, inversion).save({f'{out}/{stem}.png'!r})",
        f"inversion.save({f'{out}/{stem}.safetensors'!r})",
    ]


def _inverted(command: Command, given: dict[str, Any], method: str, settings: list[str]) -> str:
    named = {"method": configured("methods", method, settings)} | {n: given[n] for n in WALK if n in given}
    prompt = [given["prompt"]] if "prompt" in given else []
    return _call("unsample.invert", [Code("model"), command.input, *prompt], named)


def _reconstruct(command: Command, given: dict[str, Any]) -> list[str]:
    stem = Path(str(command.input)).stem
    again = f"{given['output']}/{stem}.png"
    return [f"unsample.reconstruct(model, {command.input!r}).save({again!r})"]


def _edit(command: Command, given: dict[str, Any]) -> list[str]:
    return [f"unsample.edit({_edited(given, command.input)}).save({given['output']!r})"]


def _edited(given: dict[str, Any], inversion: Any) -> str:
    named = {n: given[n] for n in EDIT if n in given}
    if "editor" in given:
        named = {"editor": configured("edits", given["editor"], given.get("editor_set", []))} | named
    prompt = [given["prompt"]] if "prompt" in given else []
    return _arguments([Code("model"), inversion, *prompt], named)


def _sample(command: Command, given: dict[str, Any]) -> list[str]:
    names = ("num_inference_steps", "guidance_scale", "generator", "negative_prompt", *LABELS)
    prompt = [given["prompt"]] if "prompt" in given else []
    made = _call("unsample.sample", [Code("model"), *prompt], {n: given[n] for n in names if n in given})
    return [f"{made}.save({given['output']!r})"]


def _compare(command: Command, given: dict[str, Any]) -> list[str]:
    """Each method in turn; one whose record holds under one guidance is fitted under that of the edit."""
    from unsample.methods import get_method

    lines, target, scale = [], command.options.get("target_prompt"), given.get("edit_guidance_scale")
    source = given | {"prompt": command.options.get("prompt")}
    for name in given["methods"].split(","):
        settings = ["preset=quick"] if given.get("quick") else []
        own = source | ({"sampling_guidance_scale": scale} if scale and get_method(name).edits_as_fitted else {})
        lines += ["", f"inversion = {_inverted(command, own, name, settings)}"]
        lines.append(f"unsample.reconstruct(model, inversion).save({f'{name}-reconstruction.png'!r})")
        if target:
            to = {"prompt": target} | ({"guidance_scale": scale} if scale is not None else {})
            to |= {n: given[n] for n in ("editor", "editor_set") if n in given}
            lines.append(f"unsample.edit({_edited(to, Code('inversion'))}).save({f'{name}-edit.png'!r})")
    return lines


_VERBS = {"invert": _invert, "reconstruct": _reconstruct, "edit": _edit, "sample": _sample, "compare": _compare}


class Code(str):
    """Text that stands in Python as it is."""


def configured(table: str, name: str, settings: list[str]) -> Any:
    """A method or an editor by its name, or with settings as code."""
    if not settings:
        return name
    from unsample import edits, methods

    pairs = [(key.strip(), value.strip()) for key, _, value in (pair.partition("=") for pair in settings)]
    parsed, get = (
        (methods.parse_settings(name, pairs), "get_method")
        if table == "methods"
        else (edits.parse_settings(name, pairs), "get_editor")
    )
    return Code(f"unsample.{table}.{get}({name!r}, {parsed!r})")


def _call(name: str, given: Sequence[Any], named: Mapping[str, Any]) -> str:
    return f"{name}({_arguments(given, named)})"


def _arguments(given: Sequence[Any], named: Mapping[str, Any]) -> str:
    return ", ".join([*map(_code, given), *(f"{name}={_code(value)}" for name, value in named.items())])


def _code(value: Any) -> str:
    return str(value) if isinstance(value, Code) else repr(value)
