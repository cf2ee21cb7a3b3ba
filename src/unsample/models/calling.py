"""How the networks of a diffusers pipeline are called: the denoiser, and the two halves of a VAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.models.base import Condition


def call_network(unet: Any, x: Tensor, timestep: int, condition: Condition, dtype: torch.dtype | None) -> Tensor:
    """Ask a diffusers-like network: cast in, unwrap `.sample`, drop a learned variance, cast out."""
    import torch

    t = torch.tensor(timestep, dtype=torch.int64, device=x.device)
    more: dict[str, Tensor] = {}
    if condition.prompt_embeds is not None:
        more["encoder_hidden_states"] = condition.prompt_embeds.to(dtype or x.dtype)
    if condition.class_labels is not None:
        more["class_labels"] = condition.class_labels
    try:
        output = unet(x.to(dtype or x.dtype, copy=True), t, **more)  # it may write into what it is given
    except TypeError as error:
        missing = [name for name in more if f"unexpected keyword argument '{name}'" in str(error)]
        if missing:
            raise Incompatible(f"{missing[0]} was given, and the network takes no such argument: {error}") from error
        raise
    output = getattr(output, "sample", output)
    output = output[0] if isinstance(output, tuple) else output
    if not isinstance(output, torch.Tensor):
        raise Incompatible(f"the network answered {type(output).__name__}, not a tensor, a tuple with one or .sample")
    output = output[:, : x.shape[1]]
    if output.shape != x.shape:
        raise Incompatible(f"the network answered {tuple(output.shape)} to a sample of {tuple(x.shape)}; not its noise")
    return output.to(x.dtype)


def vae_factor(vae: Any) -> int:
    """Picture pixels per latent pixel."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def vae_encode(vae: Any, images: Tensor) -> Tensor:
    """The scaled posterior mean (never a sample) of pictures in [0, 1]."""
    mean = vae.encode((images * 2 - 1).to(vae.dtype)).latent_dist.mode().to(images.dtype)
    return (mean - (vae.config.get("shift_factor") or 0)) * vae.config.scaling_factor


def vae_decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents to pictures, nominally in [0, 1]."""
    unscaled = latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0)
    return vae.decode(unscaled.to(vae.dtype)).sample.to(latents.dtype) / 2 + 0.5
