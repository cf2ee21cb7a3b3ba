"""Pixel-space models: `UNet2DModel` pipelines (DDPM, DDIM) and, through `wrap`, any callable network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible
from unsample.models.base import Adapter, Condition, described
from unsample.models.calling import Denoiser, config_of, inputs_of, vae_decode, vae_encode, vae_factor
from unsample.models.families import check_pixel_unet, check_unet
from unsample.models.identity import identity
from unsample.models.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


UNKNOWN = "unknown"  # in place of a hash


class PixelModel(Denoiser, Adapter):
    """The network sees the picture itself, in [-1, 1]."""

    family = "pixel"
    __repr__ = described
    takes_prompt = False

    def __init__(self, unet: Any, scheduler: Any, id: str, sample_shape: tuple[int, int, int] | None = None) -> None:
        import torch

        self.unet, self.scheduler, self.id = unet, scheduler, id
        self.weights = self.make_weights()
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
        classes = config_of(unet)
        # DiT counts its classes without the one that stands for none, which is the one after the last
        self.null_class: int | None = classes.get("num_embeds_ada_norm")
        self.num_classes: int | None = classes.get("num_class_embeds") or self.null_class
        self.check()

    def make_weights(self) -> Weights:
        """What its hash is made of."""
        return Weights(lambda: {"": self.unet}, foreign=True)

    def check(self) -> None:
        """Refuse a network, or what was put into it, that needs more than it would be given (`Incompatible`)."""
        check_pixel_unet(self.id, config_of(self.unet))
        self.weights.check()

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

    def embed(self, prompts: Sequence[str | None], negative: bool = False) -> Condition:
        """Refuses: there is no text encoder."""
        raise Incompatible(f"{self.id} takes no prompt; leave prompt out, or use a text model such as scenes-sd")

    def weights_sha256(self) -> str:
        """SHA-256 of the network's weights and of what changes its predictions beside them."""
        return self.weights.sha256()


class CallableModel(PixelModel):
    """What `unsample.wrap` makes: any callable network, optionally with a VAE; text comes as `prompt_embeds` only."""

    family = "callable"

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        vae: Any = None,
        sample_shape: tuple[int, int, int] | None = None,
        id: str | None = None,
        batched_timestep: bool = False,
    ) -> None:
        self.vae, self.given_id = vae, id
        told = hasattr(unet, "state_dict") and (len(unet.state_dict()) > 0 or id is not None)
        self.identity = None if told or id is not None else identity(unet)
        super().__init__(unet, scheduler, f"wrap({id or type(unet).__name__})", sample_shape)
        self.needs, named = inputs_of(unet, self.id)
        self.takes_labels = "class_labels" in named and (self.num_classes or not config_of(unet))
        self.batched_timestep = batched_timestep or _is_diffusers(unet)
        if vae is not None:
            self.factor = vae_factor(vae)
            self.picture_size = (self.sample_shape[2] * self.factor, self.sample_shape[1] * self.factor)
            self.multiple *= self.factor

    def make_weights(self) -> Weights:
        """Of network and VAE, and of the networks that a function holds."""
        held = self.identity.networks if self.identity else ()
        return Weights(lambda: {"": self.unet, "vae.": self.vae, **{f"held.{k}.": n for k, n in enumerate(held)}})

    @property
    def unread(self) -> tuple[str, ...]:
        """What of a plain function could not be read, so that its hash does not tell it from others."""
        return self.identity.unread if self.identity else ()

    def check(self) -> None:
        """Refuse a network that needs more than it would be given (`Incompatible`)."""
        config = config_of(self.unet)
        latent = config_of(self.vae).get("latent_channels") if self.vae is not None else None
        if type(self.unet).__name__ == "UNet2DConditionModel":
            check_unet(self.id, config, latent)
        elif "block_out_channels" in config:
            check_pixel_unet(self.id, config)
        self.weights.check()

    def weights_sha256(self) -> str:
        """SHA-256 of the weights, of a plain function's source and what it holds, and of the id that was given.

        "unknown" for a function of which nothing can be read.
        """
        sha256 = self.weights.sha256()
        if self.identity is not None and not self.identity.known:
            return UNKNOWN
        own = self.identity.sha256 if self.identity else self.given_id
        return sha256 if own is None else hashlib.sha256(f"{sha256}\n{own}".encode()).hexdigest()

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


def _is_diffusers(unet: Any) -> bool:
    """Whether it is a network of diffusers: they all take a time for every picture."""
    return type(getattr(unet, "_orig_mod", unet)).__module__.startswith("diffusers.")
