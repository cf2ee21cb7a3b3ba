"""Text encoders that are in memory only while they read a prompt.

They remember what they have answered. When the denoiser is asked, their weights are dropped; a prompt that is new has
them read from the disk again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from unsample.models.placing import Placing
from unsample.models.weights import AWAY, sums


class Remembering:
    """In place of a text encoder's `forward`."""

    def __init__(self, encoder: Any, read: Callable[[], Any], device: Any) -> None:
        self.encoder, self.read, self.device = encoder, read, device
        self.forward = encoder.forward
        self.answers: dict[str, Any] = {}
        self.here = True
        self.sums: tuple[Any, ...] = ()  # of the weights that were dropped

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The encoder's answer, from memory where it was asked the same before."""
        key = _key((args, kwargs))
        if key not in self.answers:
            self.fetch()
            self.answers[key] = self.forward(*args, **kwargs)
        return self.answers[key]

    def fetch(self) -> None:
        """Read the weights again, where they are not here."""
        from unsample.models.loading import without_bars

        if not self.here:
            with without_bars("diffusers", "transformers"):
                fresh = self.read().requires_grad_(False).to(self.device)
            for dropped, parameter in zip(self.encoder.parameters(), fresh.parameters(), strict=True):
                dropped.data = parameter.data
            self.here = True
            del vars(self.encoder)[AWAY]

    def drop(self) -> None:
        """Give the weights' memory up; device and dtype stay those they were."""
        if self.here:
            self.sums = sums(self.encoder)
            for parameter in self.encoder.parameters():
                parameter.data = parameter.data.new_empty(0)
            self.here = False
            vars(self.encoder)[AWAY] = self  # `models.weights` knows it by its sums


def freeing(
    adapter: Any, encoders: Mapping[str, Any], denoiser: Any, read: Mapping[str, Callable[[], Any]], asked: Placing
) -> None:
    """Have an adapter's text encoders dropped whenever its denoiser is asked."""
    kept = [Remembering(encoder, read[name], asked.device) for name, encoder in encoders.items()]
    for one in kept:
        one.encoder.forward = one

    def drop(*_: Any) -> None:
        if not hasattr(denoiser.forward, "recording"):
            for one in kept:
                one.drop()

    denoiser.register_forward_pre_hook(drop)


def _key(value: Any) -> str:
    """What was asked, as text: tensors by their content."""
    import torch

    if isinstance(value, torch.Tensor):
        content = value.detach().to("cpu").contiguous()
        digest = hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        return f"{tuple(value.shape)} {value.dtype} {value.device} {digest}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_key(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_key, value)) + "]"
    return repr(value)
