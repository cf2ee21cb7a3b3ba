"""Pixel-space models: `UNet2DModel` pipelines (DDPM, DDIM) and, through `wrap`, any callable network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible
from unsample.models.base import Condition, state_dict_sha256
from unsample.models.calling import call_network, vae_decode, vae_encode, vae_factor

if TYPE_CHECKING:
    from torch import Tensor


class PixelModel:
    """The network sees the picture itself, in [-1, 1]."""

    family = "pixel"
    takes_prompt = False

    def __init__(self, unet: Any, scheduler: Any, id: str, sample_shape: tuple[int, int, int] | None = None) -> None:
        import torch

        self.unet, self.scheduler, self.id = unet, scheduler, id
        config = getattr(unet, "config", None)
        if sample_shape is None:
            if config is None or config.get("sample_size") is None:
                raise Incompatible(f"{id} has no config that tells its picture size; give sample_shape=(C, H, W)")
            size = config["sample_size"]
            height, width = (size, size) if isinstance(size, int) else size
            sample_shape = (config["in_channels"], height, width)
        whole = isinstance(sample_shape, tuple | list) and all(isinstance(n, int) and n > 0 for n in sample_shape)
        if not whole or len(sample_shape) != 3:
            raise BadOption(f"sample_shape must be (C, H, W), whole numbers of at least 1; got {sample_shape!r}")
        self.sample_shape = sample_shape
        self.picture_size = (sample_shape[2], sample_shape[1])
        self.multiple = 2 ** (len(config["block_out_channels"]) - 1) if config and "block_out_channels" in config else 1
        parameter = next(unet.parameters(), None) if hasattr(unet, "parameters") else None
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.dtype = None if parameter is None else parameter.dtype
        self.num_classes: int | None = config.get("num_class_embeds") if config else None

    def network(self, x: Tensor, timestep: int, condition: Condition) -> Tensor:
        """The network's raw output."""
        return call_network(self.unet, x, timestep, condition, self.dtype)

    def encode(self, images: Tensor) -> Tensor:
        """[0, 1] to [-1, 1]; a one-channel model sees the luminance."""
        if self.sample_shape[0] not in (1, 3):
            raise Incompatible(
                f"{self.id} takes {self.sample_shape[0]} channels, no pictures; give latents= (or vae= to wrap)"
            )
        if self.sample_shape[0] == 1:
            weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
            images = (images * weights).sum(1, keepdim=True)
        return images * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        """[-1, 1] to [0, 1]."""
        images = latents / 2 + 0.5
        return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Refuses: there is no text encoder."""
        raise Incompatible(f"{self.id} takes no prompt; leave prompt out, or use a text model such as scenes-sd")

    @cached_property
    def _sha256(self) -> str:
        return state_dict_sha256(self.unet.state_dict() if hasattr(self.unet, "state_dict") else {})

    def weights_sha256(self) -> str:
        """SHA-256 of the network's weights (of nothing for a plain function)."""
        return self._sha256


class CallableModel(PixelModel):
    """What `unsample.wrap` makes: any callable network, optionally with a VAE; text comes as `prompt_embeds` only."""

    family = "callable"

    def __init__(
        self, unet: Any, scheduler: Any, vae: Any = None, sample_shape: tuple[int, int, int] | None = None
    ) -> None:
        super().__init__(unet, scheduler, f"wrap({type(unet).__name__})", sample_shape)
        self.vae = vae
        if vae is not None:
            self.factor = vae_factor(vae)
            self.picture_size = (self.sample_shape[2] * self.factor, self.sample_shape[1] * self.factor)
            self.multiple *= self.factor

    @cached_property
    def _sha256(self) -> str:
        parts = {"": self.unet, "vae.": self.vae}
        named = {p: part.state_dict() for p, part in parts.items() if hasattr(part, "state_dict")}
        return state_dict_sha256({f"{p}{k}": v for p, state in named.items() for k, v in state.items()})

    def encode(self, images: Tensor) -> Tensor:
        """By the VAE where there is one."""
        if self.vae is None:
            return super().encode(images)
        return vae_encode(self.vae, images)

    def decode(self, latents: Tensor) -> Tensor:
        """By the VAE where there is one."""
        if self.vae is None:
            return super().decode(latents)
        return vae_decode(self.vae, latents)
