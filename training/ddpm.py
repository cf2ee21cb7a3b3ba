"""Train `scenes-ddpm`: unconditional, 32x32 pixels, epsilon prediction (DDPM, arXiv:2006.11239), with an EMA.

A network that is wrong by e in eps is wrong by e sigma / alpha in the picture, 150 e on the noisiest level here, and
the plain loss hardly asks for that: after 2,700 steps of it (weight 4 at most) the pictures were noise, because the
error stayed at e = 0.06 on every level above t = 700. The best error there is in proportion to alpha, so the weight 1
/ alpha makes every level pull about equally once it is learnt; 1 / alpha^2 (v prediction's) drowns the clean end, and
is kept, at a twentieth, for 8x8 block means alone: the colours. Timesteps are stratified over the batch, for the
weights differ by orders of magnitude and independent draws would make that the noise of the gradient.

Every norm of this network divides by a standard deviation, so it cannot tell a noise of std 1.03 from one of 1, and
that is a 2 sigma draw for 3,072 values: the difference, times 130, became noise in x0 that no later step took away.
One channel of each group before the last norm therefore carries a large constant: the norm then divides by that, and
what comes in passes linearly. The committed weights got it at step 5,100; a new run has it from the start.

What 14,000 steps did not learn is one object of one colour: even with the exact posterior mean in place of the
network above t = 650 the samples hold coloured patches, so it is the middle levels that need more steps or a larger
network.

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

BATCH, GROUPS, CONSTANT = 32, 8, 12.0
HISTORY = Path(__file__).parent / "ddpm-history"


def build() -> UNet2DModel:
    """Self-attention at 8x8, and constant channels before the last norm."""
    unet = UNet2DModel(
        sample_size=32,
        block_out_channels=(32, 64, 96),
        down_block_types=["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        attention_head_dim=16,
        norm_num_groups=GROUPS,
    )
    last = unet.up_blocks[-1].resnets[-1]
    with torch.no_grad():
        last.conv2.bias[:: last.out_channels // GROUPS] = CONSTANT
    return unet


def log_spaced(steps: int, count: int = 12, first: int = 100) -> set[int]:
    """`count` steps from `first` to the last, evenly spaced in the logarithm."""
    return {round(first * (steps / first) ** (k / (count - 1))) for k in range(count)}


def main() -> None:
    options = arguments(__doc__ or "", steps=14000, switches=["--compile"])
    torch.manual_seed(0)
    scheduler = DDPMScheduler(clip_sample=False)
    abar = scheduler.alphas_cumprod.to(options.device)
    unet = build().to(options.device, memory_format=torch.channels_last)
    plain_attention(unet, options.device)
    network = torch.compile(unet) if options.compile else unet
    folder = BUNDLED / "scenes-ddpm"

    def committed() -> dict[str, Tensor]:
        return dict(UNet2DModel.from_pretrained(folder / "unet", dtype=torch.float32).state_dict())

    run = Run("ddpm", unet, lr=1e-3, steps=options.steps, folder=folder, committed=committed, warmup=200, ema=0.999)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        x0 = render(train_scenes(step, BATCH, stream=4), 32).images.to(options.device) * 2 - 1
        generator = torch.Generator().manual_seed(step)
        t = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) * (1000 / BATCH)
        t = t.long().clamp(max=999).to(options.device)
        eps = torch.randn(x0.shape, generator=generator).to(options.device)
        a = abar[t][:, None, None, None]
        with torch.autocast(options.device, torch.bfloat16):
            out = network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t).sample.float()
        error = out - eps
        plain = error.square().mean((1, 2, 3))
        coarse = avg_pool2d(error, 8).square().mean((1, 2, 3))
        loss = (plain / abar[t].sqrt() + 0.05 * coarse / abar[t]).mean()
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
