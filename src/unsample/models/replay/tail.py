"""What a pipeline does between its last latents and its VAE's decoder, and the layout of the state.

Every tail is `z[i] = scale[i] x[order[i]] + shift[i]`: unpacking of tokens, means and deviations, a batch norm, an axis
of frames. It is read off by running the end of the pipeline on numbers that tell where they went. The state keeps the
layout of z without its frames, (C, H, W); scale and shift stay where they are, at the VAE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.models.placing import VAE_PARTS
from unsample.models.replay.record import Stop, called, in_hand

if TYPE_CHECKING:
    from torch import Tensor

BASE = 32  # of the digits that places are told in: whole numbers which every dtype holds exactly


def vae_of(pipeline: Any) -> Any:
    """The autoencoder; None where the network sees the picture itself."""
    return next((part for name in VAE_PARTS if (part := getattr(pipeline, name, None)) is not None), None)


@dataclass(frozen=True)
class Tail:
    """Between the packed state (1, *native), the state (C, H, W) and what the VAE decodes, (1, *decoded)."""

    native: tuple[int, ...]
    decoded: tuple[int, ...]
    order: Tensor | None = None  # (n,): the place in the packed state of each number of the state; None: the same
    back: Tensor | None = None  # its inverse
    scale: Tensor | None = None  # (1, *decoded) float64; None where there is no VAE
    shift: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the state: without frames."""
        c, *_, h, w = self.decoded
        return c, h, w

    def packed(self, x: Tensor) -> Tensor:
        """The state (B, C, H, W) as the pipeline packs it."""
        if self.back is None:
            return x.reshape(-1, *self.native)
        return x.flatten(1)[:, self.back.to(x.device)].reshape(-1, *self.native)

    def unpacked(self, x: Tensor) -> Tensor:
        """The other way."""
        if self.order is None:
            return x.reshape(-1, *self.shape)
        return x.flatten(1)[:, self.order.to(x.device)].reshape(-1, *self.shape)

    def for_vae(self, x: Tensor) -> Tensor:
        """The state as the VAE decodes it."""
        z = x.reshape(-1, *self.decoded)
        assert self.scale is not None
        assert self.shift is not None
        return (z.double() * self.scale.to(z.device) + self.shift.to(z.device)).to(x.dtype)

    def from_vae(self, z: Tensor) -> Tensor:
        """The other way."""
        assert self.scale is not None
        assert self.shift is not None
        x = (z.double() - self.shift.to(z.device)) / self.scale.to(z.device)
        return x.to(z.dtype).reshape(-1, *self.shape)


def tail_of(pipeline: Any, call: Mapping[str, Any], native: tuple[int, ...], answer: Callable[..., Any]) -> Tail:
    """Read off a pipeline's tail for the size of `call`.

    Args:
        pipeline: of diffusers, live.
        call: as recorded.
        native: the shape of one packed sample.
        answer: what its denoiser answers (`record.answering`).

    Raises:
        Incompatible: it does more than scale, shift and order.
    """
    import torch

    if vae_of(pipeline) is None:
        return Tail(native, native)
    count = math.prod(native)

    def through(numbers: Tensor) -> Tensor:
        return _decoded(pipeline, call, numbers.reshape(1, *native), answer)[0].double().cpu()

    shift = through(torch.zeros(count))
    scale = through(torch.ones(count)) - shift
    if shift.numel() != count or bool((scale == 0).any()):
        raise _strange(pipeline, f"{count} numbers become {shift.numel()} for its VAE")
    place, order = torch.arange(count), torch.zeros(shift.shape, dtype=torch.int64)
    for digit in range(max(1, math.ceil(math.log(count, BASE)))):
        digits = (place // BASE**digit) % BASE
        order += ((through(digits.float()) - shift) / scale).round().long() * BASE**digit
    order = order.flatten()
    if not torch.equal(order.sort().values, place):
        raise _strange(pipeline, "its numbers change places in a way of its own")
    test = torch.randn(count, generator=torch.Generator().manual_seed(0))
    found = through(test)
    wanted = scale * test.double()[order].reshape(scale.shape) + shift
    if float((found - wanted).abs().max()) > 0.05 * float(wanted.abs().max()):
        raise _strange(pipeline, "it is not linear")
    same = torch.equal(order, place)
    return Tail(
        native, tuple(shift.shape), None if same else order, None if same else order.argsort(), scale[None], shift[None]
    )


def _strange(pipeline: Any, what: str) -> Incompatible:
    return Incompatible(f"what {type(pipeline).__name__} does before its VAE cannot be undone: {what}")


def _decoded(pipeline: Any, call: Mapping[str, Any], latents: Tensor, answer: Callable[..., Any]) -> Tensor:
    """What the VAE is given to decode, where the last latents are these."""
    vae, got = vae_of(pipeline), list[Any]()

    def decode(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        got.append(z)
        raise Stop

    def step(output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
        return latents.to(sample.device).expand(len(sample), *latents.shape[1:]).clone()

    before, dtype = vars(vae).get("decode"), vae.dtype
    short = {n: v for n, v in call.items() if n not in ("timesteps", "sigmas")} | {"num_inference_steps": 2}
    short |= {"output_type": "pt"} if "output_type" in call else {}
    vars(vae)["decode"] = decode
    try:
        with in_hand(pipeline, answer, step), suppress(Stop):
            called(pipeline, short)
    finally:
        vars(vae).pop("decode")
        if before is not None:
            vars(vae)["decode"] = before
        if vae.dtype is not dtype:
            vae.to(dtype)  # SDXL puts its own in float32
    if not got:
        raise _strange(pipeline, "it decodes nothing")
    return got[0][:1]  # type: ignore[no-any-return]


@contextmanager
def wide(vae: Any) -> Iterator[Any]:
    """A VAE that overflows in float16, in float32 for a while."""
    import torch

    narrow = vae.dtype is torch.float16 and vae.config.get("force_upcast")
    if narrow:
        vae.to(torch.float32)
    try:
        yield vae
    finally:
        if narrow:
            vae.to(torch.float16)


def decode(vae: Any, z: Tensor) -> Tensor:
    """Pictures (B, 3, H, W), nominally in [0, 1]; of a video its one frame."""
    with wide(vae):
        made = vae.decode(z.to(vae.dtype))
    made = made.sample if hasattr(made, "sample") else made[0]
    made = made[:, :, 0] if made.ndim == 5 else made
    return made.to(z.dtype) / 2 + 0.5


def encode(vae: Any, images: Tensor, frames: bool) -> Tensor:
    """What the VAE makes of pictures in [0, 1]: the mode of its posterior, where it has one."""
    given = images * 2 - 1
    with wide(vae):
        made = vae.encode((given.unsqueeze(2) if frames else given).to(vae.dtype))
    if hasattr(made, "latent_dist"):
        made = made.latent_dist.mode()
    else:
        made = made.latents if hasattr(made, "latents") else made.latent if hasattr(made, "latent") else made[0]
    return made.to(images.dtype)  # type: ignore[no-any-return]
