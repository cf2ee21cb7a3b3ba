"""A method is a codec: how a picture is inverted into a record, and the step that plays the record back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from unsample.errors import BadOption, unknown_name
from unsample.walk import Step


@dataclass(frozen=True)
class Method:
    """A configured method. The facts beside the steps are checked by the contract test."""

    name: str
    settings: Mapping[str, Any]
    invert_step: Step
    sample_step: Step
    passes: Callable[[int], int]  # network evaluations to invert T steps at w = 1, without early stopping
    stores: str = "noise"  # what the record holds
    fitted: bool = False  # whether the record holds more than the noise, fitted to the picture
    exact: bool = False  # whether the record reconstructs exactly by construction
    needs_prompt: bool = False
    needs_grad: bool = False
    sampling_guidance_scale: float | None = None  # the method's own default; None: that of the inversion
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodFacts:
    """A row of the table: the factory, whose keyword defaults are the settings, and what people ask about it."""

    factory: Callable[..., Method]
    summary: str
    family: str
    equation: str
    cost: str
    year: int
    reference: str


def setting_defaults(factory: Callable[..., Method]) -> dict[str, Any]:
    """Names and defaults of a method's settings."""
    return {name: p.default for name, p in inspect.signature(factory).parameters.items()}


def parse_setting(factory: Callable[..., Method], name: str, text: str) -> Any:
    """A setting written as text (`--set num_iters=5`) as the type that the factory declares.

    Raises:
        UnknownName: the method has no such setting.
        BadOption: the text is not of that type.
    """
    from pydantic import TypeAdapter, ValidationError

    hints = get_type_hints(factory)
    if name not in hints or name == "return":
        raise unknown_name("setting", name, [n for n in hints if n != "return"])
    if text.lower() in ("none", "null"):
        text_value: Any = None
    else:
        text_value = text
    try:
        return TypeAdapter(hints[name]).validate_strings(text_value) if text_value is not None else _none(hints[name])
    except (ValidationError, TypeError) as error:
        kind = getattr(hints[name], "__name__", str(hints[name]))
        raise BadOption(f"setting {name}={text!r} is not of type {kind}; for example --set {name}=5") from error


def _none(hint: Any) -> None:
    if type(None) not in getattr(hint, "__args__", ()):
        raise TypeError("not optional")
