"""Stable Diffusion 1.4, 2.1, XL and 3 (medium) at their real size, with random weights: does all run, in what memory?

Real weights cannot be had offline, and random networks are nearly linear, so nothing here speaks of quality.
Run by hand: `python -m benchmarks.full_size 1.4` (or 2.1; 10 steps, float32), or `xl` (1024x1024) or `3` (512x512), two
steps each in bfloat16 through the adapter that replays a pipeline's own call; 8 to 20 GB of memory, some minutes on a
CPU. `python -m benchmarks.full_size plan 3` (or another) prints what `unsample plan` predicts of the same pipeline from
a folder of its configs and of headers without weights: in seconds, and next to no memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import unsample
from benchmarks.common import seconds, show
from unsample.media.files import atomic_write
from unsample.models.loading import BUNDLED_FOLDER

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULER = BETAS | {"set_alpha_to_one": False, "steps_offset": 1}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32}


def random(make: Callable[[], nn.Module], dtype: torch.dtype, device: str) -> Any:
    """A network of random weights (none on "meta"), made in its dtype at once: float32 would not fit beside it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return make().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def vae(**more: Any) -> AutoencoderKL:
    """The autoencoder of all four, by its settings."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        **more,
    )


def tokens() -> CLIPTokenizer:
    """A tokenizer of the real length; its words are those of the bundled one."""
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED_FOLDER / "scenes-sd" / "tokenizer")
    tokenizer.model_max_length = 77
    return tokenizer


def text(cls: Any, settings: dict[str, int], width: int) -> Callable[[], nn.Module]:
    """A CLIP text encoder."""
    words = len(tokens())
    ends = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    return lambda: cls(CLIPTextConfig(**settings, **ends, projection_dim=width))


def stable_diffusion(version: str, device: str) -> Any:
    """1.4 or 2.1, float32."""
    two, single = version == "2.1", torch.float32
    unet = random(
        lambda: UNet2DConditionModel(
            sample_size=96 if two else 64,
            cross_attention_dim=1024 if two else 768,
            attention_head_dim=[5, 10, 20, 20] if two else 8,
            use_linear_projection=two,
        ),
        single,
        device,
    )
    predicts = {"clip_sample": False, "prediction_type": "v_prediction"}
    return StableDiffusionPipeline(
        vae=random(lambda: vae(scaling_factor=0.18215, sample_size=768 if two else 512), single, device),
        text_encoder=random(text(CLIPTextModel, CLIP_H if two else CLIP_L, 512), single, device),
        tokenizer=tokens(),
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULER, **predicts) if two else PNDMScheduler(**SCHEDULER, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(device: str) -> Any:
    """XL base 1.0, bfloat16, its VAE in float32."""
    unet = random(
        lambda: UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        torch.bfloat16,
        device,
    )
    return StableDiffusionXLPipeline(
        vae=random(lambda: vae(scaling_factor=0.13025, sample_size=1024, force_upcast=True), torch.float32, device),
        text_encoder=random(text(CLIPTextModel, CLIP_L, 768), torch.bfloat16, device),
        text_encoder_2=random(text(CLIPTextModelWithProjection, CLIP_G, 1280), torch.bfloat16, device),
        tokenizer=tokens(),
        tokenizer_2=tokens(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )


def stable_diffusion_3(device: str) -> Any:
    """3 medium without its T5, bfloat16, its VAE in float32."""
    transformer = random(
        lambda: SD3Transformer2DModel(
            sample_size=128,
            in_channels=16,
            out_channels=16,
            num_layers=24,
            num_attention_heads=24,
            attention_head_dim=64,
            joint_attention_dim=4096,
            caption_projection_dim=1536,
            pooled_projection_dim=2048,
            pos_embed_max_size=192,
        ),
        torch.bfloat16,
        device,
    )
    sixteen = {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "sample_size": 1024}
    return StableDiffusion3Pipeline(
        vae=random(lambda: vae(**sixteen, use_quant_conv=False, use_post_quant_conv=False), torch.float32, device),
        text_encoder=random(text(CLIPTextModelWithProjection, CLIP_L, 768), torch.bfloat16, device),
        text_encoder_2=random(text(CLIPTextModelWithProjection, CLIP_G, 1280), torch.bfloat16, device),
        text_encoder_3=None,
        tokenizer=tokens(),
        tokenizer_2=tokens(),
        tokenizer_3=None,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


BUILDERS: dict[
    str, tuple[Callable[[str], Any], int, dict[str, Any]]
] = {  # pipeline, side of the picture, how to invert
    "1.4": (partial(stable_diffusion, "1.4"), 512, {"num_inference_steps": 10, "strength": 0.2}),
    "2.1": (partial(stable_diffusion, "2.1"), 768, {"num_inference_steps": 10, "strength": 0.2}),
    "xl": (stable_diffusion_xl, 1024, {"num_inference_steps": 2}),
    "3": (stable_diffusion_3, 512, {"num_inference_steps": 2}),
}


def outlined(version: str, folder: Path) -> None:
    """Write a pipeline's folder as `unsample plan` reads it: configs, and safetensors whose values take no room."""
    pipeline = BUILDERS[version][0]("meta")
    pipeline.save_config(folder)
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            config = getattr(part, "save_config", None) or part.config.save_pretrained
            config(folder / name)
            _header(part, folder / name / "model.safetensors")
        elif part is not None:
            part.save_pretrained(folder / name)


def _header(part: nn.Module, path: Path) -> None:
    listed, end = {}, 0
    for name, tensor in part.state_dict().items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        kind = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}[tensor.dtype]
        listed[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(listed).encode()
    atomic_write(path, lambda temporary: temporary.write_bytes(len(text).to_bytes(8, "little") + text))
    os.truncate(path, 8 + len(text) + end)  # longer: zeros that lie nowhere


def plan(version: str) -> None:
    """What is predicted, on the command line."""
    side, dtype = BUILDERS[version][1], "bfloat16" if version in ("xl", "3") else "float32"
    with TemporaryDirectory() as folder:
        outlined(version, Path(folder))
        asked = ["--method", "ddim", "--size", f"{side}x{side}", "--steps", "2", "--dtype", dtype]
        subprocess.run([sys.executable, "-m", "unsample", "plan", "-m", folder, *asked], check=True)


def main(version: str) -> None:
    torch.manual_seed(0)
    make, side, given = BUILDERS[version]
    pipeline, found = make("cpu"), dict[str, Any]()
    model = unsample.load(pipeline)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    up = seconds(lambda: found.update(up=unsample.invert(model, image, "a photograph", **given)))
    down = seconds(lambda: found.update(down=unsample.reconstruct(model, found["up"])))
    meta = found["up"].meta
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    row = {
        "model": f"stable-diffusion-{version}, random weights",
        "parameters": f"{sum(p.numel() for m in parts for p in m.parameters()):,}",
        "weights GB": f"{sum(p.numel() * p.element_size() for m in parts for p in m.parameters()) / 2**30:.1f}",
        "picture": f"{side}x{side}",
        "steps": meta["stop_index"],
        "invert, s": f"{up:.0f}",
        "reconstruct, s": f"{down:.0f}",
        "peak GB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f}",
        "finite": bool(found["up"].noise.isfinite().all() and found["down"].images.isfinite().all()),
        "scheduler": meta["grid"]["meta"]["scheduler"],
    }
    show("Full size, random weights", [*row], [[*row.values()]])


if __name__ == "__main__":
    plan(sys.argv[2]) if sys.argv[1] == "plan" else main(sys.argv[1])
