"""What the solvers may ask of a model, and what a network is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from unsample.errors import Incompatible
from unsample.numbers.grid import Grid, grid_from_scheduler

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Guidance = Literal["cfg", "distilled", "none"]
"""How a scale w reaches a model: two passes that are joined; a row "guidance" of its condition; not at all."""


class Model(Protocol):
    """An adapter: everything that differs between model families stands behind these names.

    The state is (B, C, H, W) in every family; what a network packs (tokens, a video of one frame) is packed in
    `network`.
    """

    id: str
    family: str  # pixel, latent, gaussian, callable, pipeline
    scheduler: Any  # a diffusers scheduler; says what the network predicts, and how many timesteps it was trained with
    sample_shape: tuple[int, int, int]  # C, H, W of the state, by default
    picture_size: tuple[int, int]  # width, height of the pictures it was trained on
    multiple: int  # the sides of a picture are multiples of this
    device: torch.device
    dtype: torch.dtype | None  # of the network; None for a plain function, which is given the state's
    takes_prompt: bool
    num_classes: int | None
    guidance: Guidance
    grey: bool  # whether it sees a picture's luminance alone
    linear: bool  # whether `rule` is linear, so that predictions can be joined as raw outputs are

    def network(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        """The raw output for `x` (B, C, H, W) in the state's dtype."""

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the model's own range."""

    def decode(self, latents: Tensor) -> Tensor:
        """The model's own range to pictures, nominally in [0, 1], not clamped."""

    def embed(self, prompts: Sequence[str | None], negative: bool = False) -> Condition:
        """Rows for prompts, one a prompt; None is what the model does without one. `negative`: of the other half."""

    def weights_sha256(self) -> str:
        """SHA-256 of the weights and of what changes predictions beside them (`models.weights`)."""

    def at(self, sample_shape: tuple[int, ...], num_inference_steps: int) -> Model:
        """The model for samples of (C, H, W) and a number of steps: itself, unless they go into its predictions."""

    def grid(self, num_inference_steps: int, *, clip: str = "off", timestep_spacing: str | None = None) -> Grid:
        """The noise levels; arguments and errors as of `numbers.grid.grid_from_scheduler`."""

    def shape_of(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        """(C, H, W) of the state for a picture of that size; None is the model's own."""

    def rule(self, free: Tensor, bound: Tensor, w: float) -> Tensor:
        """The guided raw output of the unconditional and the conditional one, (B, C, H, W) each."""


class Adapter:
    """What the hand-written adapters share: any size and number of steps, the scheduler's grid, linear guidance."""

    sample_shape: tuple[int, int, int]
    picture_size: tuple[int, int]
    scheduler: Any
    guidance: Guidance = "cfg"
    grey: bool = False
    linear = True

    def at(self, sample_shape: tuple[int, ...], num_inference_steps: int) -> Self:
        """Itself."""
        return self

    def grid(self, num_inference_steps: int, *, clip: str = "off", timestep_spacing: str | None = None) -> Grid:
        """That of its scheduler."""
        return grid_from_scheduler(self.scheduler, num_inference_steps, clip=clip, timestep_spacing=timestep_spacing)

    def shape_of(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        """(C, H, W): its own channels, and as many pixels of a picture to one of the state as in its own."""
        channels, rows, columns = self.sample_shape
        factor = self.picture_size[1] // rows
        return channels, (height or rows * factor) // factor, (width or columns * factor) // factor

    def rule(self, free: Tensor, bound: Tensor, w: float) -> Tensor:
        """`free + w (bound - free)`: eps, v, x0 and velocity alike."""
        return free + w * (bound - free)


def luminance(images: Tensor) -> Tensor:
    """.299 R + .587 G + .114 B (ITU-R BT.601) of pictures (B, 3, H, W): (B, 1, H, W); a grey stays exactly itself."""
    red, green, blue = images.unbind(1)
    return (red + 0.587 * (green - red) + 0.114 * (blue - red))[:, None]


def described(model: Model) -> str:
    """`<LatentModel scenes-sd: pictures of 64x64, (4, 16, 16) for the network, with prompts, float32 on cpu>`."""
    width, height = model.picture_size
    told = [
        "vectors" if width == height == 1 else f"pictures of {width}x{height}",
        f"{tuple(model.sample_shape)} for the network",
    ]
    told += ["with prompts"] if model.takes_prompt else []
    told += [f"{model.num_classes} classes"] if model.num_classes else []
    dtype = str(model.dtype).removeprefix("torch.") if model.dtype is not None else "any dtype"
    return f"<{type(model).__name__} {model.id}: {', '.join(told)}, {dtype} on {model.device}>"


LENGTH = ".length"  # of the rows "NAME", in "NAME.length"
EMBEDS = "prompt_embeds"


@dataclass(frozen=True)
class Condition:
    """What a network is conditioned on, one row a picture; nothing for an unconditional one.

    `prompt_embeds` (B, L, D) are the text that methods may optimise; `class_labels` (B,) int64; `more` holds any other
    rows by name (pooled embeddings, masks, sizes, "guidance"). Rows whose lengths (axis 1) differ are padded with zeros
    and have their lengths in `more["NAME.length"]` (B,) int64.
    """

    prompt_embeds: Tensor | None = None
    class_labels: Tensor | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(named: Mapping[str, Tensor]) -> Condition:
        """From all rows by their names."""
        more = {n: t for n, t in named.items() if n not in (EMBEDS, "class_labels")}
        return Condition(named.get(EMBEDS), named.get("class_labels"), more)

    @property
    def named(self) -> dict[str, Tensor]:
        """All rows by their names."""
        own = {EMBEDS: self.prompt_embeds, "class_labels": self.class_labels}
        return {name: t for name, t in own.items() if t is not None} | dict(self.more)

    def rows(self, index: Tensor) -> Condition:
        """The rows of some pictures."""
        return Condition.of({name: t[index] for name, t in self.named.items()})

    def joined(self, other: Condition) -> Condition:
        """This batch and another one below it."""
        a, b = self.named, other.named
        for name in dict.fromkeys([*a, *b]):
            if (name in a) is not (name in b) and not name.endswith(LENGTH):
                raise Incompatible(f"guidance needs both halves conditioned alike; give negative_{name} too")
        joined: dict[str, Tensor] = {}
        for name in (n for n in a if not n.endswith(LENGTH)):
            joined |= _joined(name, a, b)
        return Condition.of(joined)


def _joined(name: str, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows of one name, one batch below the other; padded, with their lengths, where these differ."""
    import torch

    pair, key = [a[name], b[name]], f"{name}{LENGTH}"
    if pair[0].shape[1:] == pair[1].shape[1:] and key not in a and key not in b:
        return {name: torch.cat(pair)}
    if pair[0].shape[2:] != pair[1].shape[2:] or pair[0].ndim != pair[1].ndim:
        raise Incompatible(f"{name} of {tuple(pair[0].shape)} and of {tuple(pair[1].shape)} cannot be asked together")
    lengths = [
        half.get(key, t.new_full((len(t),), t.shape[1], dtype=torch.int64))
        for half, t in zip((a, b), pair, strict=True)
    ]
    longest = max(t.shape[1] for t in pair)
    padded = [torch.cat([t, t.new_zeros(len(t), longest - t.shape[1], *t.shape[2:])], 1) for t in pair]
    return {name: torch.cat(padded), key: torch.cat(lengths)}


def state_dict_sha256(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, in the order of the names.

    Weights are hashed as float32, so that a model loaded in another dtype from the same fp16 files is the same model.
    """
    import hashlib

    digest = hashlib.sha256()
    update_digest(digest, tensors)
    return digest.hexdigest()


def update_digest(digest: Any, tensors: dict[str, Tensor]) -> None:
    """Go on with a hash of weights, tensor by tensor."""
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu")
        value = value.int_repr() if value.is_quantized else value
        value = value.float() if value.is_floating_point() else value
        digest.update(f"{name}:{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().data.cast("B") if value.numel() else b"")
