"""Pixel-space models: `UNet2DModel` pipelines (DDPM, DDIM) and, through `wrap`, any callable network."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible
from unsample.models.base import Adapter, Condition, described, luminance
from unsample.models.calling import LABELS, Denoiser, config_of, inputs_of, vae_decode, vae_encode, vae_factor
from unsample.models.families import check_pixel_unet, check_unet
from unsample.models.identity import identity
from unsample.models.weights import Weights
from unsample.numbers.grid import FLOW, prediction_type_of
from unsample.numeric import is_real, is_whole

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = "unknown"  # in place of a hash


class PixelModel(Denoiser, Adapter):
    """The network sees the picture itself, in [-1, 1]."""

    family = "pixel"
    __repr__ = described
    takes_prompt = False

    def __init__(self, unet: Any, scheduler: Any, id: str, sample_shape: tuple[int, ...] | None = None) -> None:
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
        self.sample_shape = self.checked(sample_shape)
        self.grey = self.shows and self.sample_shape[0] == 1
        self.picture_size = (self.sample_shape[2], self.sample_shape[1])
        self.multiple = 2 ** (len(config["block_out_channels"]) - 1) if config and "block_out_channels" in config else 1
        parameter = next(unet.parameters(), None) if hasattr(unet, "parameters") else None
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.dtype = None if parameter is None else parameter.dtype
        classes = config_of(unet)
        # DiT counts its classes without the one that stands for none, which is the one after the last
        self.null_class: int | None = classes.get("num_embeds_ada_norm")
        self.num_classes: int | None = classes.get("num_class_embeds") or self.null_class
        self.check()

    def checked(self, shape: Any) -> tuple[int, int, int]:
        """A sample shape, or `BadOption`."""
        if not _are_whole(shape) or len(shape) != 3:
            raise BadOption(f"sample_shape must be (C, H, W), whole numbers of at least 1; got {shape!r}")
        return tuple(shape)  # type: ignore[return-value]

    def make_weights(self) -> Weights:
        """What its hash is made of."""
        return Weights(lambda: {"": self.unet}, foreign=True)

    def check(self) -> None:
        """Refuse a network, or what was put into it, that needs more than it would be given (`Incompatible`)."""
        check_pixel_unet(self.id, config_of(self.unet))
        self.weights.check()

    @property
    def shows(self) -> bool:
        """Whether what the network sees is a picture."""
        return self.sample_shape[0] in (1, 3)

    def encode(self, images: Tensor) -> Tensor:
        """[0, 1] to [-1, 1]; a one-channel model sees the luminance."""
        if not self.shows:
            raise Incompatible(
                f"{self.id} takes {self.sample_shape[0]} channels, no pictures; give latents= (or vae= to wrap)"
            )
        return (luminance(images) if self.grey else images) * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        """[-1, 1] to [0, 1]; where the channels are none of a picture, as many pictures of no size (B, 3, 0, 0)."""
        if not self.shows:
            return latents.new_empty(len(latents), 3, 0, 0)
        images = latents / 2 + 0.5
        return images.expand(-1, 3, -1, -1) if self.grey else images

    def embed(self, prompts: Sequence[str | None], negative: bool = False) -> Condition:
        """Refuses: there is no text encoder."""
        raise Incompatible(f"{self.id} takes no prompt; leave prompt out, or use a text model such as scenes-sd")

    def weights_sha256(self) -> str:
        """SHA-256 of the network's weights and of what changes its predictions beside them."""
        return self.weights.sha256()


