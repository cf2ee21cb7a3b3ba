"""Train the U-Net of `scenes-sd` on the latents of the bundled autoencoder, with the text tower of `scenes-clip`.

Epsilon loss with the min-SNR weight (gamma 5; Hang et al., 2023, arXiv:2303.09556), captions dropped 10 % of the
time, EMA. The latents of the first scenes are computed once and kept.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from training.run import BUNDLED, CHECKPOINTS, Run, arguments, plain_attention, train_scenes
from unsample.datasets.scenes import render
from unsample.media.files import atomic_write

BATCH, CACHED = 32, 1280  # the latents of 1,280 batches (40,960 scenes) are kept
FOLDER = BUNDLED / "scenes-sd"
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build() -> UNet2DConditionModel:
    """4.8 M parameters, cross-attention at 16x16 and 8x8 and in the middle."""
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,  # diffusers' name for the number of heads: dimensions of 16, 24 and 32
        norm_num_groups=16,
    )


class Latents:
    """The scaled posterior means and the captions of each batch, computed once and kept on disk."""

    def __init__(self, vae: AutoencoderKL, device: str) -> None:
        self.vae, self.device, self.path = vae, device, CHECKPOINTS / "latents.pt"
        self.kept: dict[int, Tensor] = torch.load(self.path, weights_only=True) if self.path.exists() else {}

    def __getitem__(self, step: int) -> tuple[Tensor, list[str]]:
        key = step % CACHED
        scenes = train_scenes(key, BATCH, stream=3)
        if key not in self.kept:
            x = render(scenes).images.to(self.device) * 2 - 1
            with torch.no_grad(), torch.autocast(self.device, torch.bfloat16):
                mean = self.vae.encode(x).latent_dist.mode().float()
            self.kept[key] = (mean * self.vae.config.scaling_factor).half().cpu()
            if len(self.kept) % 160 == 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self.path, lambda temporary: torch.save(self.kept, temporary))
        return self.kept[key].float().to(self.device), [s.caption for s in scenes]


def main() -> None:
    options = arguments(__doc__ or "", steps=12000)
    torch.manual_seed(0)
    clip = CLIPModel.from_pretrained(BUNDLED / "scenes-clip", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED / "scenes-clip")
    text = clip.text_model.to(options.device).eval()
    vae = AutoencoderKL.from_pretrained(FOLDER / "vae", dtype=torch.float32).to(options.device).eval()
    latents = Latents(vae, options.device)
    scheduler = DDIMScheduler(**SCHEDULER)
    abar = scheduler.alphas_cumprod.to(options.device)
    unet = build().to(options.device)
    plain_attention(unet, options.device)

    def committed() -> dict[str, Tensor]:
        return dict(UNet2DConditionModel.from_pretrained(FOLDER / "unet", dtype=torch.float32).state_dict())

    run = Run("sd", unet, lr=8e-4, steps=options.steps, folder=FOLDER, committed=committed, warmup=200, ema=0.999)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        x0, captions = latents[step]
        generator = torch.Generator().manual_seed(step)
        dropped = torch.rand(BATCH, generator=generator) < 0.1
        captions = ["" if d else c for c, d in zip(captions, dropped, strict=True)]
        t = torch.randint(0, 1000, (BATCH,), generator=generator).to(options.device)
        eps = torch.randn(x0.shape, generator=generator).to(options.device)
        a = abar[t][:, None, None, None]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            embeds = text(input_ids=tokens.to(options.device)).last_hidden_state
        with torch.autocast(options.device, torch.bfloat16):
            out = unet(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, encoder_hidden_states=embeds).sample.float()
        error = ((out - eps) ** 2).mean((1, 2, 3))
        snr = abar[t] / (1 - abar[t])
        return (error * (5 / snr).clamp(max=1)).mean(), {"mse": error.mean().item()}

    run.loop(loss, minutes=options.minutes)
    unet.load_state_dict(run.ema)
    export(unet, clip, tokenizer, run)


def export(unet: UNet2DConditionModel, clip: CLIPModel, tokenizer: CLIPTokenizer, run: Run) -> None:
    """Write the folder that `StableDiffusionPipeline.from_pretrained` reads, fp16."""
    from diffusers import StableDiffusionPipeline

    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict({k: v for k, v in clip.state_dict().items() if k.startswith("text_model.")}, strict=False)
    own = {k: v for k, v in text.state_dict().items() if "position_ids" not in k}
    theirs = clip.text_model.state_dict()
    for key, value in own.items():
        value.copy_(theirs[key.removeprefix("text_model.")])
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(FOLDER / "vae", dtype=torch.float16),
        text_encoder=text.half(),
        tokenizer=tokenizer,
        unet=unet.cpu().half(),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(FOLDER)
    run.write_history()


if __name__ == "__main__":
    main()
