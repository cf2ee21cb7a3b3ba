"""Train `scenes-ddpm`: unconditional, 32x32 pixels, epsilon prediction (DDPM, arXiv:2006.11239), with an EMA.

The plain loss hardly asks for colour: a bias d of eps in the noisiest steps moves the picture by up to d sigma / alpha,
150 d here, and 1,900 steps of it gave saturated colours without objects. So the 8x8 block means of the error are
weighted by 1 / abar, as for v prediction; the error itself only up to 4 times, for at 100 times (tried) colours came
right and the noise of the last steps stayed.

Twelve EMA states at log-spaced steps are written to `training/ddpm-history/` in fp16: how inversion error grows with
training is a question of its own.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from training.run import BUNDLED, Run, arguments, plain_attention, train_scenes
from unsample.datasets.scenes import render

BATCH = 32
HISTORY = Path(__file__).parent / "ddpm-history"


def build() -> UNet2DModel:
    """Self-attention at 8x8."""
    return UNet2DModel(
        sample_size=32,
        block_out_channels=(32, 64, 96),
        down_block_types=["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        attention_head_dim=16,
        norm_num_groups=8,
    )


def log_spaced(steps: int, count: int = 12, first: int = 100) -> set[int]:
    """`count` steps from `first` to the last, evenly spaced in the logarithm."""
    return {round(first * (steps / first) ** (k / (count - 1))) for k in range(count)}


def main() -> None:
    options = arguments(__doc__ or "", steps=9000)
    torch.manual_seed(0)
    scheduler = DDPMScheduler(clip_sample=False)
    abar = scheduler.alphas_cumprod.to(options.device)
    unet = build().to(options.device)
    plain_attention(unet, options.device)
    folder = BUNDLED / "scenes-ddpm"

    def committed() -> dict[str, Tensor]:
        return dict(UNet2DModel.from_pretrained(folder / "unet", dtype=torch.float32).state_dict())

    run = Run("ddpm", unet, lr=1e-3, steps=options.steps, folder=folder, committed=committed, warmup=200, ema=0.999)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        x0 = render(train_scenes(step, BATCH, stream=4), 32).images.to(options.device) * 2 - 1
        generator = torch.Generator().manual_seed(step)
        t = torch.randint(0, 1000, (BATCH,), generator=generator).to(options.device)
        eps = torch.randn(x0.shape, generator=generator).to(options.device)
        a = abar[t][:, None, None, None]
        with torch.autocast(options.device, torch.bfloat16):
            out = unet(a.sqrt() * x0 + (1 - a).sqrt() * eps, t).sample.float()
        error = out - eps
        plain = error.square().mean((1, 2, 3))
        coarse = avg_pool2d(error, 8).square().mean((1, 2, 3))
        loss = (plain * (1 / abar[t]).clamp(max=4) + 0.2 * coarse / abar[t]).mean()
        return loss, {"mse": plain.mean().item(), "coarse": (coarse / abar[t]).mean().item()}

    kept = log_spaced(options.steps)
    run.loop(loss, minutes=options.minutes, keep=lambda step: step in kept)
    unet.load_state_dict(run.ema)
    DDPMPipeline(unet=unet.cpu().half(), scheduler=scheduler).save_pretrained(folder)
    run.write_history()
    write_states(run, kept)


def write_states(run: Run, wanted: set[int]) -> None:
    """The kept states nearest to the log-spaced steps (a run that was lengthened has others), without pickle."""
    there = {int(p.stem.removeprefix("ema-")): p for p in run.path.parent.glob("ema-*.pt")}
    HISTORY.mkdir(exist_ok=True)
    for old in HISTORY.glob("*.safetensors"):
        old.unlink()
    for step in {min(there, key=lambda s, w=w: abs(math.log(s / w))) for w in wanted}:  # type: ignore[misc]
        state = torch.load(there[step], weights_only=True)
        about = {"steps": str(step), "model": "scenes-ddpm"}
        save_file(
            {k: v.contiguous() for k, v in state.items()}, HISTORY / f"step-{step:06d}.safetensors", metadata=about
        )


if __name__ == "__main__":
    main()
