"""Stable Diffusion 1.4 and 2.1 at their real size, with random weights: does the whole path run, and in what memory?

Real weights cannot be had offline, and random networks are nearly linear, so nothing here speaks of quality.
Run by hand: `python -m benchmarks.full_size 1.4` (or 2.1); 8 to 12 GB of memory and some minutes on a CPU.
"""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import unsample
from benchmarks.common import seconds, show
from unsample.models.latent import LatentModel
from unsample.models.loading import BUNDLED_FOLDER

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULER = BETAS | {"set_alpha_to_one": False, "steps_offset": 1}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
TEXT_2 = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23}


def build(version: str) -> LatentModel:
    """The architecture of the real configuration; weights are random."""
    torch.manual_seed(0)
    two = version == "2.1"
    unet = UNet2DConditionModel(
        sample_size=96 if two else 64,
        cross_attention_dim=1024 if two else 768,
        attention_head_dim=[5, 10, 20, 20] if two else 8,
        use_linear_projection=two,
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        scaling_factor=0.18215,
        sample_size=768 if two else 512,
    )
    text = CLIPTextModel(CLIPTextConfig(**(TEXT_2 if two else TEXT), projection_dim=512))
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED_FOLDER / "scenes-sd" / "tokenizer")
    tokenizer.model_max_length = 77
    predicts = {"clip_sample": False, "prediction_type": "v_prediction"}
    scheduler = DDIMScheduler(**SCHEDULER, **predicts) if two else PNDMScheduler(**SCHEDULER, skip_prk_steps=True)
    for module in (unet, vae, text):
        module.eval().requires_grad_(False)
    return LatentModel(unet, vae, text, tokenizer, scheduler, f"stable-diffusion-{version}, random weights")


def main(version: str) -> None:
    model, found = build(version), dict[str, Any]()
    side = model.picture_size[0]
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"num_inference_steps": 10, "strength": 0.2}
    up = seconds(lambda: found.update(up=unsample.invert(model, image, "a photograph", **given)))
    down = seconds(lambda: found.update(down=unsample.reconstruct(model, found["up"], guidance_scale=2.0)))
    meta = found["up"].meta
    parts = (model.unet, model.vae, model.text_encoder)
    row = {
        "model": model.id,
        "parameters": f"{sum(p.numel() for m in parts for p in m.parameters()):,}",
        "picture": f"{side}x{side}",
        "steps": meta["stop_index"],
        "invert, s": f"{up:.0f}",
        "reconstruct w=2, s": f"{down:.0f}",
        "peak GB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f}",
        "finite": bool(found["down"].images.isfinite().all()),
        "scheduler": meta["grid"]["meta"]["scheduler"],
    }
    show("Full size, random weights", [*row], [[*row.values()]])


if __name__ == "__main__":
    main(sys.argv[1])
