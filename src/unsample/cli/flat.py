"""A verb's options in groups: frozen dataclasses, each declared once, whose fields become options of their own.

`def invert(images: Pictures, *, place: Placement, walk: WalkOptions) -> int` is given to Typer as a command of all the
fields; their names, defaults and help stand in the dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from unsample.cli.options import examples


@dataclass(frozen=True)
class But:
    """In `Annotated[Group, But(...)]`: fields that a verb does not offer, and fields that it calls otherwise."""

    leave: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Group:
    """One parameter of a verb, and which option is which of its fields."""

    kind: type
    said: Mapping[str, str]  # field to option

    def parameters(self) -> list[Parameter]:
        """One a field."""
        hints, defaults = get_type_hints(self.kind, include_extras=True), {f.name: f.default for f in fields(self.kind)}
        return [_keyword(said, hints[name], defaults[name]) for name, said in self.said.items()]


def command(app: typer.Typer, verb: Callable[..., int], *commands: str) -> None:
    """Add a verb under its own name, its groups flattened, with commands to copy at the end of its help."""
    app.command(verb.__name__, epilog=examples(*commands))(flat(verb))


def flat(verb: Callable[..., int]) -> Callable[..., int]:
    """The verb as a function of all options, as Typer reads it."""
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, _Group] = {}
    parameters: list[Parameter] = []
    for name, own in signature(verb).parameters.items():
        if (group := _group(hints[name])) is None:
            parameters.append(_keyword(name, hints[name], own.default))
        else:
            groups[name] = group
            parameters += group.parameters()

    def flattened(**given: Any) -> int:
        for name, group in groups.items():
            given[name] = group.kind(**{own: given.pop(said) for own, said in group.said.items()})
        return verb(**given)

    flattened.__name__, flattened.__doc__ = verb.__name__, verb.__doc__
    flattened.__annotations__ = {p.name: p.annotation for p in parameters}
    flattened.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return flattened


def _group(hint: Any) -> _Group | None:
    """What a parameter's type says of a group; None for an option of its own."""
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return None
    but = next((extra for extra in extras if isinstance(extra, But)), But())
    return _Group(kind, {f.name: but.rename.get(f.name, f.name) for f in fields(kind) if f.name not in but.leave})


def _keyword(name: str, hint: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)