class CallableModel(PixelModel):
    """What `unsample.wrap` makes: any callable network, optionally with a VAE; text comes as `prompt_embeds` only.

    Its arguments are those of `wrap`.
    """

    family = "callable"

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        vae: Any = None,
        sample_shape: tuple[int, ...] | None = None,
        id: str | None = None,
        batched_timestep: bool = False,
        timestep_scale: float | None = None,
        reversed_time: bool = False,
        num_classes: int | None = None,
        null_class: int | None = None,
    ) -> None:
        self.vae, self.given_id = vae, id
        told = hasattr(unet, "state_dict") and (len(unet.state_dict()) > 0 or id is not None)
        self.identity = None if told or id is not None else identity(unet)
        super().__init__(unet, scheduler, f"wrap({id or type(unet).__name__})", sample_shape)
        self._set_time(timestep_scale, reversed_time)
        self.needs, named = inputs_of(unet, self.id)
        self.label_name = next((name for name in LABELS if name in named), LABELS[0])
        self._set_classes(num_classes, null_class)
        self.takes_labels = self.label_name in named and (self.num_classes or not config_of(unet))
        self.batched_timestep = batched_timestep or _is_diffusers(unet)
        if vae is not None and self.vectors:
            raise BadOption(f"a VAE makes latents (C, H, W), and sample_shape is {sample_shape}; leave vae out")
        if vae is not None:
            self.grey = False
            self.factor = vae_factor(vae)
            self.picture_size = (self.sample_shape[2] * self.factor, self.sample_shape[1] * self.factor)
            self.multiple *= self.factor

    def checked(self, shape: Any) -> tuple[int, int, int]:
        """A sample shape, or `BadOption`; of vectors (D,) it is (D, 1, 1) to all but the network."""
        if not _are_whole(shape) or len(shape) not in (1, 3):
            raise BadOption(
                f"sample_shape must be (C, H, W), or (D,) of vectors, whole numbers of at least 1; got {shape!r}"
            )
        self.vectors = len(shape) == 1
        return (*shape, *(1, 1)[: 3 - len(shape)])

    def _set_time(self, scale: Any, reversed_time: Any) -> None:
        """How its time is told from the scheduler's."""
        if scale is not None and (not is_real(scale) or not 0 < scale < math.inf):
            raise BadOption(f"timestep_scale must be a finite number above 0; got {scale!r}")
        if reversed_time and prediction_type_of(self.scheduler) != FLOW:
            raise Incompatible(
                f"reversed_time is of flow networks, whose time may run either way; {type(self.scheduler).__name__} is "
                "no scheduler of flow matching"
            )
        self.timestep_scale, self.reversed_time = scale, bool(reversed_time)

    def _set_classes(self, num_classes: Any, null_class: Any) -> None:
        """Those that were given, in place of the config's."""
        for name, value, least in (("num_classes", num_classes, 1), ("null_class", null_class, 0)):
            if value is not None and (not is_whole(value) or value < least):
                raise BadOption(f"{name} must be a whole number of at least {least}; got {value!r}")
        self.num_classes = self.num_classes if num_classes is None else int(num_classes)
        self.null_class = self.null_class if null_class is None else int(null_class)
        told = {"timestep_scale": self.timestep_scale, "reversed_time": self.reversed_time, "null_class": null_class}
        self.told = {n: value for n, value in told.items() if value is not None and value is not False}

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
        """SHA-256 of the weights, of a plain function's source and what it holds, and of what `wrap` was told.

        That is the id, and what of time and classes changes an answer. "unknown" for a function of which nothing can
        be read.
        """
        sha256 = self.weights.sha256()
        if self.identity is not None and not self.identity.known:
            return UNKNOWN
        own = [self.identity.sha256 if self.identity else self.given_id]
        own += [json.dumps(self.told, sort_keys=True)] if self.told else []
        return sha256 if own == [None] else hashlib.sha256("\n".join([sha256, *map(str, own)]).encode()).hexdigest()

    @property
    def shows(self) -> bool:
        """Whether `decode` makes a picture of what the network sees."""
        return self.vae is not None or (super().shows and not self.vectors)

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


def _are_whole(shape: Any) -> bool:
    """Whether it is a tuple of whole numbers, each at least 1."""
    return isinstance(shape, tuple | list) and all(isinstance(n, int) and n > 0 for n in shape)


def _is_diffusers(unet: Any) -> bool:
    """Whether it is a network of diffusers: they all take a time for every picture."""
    return type(getattr(unet, "_orig_mod", unet)).__module__.startswith("diffusers.")
