"""Networks and autoencoders of tiny pipelines."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
)

from tests.zoo.text import seeded

TABLE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLUX_VAE: dict[str, Any] = {"shift_factor": 0.1, "scaling_factor": 0.36}
PLAIN_VAE: dict[str, Any] = {**FLUX_VAE, "use_quant_conv": False, "use_post_quant_conv": False}


def awake(network: Any) -> Any:
    """Layers that are initialised to zero, or not at all, get numbers: they would hide everything before them."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.isfinite().all() or weight.abs().max() == 0:
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return network.requires_grad_(False).eval()


def ddim(**more: Any) -> Any:
    """Stable Diffusion's table."""
    settings = {**TABLE, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return DDIMScheduler(**settings | {"timestep_spacing": "trailing"} | more)


def euler(**more: Any) -> Any:
    """SDXL's scheduler."""
    return EulerDiscreteScheduler(**{**TABLE, "timestep_spacing": "leading", "steps_offset": 1, **more})


def flow(**more: Any) -> Any:
    """Flow matching, first order."""
    return FlowMatchEulerDiscreteScheduler(**more)


@seeded(4)
def vae(levels: int = 2, **more: Any) -> Any:
    """`AutoencoderKL` that makes pictures smaller by 2 ** (levels - 1)."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=[8] * levels,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=32,
        **more,
    )


@seeded(4)
def flux2_vae() -> Any:
    """With a batch norm of latents that is not the identity."""
    made = AutoencoderKLFlux2(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=2,
    )
    made.bn.running_mean.normal_()
    made.bn.running_var.uniform_(0.5, 2)
    return made


@seeded(4)
def qwen_vae() -> Any:
    """Of videos, with a mean and a deviation a channel."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.0, 2.0, 0.5, 1.5],
    )


@seeded(4)
def deep_vae() -> Any:
    """Sana's, without a distribution."""
    return AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )


@seeded(4)
def hunyuan_vae() -> Any:
    """Smaller by 8."""
    return AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=1,
        scaling_factor=0.476,
        sample_size=128,
        spatial_compression_ratio=8,
        downsample_match_channel=True,
        upsample_match_channel=True,
    )


@seeded(5)
def unet(**more: Any) -> Any:
    """Stable Diffusion's U-Net."""
    settings: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 2,
    }
    return awake(UNet2DConditionModel(**settings | more))


def sdxl_unet(context: int) -> Any:
    """SDXL's, with its sizes and pooled embeddings."""
    return unet(
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 32,
        cross_attention_dim=context,
    )


def transformer(kind: type, **settings: Any) -> Any:
    """A transformer of any class."""
    return seeded(5)(lambda: awake(kind(**settings)))()
