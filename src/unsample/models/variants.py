"""A model's name with changes to its scheduler: `scenes-sd[timestep_spacing=trailing]`.

The weights are the model's own, and so is their hash: a scheduler is no part of it, its grid is stored.
"""

from __future__ import annotations

import copy
import os
import re
from typing import Any

from unsample.errors import BadOption, Incompatible, unknown_name
from unsample.numbers import levels
from unsample.numbers.grid import as_ddim

SPACINGS = ("leading", "trailing", "linspace")
VALUES: dict[str, dict[str, Any]] = {  # of a diffusers scheduler's config
    "timestep_spacing": {name: name for name in SPACINGS},
    "set_alpha_to_one": {"true": True, "false": False},
}


def parted(name: str) -> tuple[str, dict[str, Any]]:
    """A name and what is changed: `("scenes-sd", {"timestep_spacing": "trailing"})`; no change of a path that exists.

    Raises:
        UnknownName, BadOption: a change that cannot be.
    """
    found = re.fullmatch(r"([^\[\]]+)\[([^\[\]]*)\]", name)
    if found is None or os.path.lexists(name):  # a folder may be called so
        return name, {}
    changes: dict[str, Any] = {}
    for part in found[2].split(","):
        key, _, value = (text.strip() for text in part.partition("="))
        if key not in VALUES:
            raise unknown_name("change to a model's scheduler", key, VALUES)
        if value not in VALUES[key] or key in changes:
            raise BadOption(f"{name}: {key} must be one of {', '.join(VALUES[key])}, given once; got {value!r}")
        changes[key] = VALUES[key][value]
    return found[1].strip(), changes


def varied(model: Any, name: str, changes: dict[str, Any]) -> Any:
    """The loaded model with the changes in its scheduler; its id is the whole name.

    A scheduler that is walked as DDIM's of the same config (DDPM) becomes that one where the change is DDIM's own.

    Raises:
        Incompatible: a scheduler without such a setting, or a pipeline that sets its own.
    """
    if not changes:
        return model
    scheduler = copy.deepcopy(model.scheduler)
    if model.family == "pipeline":
        raise Incompatible(f"{name}: this pipeline sets its scheduler itself; change it there")
    if levels.name_of(scheduler) in levels.CONVERTED and any(key not in scheduler.config for key in changes):
        scheduler = as_ddim(scheduler)
    if lacking := [key for key in changes if key not in getattr(scheduler, "config", {})]:
        kind = type(scheduler).__name__
        raise Incompatible(f"{name}: its {kind} has no {lacking[0]}; leave it out, or give a folder with another one")
    model.scheduler = type(scheduler).from_config(scheduler.config, **changes)
    model.id = name
    return model
