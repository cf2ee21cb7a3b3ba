"""The table of methods. Importing it does not import torch, so that a mistake in a name costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from unsample.errors import BadOption, unknown_name
from unsample.methods.base import Method, MethodFacts, Task, Walked, parse_setting, setting_defaults
from unsample.methods.ddim import ddim
from unsample.methods.fixed_point import fixed_point

METHODS: dict[str, MethodFacts] = {
    "ddim": MethodFacts(
        ddim,
        summary="DDIM inversion, eps asked at the target (default) or the source level",
        family="ODE, explicit",
        equation="x_j = alpha_j (x_i - sigma_i eps(x_i, t_j)) / alpha_i + sigma_j eps(x_i, t_j)",
        cost="T",
        year=2021,
        reference="Song, Meng and Ermon, arXiv:2010.02502",
    ),
    "fixed_point": MethodFacts(
        fixed_point,
        summary="implicit DDIM inversion by fixed-point iteration",
        family="ODE, implicit",
        equation="x_j <- alpha_j (x_i - sigma_i eps(x_j, t_j)) / alpha_i + sigma_j eps(x_j, t_j), num_iters times",
        cost="num_iters T",
        quick={"num_iters": 3},
        year=2023,
        reference="Meiri et al., arXiv:2312.12540; Pan et al., arXiv:2309.04907",
    ),
}


def get_method(method: str | Method, settings: dict[str, Any] | None = None) -> Method:
    """A method by name, configured; a configured one comes back as it is.

    Args:
        method: a name, or a configured method.
        settings: of the factory; `preset` names a set of them that the others go over.

    Raises:
        UnknownName: no such method, setting or preset; the nearest name is suggested.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise BadOption(f"method must be a name or a configured method such as methods.ddim(); got {method!r}")
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    facts, given = METHODS[method], dict(settings or {})
    preset = given.pop("preset", None)
    if preset is not None:
        if preset not in facts.named_settings():
            raise unknown_name(f"preset of {method}", preset, facts.named_settings())
        given = {**facts.named_settings()[preset], **given}
    for name in given:
        if name not in setting_defaults(facts.factory):
            raise unknown_name(f"setting of {method}", name, setting_defaults(facts.factory))
    return facts.factory(**given)


def parse_settings(method: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Settings written as text, as `get_method` takes them: `num_iters=5`, `base.num_iters=5`, `preset=quick`.

    Raises:
        UnknownName: no such method or setting. BadOption: a text that is not of the setting's type.
    """
    get_method(method)
    own: dict[str, Any] = {}
    inner: list[tuple[str, str]] = []
    for name, text in pairs:
        if name.startswith("base."):
            inner.append((name.removeprefix("base."), text))
        else:
            own[name] = text if name == "preset" else parse_setting(METHODS[method].factory, name, text)
    if inner:
        defaults = setting_defaults(METHODS[method].factory)
        if "base" not in defaults:
            raise BadOption(
                f"{method} has no base; base.{inner[0][0]} belongs to a method that has one, such as easyinv"
            )
        base = own.get("base", defaults["base"])
        name = base if isinstance(base, str) else base["name"]
        own["base"] = {"name": name, "settings": parse_settings(name, inner)}
    return own


__all__ = [
    "METHODS",
    "Method",
    "MethodFacts",
    "Task",
    "Walked",
    "get_method",
    "parse_setting",
    "parse_settings",
    "setting_defaults",
    *METHODS,
]
