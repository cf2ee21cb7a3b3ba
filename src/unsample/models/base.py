"""What the solvers may ask of a model, and what a network is conditioned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unsample.errors import Incompatible

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Model(Protocol):
    """An adapter: everything that differs between model families stands behind these names."""

    id: str
    family: str  # pixel, latent, gaussian, callable
    scheduler: Any  # a diffusers scheduler; the grid is made from it
    sample_shape: tuple[int, int, int]  # C, H, W of what the network sees, by default
    picture_size: tuple[int, int]  # width, height of the pictures it was trained on
    multiple: int  # the sides of a picture are multiples of this
    device: torch.device
    dtype: torch.dtype | None  # of the network; None for a plain function, which is given the state's
    takes_prompt: bool
    num_classes: int | None

    def network(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        """The raw output for `x` (B, C, H, W) in the state's dtype."""

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the model's own range."""

    def decode(self, latents: Tensor) -> Tensor:
        """The model's own range to pictures, nominally in [0, 1], not clamped."""

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to `prompt_embeds` (B, L, D)."""

    def weights_sha256(self) -> str:
        """SHA-256 of the weights and of what changes predictions beside them (`models.weights`)."""


def described(model: Model) -> str:
    """`<LatentModel scenes-sd: pictures of 64x64, (4, 16, 16) for the network, with prompts, float32 on cpu>`."""
    width, height = model.picture_size
    told = [f"pictures of {width}x{height}", f"{tuple(model.sample_shape)} for the network"]
    told += ["with prompts"] if model.takes_prompt else []
    told += [f"{model.num_classes} classes"] if model.num_classes else []
    dtype = str(model.dtype).removeprefix("torch.") if model.dtype is not None else "any dtype"
    return f"<{type(model).__name__} {model.id}: {', '.join(told)}, {dtype} on {model.device}>"


@dataclass(frozen=True)
class Condition:
    """What a network is conditioned on, one row a picture; both None for an unconditional one."""

    prompt_embeds: Tensor | None = None
    class_labels: Tensor | None = None

    def rows(self, index: Tensor) -> Condition:
        """The rows of some pictures."""
        pick = lambda t: None if t is None else t[index]  # noqa: E731
        return Condition(pick(self.prompt_embeds), pick(self.class_labels))

    def joined(self, other: Condition) -> Condition:
        """This batch and another one below it."""
        import torch

        def join(name: str) -> Tensor | None:
            a, b = getattr(self, name), getattr(other, name)
            if (a is None) is not (b is None):
                raise Incompatible(f"guidance needs both halves conditioned alike; give negative_{name} too")
            return None if a is None or b is None else torch.cat([a, b])

        return Condition(join("prompt_embeds"), join("class_labels"))


def state_dict_sha256(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, in the order of the names.

    Weights are hashed as float32, so that a model loaded in another dtype from the same fp16 files is the same model.
    """
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu")
        value = value.int_repr() if value.is_quantized else value
        value = value.float() if value.is_floating_point() else value
        digest.update(f"{name}:{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
