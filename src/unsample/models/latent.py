"""Latent text-to-image models of the Stable Diffusion 1.x/2.x layout: VAE, CLIP text encoder, U-Net."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unsample.models.base import Adapter, Condition, described
from unsample.models.calling import Denoiser, config_of, scaled, unscaled, vae_decode, vae_encode, vae_factor
from unsample.models.families import check_unet
from unsample.models.weights import Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LatentModel(Denoiser, Adapter):
    """A loaded Stable Diffusion 1.x/2.x pipeline's components."""

    family = "latent"
    __repr__ = described
    takes_prompt = True
    num_classes: int | None = None

    def __init__(self, unet: Any, vae: Any, text_encoder: Any, tokenizer: Any, scheduler: Any, id: str) -> None:
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.scheduler, self.id = scheduler, id
        self.weights = Weights(
            lambda: {"unet.": self.unet, "vae.": self.vae, "text_encoder.": self.text_encoder}, foreign=True
        )
        self.check()
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
        import torch

        hooks = (vars(layer).get("_hf_hook") for layer in self.unet.modules()) if hasattr(self.unet, "_hf_hook") else ()
        found = (getattr(hook, "execution_device", None) for hook in hooks)  # sequential offload: of the layers alone
        device = next((d for d in found if d is not None), None)
        return torch.device(self.unet.device if device is None else device)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures in [0, 1] to scaled latents (posterior mean)."""
        return vae_encode(self.vae, images)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to pictures, nominally in [0, 1]."""
        return vae_decode(self.vae, latents)

    def for_vae(self, latents: Tensor) -> Tensor:
        """Scaled latents as the VAE's decoder takes them."""
        return unscaled(self.vae, latents)

    def from_vae(self, z: Tensor) -> Tensor:
        """The other way."""
        return scaled(self.vae, z)

    def embed(self, prompts: Sequence[str | None], negative: bool = False) -> Condition:
        """The text encoder's last hidden state (B, L, D); what does not fit is dropped with a warning that names it.

        None is the empty prompt, on either side.
        """
        from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin

        length = self.tokenizer.model_max_length
        # a word that textual inversion taught in several vectors becomes as many tokens
        texts = TextualInversionLoaderMixin().maybe_convert_prompt([p or "" for p in prompts], self.tokenizer)
        self._warn_truncated(texts, length)
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        mask = tokens.attention_mask if getattr(self.text_encoder.config, "use_attention_mask", False) else None
        device = self.device
        encoded = self.text_encoder(
            input_ids=tokens.input_ids.to(device), attention_mask=None if mask is None else mask.to(device)
        )
        return Condition(encoded.last_hidden_state.float())

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

    def check(self) -> None:
        """Refuse a U-Net, or what was put into it, that needs more than latents, time and prompt (`Incompatible`)."""
        check_unet(self.id, config_of(self.unet), self.vae.config.latent_channels)
        self.weights.check()

    def weights_sha256(self) -> str:
        """SHA-256 of U-Net, VAE and text encoder, and of what changes their predictions beside their weights."""
        return self.weights.sha256()
