"""Latent text-to-image models of the Stable Diffusion 1.x/2.x layout: VAE, CLIP text encoder, U-Net."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.models.base import Condition, state_dict_sha256
from unsample.models.calling import call_network, vae_decode, vae_encode, vae_factor

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LatentModel:
    """A loaded Stable Diffusion 1.x/2.x pipeline's components."""

    family = "latent"
    takes_prompt = True
    num_classes: int | None = None

    def __init__(self, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, scheduler: Any, id: str) -> None:
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.scheduler, self.id = scheduler, id
        if unet.config.in_channels != vae.config.latent_channels:
            raise Incompatible(
                f"{id}'s U-Net takes {unet.config.in_channels} channels and its VAE makes {vae.config.latent_channels} "
                "(an inpainting or upscaling model?); a text-to-image model is needed"
            )
        self.factor = vae_factor(vae)
        size = unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.sample_shape = (unet.config.in_channels, height, width)
        self.picture_size = (width * self.factor, height * self.factor)
        self.multiple = self.factor * 2 ** (len(unet.config.block_out_channels) - 1)
        self.dtype = unet.dtype

    @property
    def device(self) -> torch.device:
        """Where the pictures go: the device offload hooks run on, if there are any, else the U-Net's."""
        hook = getattr(self.unet, "_hf_hook", None)
        import torch

        device = getattr(hook, "execution_device", None)
        return torch.device(device) if device is not None else torch.device(self.unet.device)

    def network(self, x: Tensor, timestep: int, condition: Condition) -> Tensor:
        """The U-Net's raw output."""
        return call_network(self.unet, x, timestep, condition, self.dtype)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures in [0, 1] to scaled latents (posterior mean)."""
        return vae_encode(self.vae, images)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to pictures, nominally in [0, 1]."""
        return vae_decode(self.vae, latents)

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """The text encoder's last hidden state (B, L, D); what does not fit is dropped with a warning that names it."""
        length = self.tokenizer.model_max_length
        self._warn_truncated(prompts, length)
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        mask = tokens.attention_mask if getattr(self.text_encoder.config, "use_attention_mask", False) else None
        device = self.device
        encoded = self.text_encoder(
            input_ids=tokens.input_ids.to(device), attention_mask=None if mask is None else mask.to(device)
        )
        return encoded.last_hidden_state.float()

    def _warn_truncated(self, prompts: Sequence[str], length: int) -> None:
        """One warning, however many prompts are too long."""
        said = []
        for prompt in dict.fromkeys(prompts):
            if len(prompt) <= length - 2:  # every token covers at least a byte, and a character is at least one
                continue
            ids = self.tokenizer(prompt, truncation=False, verbose=False).input_ids
            if len(ids) <= length:
                continue
            dropped = self.tokenizer.decode(ids[length - 1 : -1], skip_special_tokens=True)
            shown = dropped if len(dropped) <= 80 else dropped[:77] + "..."
            said.append(f"the prompt has {len(ids) - 2} tokens and {self.id} reads {length - 2}; dropped: {shown!r}")
        if said:
            warnings.warn("; ".join(said), stacklevel=4)

    @cached_property
    def _sha256(self) -> str:
        parts = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}
        return state_dict_sha256({f"{p}.{k}": v for p, m in parts.items() for k, v in m.state_dict().items()})

    def weights_sha256(self) -> str:
        """SHA-256 of U-Net, VAE and text encoder."""
        return self._sha256
