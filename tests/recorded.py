"""Calls written down, so that two of them compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def told(value: Any) -> Any:
    """What was asked for: methods by name and settings, generators by their seed, and other things by their type."""
    if hasattr(value, "settings"):
        return value.name, dict(value.settings)
    if isinstance(value, Mapping):
        return {k: told(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [told(v) for v in value]
    if hasattr(value, "initial_seed"):
        return value.initial_seed()
    return value if isinstance(value, str | int | float | type(None)) else type(value).__name__


def recording(calls: list[Any], name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """A call that is written down, and then answered."""

    def call(*args: Any, **more: Any) -> Any:
        calls.append((name, told(args), told(more)))
        return answer(*args, **more)

    return call
