"""Stable Diffusion 1.4 and 2.1 at their real size, with random weights: does the whole path run, and in what memory?

Real weights cannot be had offline, and random networks are nearly linear, so nothing here speaks of quality.
Run by hand: `python -m benchmarks.full_size 1.4` (or 2.1); 8 to 12 GB of memory and some minutes on a CPU.
"""

from __future__ import annotations

import resource
import sys
import time

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import unsample
from benchmarks.tables import show
from unsample.models.latent import LatentModel
from unsample.models.loading import BUNDLED_FOLDER

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


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
    width = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23}
    small = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    text = CLIPTextModel(CLIPTextConfig(**(width if two else small), projection_dim=512))
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED_FOLDER / "scenes-sd" / "tokenizer")
    tokenizer.model_max_length = 77
    if two:
        scheduler = DDIMScheduler(**SCHEDULER, clip_sample=False, prediction_type="v_prediction")
    else:
        scheduler = PNDMScheduler(**SCHEDULER, skip_prk_steps=True)
    for module in (unet, vae, text):
        module.eval().requires_grad_(False)
    return LatentModel(unet, vae, text, tokenizer, scheduler, f"stable-diffusion-{version}, random weights")


def main(version: str) -> None:
    model = build(version)
    side = model.picture_size[0]
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    begin = time.perf_counter()
    inversion = unsample.invert(model, image, "a photograph", num_inference_steps=10, strength=0.2)
    middle = time.perf_counter()
    made = unsample.reconstruct(model, inversion, guidance_scale=2.0)
    seconds = middle - begin, time.perf_counter() - middle
    size = sum(p.numel() for m in (model.unet, model.vae, model.text_encoder) for p in m.parameters()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [
        (model.id, f"{size:.0f} M", f"{side}x{side}", inversion.meta["stop_index"], *(f"{s:.0f}" for s in seconds),
         f"{peak:.1f}", bool(made.images.isfinite().all()), inversion.meta["grid"]["meta"]["scheduler"])
    ]  # fmt: skip
    columns = (
        "model",
        "parameters",
        "picture",
        "steps",
        "invert, s",
        "reconstruct w=2, s",
        "peak GB",
        "finite",
        "scheduler",
    )
    show("Full size, random weights", columns, rows)


if __name__ == "__main__":
    main(sys.argv[1])
