"""Train the small networks of `training/mini`: unconditional, 16x16 pixels, one channel, about 0.37 M parameters.

Three seeds of {linear, cosine} noise x {epsilon, v} prediction. What inversion does depends on how sharp the denoiser
is, and one network says little of networks: a claim is held against all of these.

Two worlds, drawn from seeds. *ink*: one or two white shapes on black with hard edges; every pixel is -1 or 1, so the
best denoiser jumps from one to the other and is as sharp as they get. *grey*: one soft grey shape on a grey ground.

The cosine schedule (arXiv:2102.09672) ends at alpha = 5e-5, where an error of .01 in eps is one of 200 in the picture.
Its betas are cut at .1 here instead of .999: alpha ends at .011, near the linear schedule's .006.

"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from torch import Tensor

from training.run import Run, arguments

FOLDER = Path(__file__).parent / "mini"
SIZE, BATCH, STEPS = 16, 40, 2000
SHAPES = ("circle", "square", "triangle", "cross", "line")
SCHEDULES, PREDICTIONS = ("linear", "cosine"), {"epsilon": "epsilon", "v": "v_prediction"}
WORLDS = ("ink", "ink", "grey")  # of each seed
NAMES = tuple(f"{world}-{s}-{p}-{k}" for k, world in enumerate(WORLDS) for p in PREDICTIONS for s in SCHEDULES)
APART = 10**8  # training seeds of one network's pictures from the next; held-out pictures start at 10^9
HELD_OUT = 10**9


def distances(shape: np.ndarray, size: np.ndarray, angle: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """How far each pixel (N, 16, 16) lies outside its picture's shape, in pixels; negative inside."""
    place = np.arange(SIZE) - (SIZE - 1) / 2
    x = place[None, None, :] - centre[:, 0, None, None]
    y = place[None, :, None] - centre[:, 1, None, None]
    c, s = (f(angle)[:, None, None] for f in (np.cos, np.sin))
    u, v, r = c * x + s * y, c * y - s * x, size[:, None, None]

    def box(width: Any, height: Any) -> np.ndarray:
        return np.maximum(abs(u) - width, abs(v) - height)

    edges = [np.cos(a) * u + np.sin(a) * v - 0.6 * r for a in (np.pi / 2 + 2 * np.pi / 3 * np.arange(3))]
    cross = np.minimum(box(r, 0.3 * r), box(0.3 * r, r))
    made = [np.hypot(u, v) - r, box(0.85 * r, 0.85 * r), np.maximum.reduce(edges), cross, box(1.4 * r, 0.8)]
    return np.choose(shape[:, None, None], made)


def draw(world: str, seeds: Sequence[int]) -> np.ndarray:
    """Pictures (N, 1, 16, 16) in [-1, 1] of a world, one a seed."""
    numbers = np.stack([np.random.default_rng(seed).random(16) for seed in seeds])
    found = []
    for first in (0, 5):  # of two shapes
        own = numbers[:, first : first + 5]
        shape = (own[:, 0] * len(SHAPES)).astype(int)
        found.append(distances(shape, 2.5 + 2.5 * own[:, 1], 2 * np.pi * own[:, 2], 8 * own[:, 3:5] - 4))
    if world == "ink":
        two = (numbers[:, 10] < 0.5)[:, None, None]
        inside = np.where(two, np.minimum(*found), found[0]) < 0
        return (2.0 * inside - 1)[:, None].astype(np.float32)
    ground, grey = (1.4 * numbers[:, k, None, None] - 0.7 for k in (11, 12))
    grey = np.where(abs(grey - ground) < 0.4, ground - 0.7 * np.sign(ground), grey)
    share = np.clip(0.5 - found[0] / 3, 0, 1)
    return (ground + (grey - ground) * share)[:, None].astype(np.float32)


def build() -> UNet2DModel:
    """Self-attention at 8x8."""
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 40),
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        attention_head_dim=40,
        norm_num_groups=8,
    )


def scheduler_of(schedule: str, prediction: str) -> DDIMScheduler:
    """`schedule` linear or cosine, `prediction` epsilon or v."""
    kept: dict[str, Any] = {"beta_schedule": "linear"}
    if schedule == "cosine":
        left = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        kept = {"trained_betas": np.minimum(1 - left[1:] / left[:-1], 0.1).round(9).tolist()}
    return DDIMScheduler(**kept, prediction_type=PREDICTIONS[prediction], clip_sample=False, set_alpha_to_one=True)


def loss_of(unet: UNet2DModel, scheduler: DDIMScheduler, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Squared error (B,) of what the network predicts."""
    alpha, sigma = (
        part[t].sqrt()[:, None, None, None] for part in (scheduler.alphas_cumprod, 1 - scheduler.alphas_cumprod)
    )
    wanted = noise if scheduler.config["prediction_type"] == "epsilon" else alpha * noise - sigma * x0
    return (unet(alpha * x0 + sigma * noise, t).sample - wanted).square().mean((1, 2, 3))


def timesteps(generator: torch.Generator) -> Tensor:
    """One for each stratum of the batch, more where edges are decided: 1000 u^1.75."""
    place = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
    return (1000 * place**1.75).long().clamp(max=999)


def train(name: str, steps: int, minutes: float) -> bool:
    """Train one network and write its folder; True when it is done."""
    world, schedule, prediction, seed = name.split("-")
    torch.manual_seed(int(seed))
    unet, scheduler = build(), scheduler_of(schedule, prediction)
    folder = FOLDER / name
    run = Run(f"mini-{name}", unet, lr=2e-3, steps=steps, folder=folder, committed=dict)
    first = NAMES.index(name) * APART
    pictures = torch.from_numpy(draw(world, range(first, first + steps * BATCH)))

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(first + step)
        t = timesteps(generator)
        noise = torch.randn(BATCH, 1, SIZE, SIZE, generator=generator)
        each = loss_of(unet, scheduler, pictures[step * BATCH : (step + 1) * BATCH], t, noise)
        return each.mean(), {"low": each[t < 100].mean().detach()}

    if not run.loop(loss, minutes=minutes):
        return False
    unet.load_state_dict(run.ema)
    DDIMPipeline(unet=unet.half(), scheduler=scheduler).save_pretrained(folder)
    run.write_history()
    return True


def main() -> None:
    options = arguments(__doc__ or "", steps=STEPS)
    for name in NAMES:
        if not (FOLDER / name / "model_index.json").exists() and not train(name, options.steps, options.minutes):
            return


if __name__ == "__main__":
    main()
