"""A method inside another's setting, `base` or `rest`: by name, configured, or as a record names it.

The table knows the names and holds the methods that stand around others, so it is asked when a name is looked up and
not before: here, and nowhere else below it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from unsample.errors import BadOption, Incompatible
from unsample.methods.base import Method

Base: TypeAlias = str | Mapping[str, Any] | Method  # no text, so that `get_type_hints` can read it anywhere
"""Another method inside a setting: a name, a configured method, or `{"name": ..., "settings": {...}}`."""

INNER = ("base", "rest")  # the settings that are such methods

MAX_DEPTH = 16  # of bases within bases; a file may claim anything


def as_base(base: Base, wrapper: str, *, needs_grad: bool = True, goes_on: bool = False) -> Method:
    """The method inside another's setting `base`.

    Args:
        base: a name, a configured method, or its JSON form.
        wrapper: the name of the method around it.
        needs_grad: False to refuse a base that differentiates through the network.
        goes_on: whether the base goes on from where the wrapper's own first steps lead.

    Raises:
        BadOption: not a method, or bases within bases without end. Incompatible: a base that keeps more than the noise.
    """
    from unsample.methods import METHODS

    method = _found(base, wrapper)
    if not method.stepwise:
        record = f"keeps more than the noise ({method.stores})" if method.keeps else "has a playback of its own"
        around = f", or {method.name}(base={wrapper})" if "base" in method.settings else ""
        raise Incompatible(
            f"{wrapper}(base={method.name}) makes no sense: a base brings the noise up and leaves the rest to "
            f"{wrapper}, and {method.name} {record}; use a base that keeps the noise alone, such as ddim{around}"
        )
    facts = METHODS.get(method.name)
    if facts is not None and facts.family == "baseline":
        raise Incompatible(
            f"{wrapper}(base={method.name}) makes no sense: {method.name} brings nothing up from the picture; use a "
            "base such as ddim or fixed_point"
        )
    if method.needs_grad and not needs_grad:
        raise Incompatible(
            f"{wrapper}(base={method.name}) makes no sense: {method.name} differentiates the network's own equation, "
            f"which {wrapper} changes; use a base such as ddim or fixed_point"
        )
    if method.starts_at_picture and goes_on:
        raise Incompatible(
            f"{wrapper}(base={method.name}) makes no sense: both say what the first steps are; use a base that goes on "
            "from any point, such as ddim, fixed_point, or anderson without x0_noise"
        )
    return method


def holds(method: Method, kind: Callable[[Method], bool]) -> bool:
    """Whether a method, or one of the bases within it, is of a kind."""
    inner = method.settings.get("base")
    return kind(method) or (inner is not None and holds(as_base(inner, method.name), kind))


def recorded(base: Base, wrapper: str) -> Any:
    """What is kept of a base: the name as it was given, or name and all settings."""
    if isinstance(base, str):
        return base
    method = _found(base, wrapper)
    return {"name": method.name, "settings": dict(method.settings)}


def _found(base: Base, wrapper: str) -> Method:
    from unsample.methods import get_method

    if not isinstance(base, Mapping):
        return get_method(base)
    if not set(base) <= {"name", "settings"} or "name" not in base:
        raise BadOption(f"{wrapper}: base must have name and settings; got {sorted(map(str, base))}")
    settings = base.get("settings", {})
    if not isinstance(settings, Mapping):
        raise BadOption(f"{wrapper}: the settings of base must be named; got {settings!r}")
    if _depth(base) > MAX_DEPTH:
        raise BadOption(f"{wrapper}: at most {MAX_DEPTH} methods may stand within each other")
    return get_method(base["name"], dict(settings))


def _depth(base: Any) -> int:
    """How many methods stand within each other in the JSON form, counted without recursion."""
    deepest, level = 0, [base]
    while level and deepest <= MAX_DEPTH:
        settings = [b.get("settings") for b in level if isinstance(b, Mapping)]
        level = [s[name] for s in settings if isinstance(s, Mapping) for name in INNER if name in s]
        deepest += 1
    return deepest
