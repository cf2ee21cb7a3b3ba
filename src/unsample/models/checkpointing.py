"""Gradient checkpointing of a model's network for the length of a call: less memory, each gradient a second forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unsample.errors import Incompatible


def check_checkpointing(model: Any, method: str) -> None:
    """Refuse a model whose network cannot be checkpointed.

    Raises:
        Incompatible: it is no diffusers network, or one without support.
    """
    network = getattr(model, "unet", None)
    if not getattr(network, "_supports_gradient_checkpointing", False):
        raise Incompatible(
            f"{method}: gradient_checkpointing=True was asked for, and the network of {model.id} "
            f"({type(network).__name__}) cannot; a diffusers U-Net is needed, or gradient_checkpointing=False"
        )


@contextmanager
def checkpointed(model: Any, wanted: bool) -> Iterator[None]:
    """The model's network with gradient checkpointing, if wanted; afterwards as it was before."""
    network = getattr(model, "unet", None)
    if not wanted or network is None or network.is_gradient_checkpointing:
        yield
        return
    network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        network.disable_gradient_checkpointing()
