"""The table of methods. Importing it does not import torch, so that a mistake in a name costs nothing."""

from __future__ import annotations

from typing import Any

from unsample.errors import BadOption, unknown_name
from unsample.methods.base import Method, MethodFacts, parse_setting, setting_defaults
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
        year=2023,
        reference="Meiri et al., arXiv:2312.12540; Pan et al., arXiv:2309.04907",
    ),
}


def get_method(method: str | Method, settings: dict[str, Any] | None = None) -> Method:
    """A method by name, configured; a configured one comes back as it is.

    Raises:
        UnknownName: no such method or setting; the nearest name is suggested.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise BadOption(f"method must be a name or a configured method such as methods.ddim(); got {method!r}")
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    factory = METHODS[method].factory
    for name in settings or {}:
        if name not in setting_defaults(factory):
            raise unknown_name(f"setting of {method}", name, setting_defaults(factory))
    return factory(**(settings or {}))


__all__ = ["METHODS", "Method", "MethodFacts", "ddim", "fixed_point", "get_method", "parse_setting", "setting_defaults"]
