"""Train the autoencoder of `scenes-sd` (f4: 64x64x3 to 16x16x4), in two stages.

Stage `all` trains both halves. Stage `decoder` keeps the encoder, so that the latents stay what the U-Net was
trained on, and goes on with the decoder alone, on the PSNR itself (the logarithm of each picture's squared error).
"""

from __future__ import annotations

import sys

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d

from training.run import BUNDLED, CHECKPOINTS, Run, arguments, train_scenes
from unsample.datasets.scenes import Scenes, render

BATCH = 16


def build() -> AutoencoderKL:
    """1.4 M parameters."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(16, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def reconstruction_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 + MSE, four times as heavy where a pixel differs from its 9x9 mean: small objects lose their colour first."""
    busy = ((x - avg_pool2d(x, 9, 1, 4, count_include_pad=False)).abs().amax(1, keepdim=True) > 0.3).float()
    weight = 1 + 3 * busy
    error = y - x
    edges = (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2
    return (weight * (error.abs() + error**2)).mean() + 0.25 * edges


def psnr(vae: AutoencoderKL, count: int = 128) -> float:
    """Mean PSNR of the round trip of `tune` scenes."""
    x = torch.stack([item.image for item in Scenes("tune", count)]) * 2 - 1
    with torch.no_grad():
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    return float((-10 * (((y - x) / 2) ** 2).mean((1, 2, 3)).log10()).mean())


def main(stage: str) -> None:
    options = arguments(__doc__ or "", steps={"all": 3600, "decoder": 3000}[stage])
    torch.manual_seed(0)
    vae = build().to(options.device)
    if stage == "decoder":
        if (CHECKPOINTS / "vae-all" / "last.pt").exists():
            vae.load_state_dict(torch.load(CHECKPOINTS / "vae-all" / "last.pt", weights_only=True)["ema"])
        for part in (vae.encoder, vae.quant_conv):
            part.requires_grad_(False)
    lr = {"all": 1.2e-3, "decoder": 6e-4}[stage]
    folder = BUNDLED / "scenes-sd"

    def committed() -> dict[str, Tensor]:
        return dict(AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).state_dict())

    run = Run(f"vae-{stage}", vae, lr=lr, steps=options.steps, ema=0.995, folder=folder, committed=committed)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        x = render(train_scenes(step, BATCH, stream=1 if stage == "all" else 2)).images.to(options.device) * 2 - 1
        with torch.autocast(options.device, torch.bfloat16):
            if stage == "all":
                posterior = vae.encode(x).latent_dist
                y = vae.decode(posterior.sample()).sample.float()
                kl = posterior.kl().float().mean()
            else:
                with torch.no_grad():
                    latents = vae.encode(x).latent_dist.mode()
                y, kl = vae.decode(latents).sample.float(), x.new_zeros(())
        mse = ((y - x) ** 2).mean((1, 2, 3))
        figures = {"psnr": float((-10 * (mse.detach() / 4).log10()).mean()), "kl": kl.item()}
        if stage == "decoder":
            return mse.clamp_min(1e-6).log().mean(), figures
        return reconstruction_loss(y, x) + 2e-6 * kl, figures

    run.loop(loss, minutes=options.minutes)
    vae.load_state_dict(run.ema)
    vae = vae.float().cpu()
    print(f"vae-{stage}: round trip of tune scenes {psnr(vae):.2f} dB")
    with torch.no_grad():
        x = torch.stack([item.image for item in Scenes("tune", 256)]) * 2 - 1
        vae.register_to_config(scaling_factor=round(1 / float(vae.encode(x).latent_dist.mode().std()), 5))
    vae.half().save_pretrained(folder / "vae")
    run.write_history()


if __name__ == "__main__":
    main(sys.argv.pop(1))
