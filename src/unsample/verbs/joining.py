"""Inversions of several calls as one: what they must have in common, and how the rest is put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.verbs import saved

if TYPE_CHECKING:
    from unsample.verbs.results import Inversion

OF_A_CALL = ("seconds",)  # what a record says of its whole call, and is added up


def common(inversion: Inversion) -> dict[str, Any]:
    """What inversions that go together agree in, as JSON: settings, model, grid, and the shapes of one picture."""
    from unsample.verbs.provenance import Provenance, per_picture

    each = {*per_picture(Provenance), *OF_A_CALL}
    lists = sorted(name for name in per_picture(Provenance) if inversion.meta.get(name) is not None)
    shapes = {
        name: [str(tensor.dtype), *(tensor.transpose(0, 1) if name == "trajectory" else tensor).shape[1:]]
        for name, tensor in saved.tensors_of(inversion).items()
    }
    return {"meta": {k: v for k, v in inversion.meta.items() if k not in each}, "lists": lists, "shapes": shapes}


def joined(parts: Sequence[Inversion]) -> Inversion:
    """One inversion of the pictures of several, in their order; their latents, which no file has, are left out.

    Raises:
        BadInput: they were made otherwise, or are of pictures of several sizes.
    """
    import torch

    from unsample.verbs.provenance import Header, Provenance, per_picture

    first = parts[0]
    if len(parts) == 1:
        return replace(first, latents=None)
    asked = common(first)
    for part in parts[1:]:
        if (other := common(part)) != asked:
            what = [key for key in asked if other[key] != asked[key]]
            raise BadInput(f"inversions that were made otherwise do not go together: their {what[0]} differ")
    named = [saved.tensors_of(part) for part in parts]
    tensors: dict[str, Any] = {
        name: torch.cat([t[name] for t in named], int(name == "trajectory")) for name in named[0]
    }
    lists: dict[str, Any] = {name: [v for part in parts for v in getattr(part, name)] for name in per_picture(Header)}
    own = [name for name in per_picture(Provenance) if getattr(first.meta, name) is not None]
    told: dict[str, Any] = {name: [v for part in parts for v in getattr(part.meta, name)] for name in own}
    seconds = sum(part.seconds for part in parts)
    if first.meta.get("seconds") is not None:
        told["seconds"] = sum(part.meta["seconds"] for part in parts)
    lists |= {name: tensors[name] for name in saved.TENSORS if name in tensors}
    return replace(
        first,
        **lists,
        state={name: tensors[f"state.{name}"] for name in first.state},
        more={name: tensors[name] for name in first.more},
        latents=None,
        seconds=seconds,
        meta=first.meta.model_copy(update=told),
    )
