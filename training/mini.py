"""The small networks of `training/mini`: unconditional, 16x16 pixels, one channel, about 0.37 M parameters.

Three seeds of {linear, cosine} noise x {epsilon, v} prediction. What inversion does depends on how sharp the denoiser
is, and one network says little of networks: a claim is held against all of these.

Two worlds, drawn from seeds. *ink*: one or two white shapes on black with hard edges; every pixel is -1 or 1, so the
best denoiser jumps from one to the other and is as sharp as they get. *grey*: one grey shape with soft edges on a
ground of one grey (a ground of any grey they had not learnt to make after 2,000 updates).

The cosine schedule (arXiv:2102.09672) ends at alpha = 5e-5, where an error of .01 in eps is one of 200 in the picture.
Its betas are cut at .1 here instead of .999: alpha ends at .011, near the linear schedule's .006.

    python -m training.mini             train what is not there (resumes)
    python -m training.mini --evaluate  look at those that are there, and write training/mini/README.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from torch import Tensor

import unsample
from training.run import Run, arguments
from unsample.media.files import atomic_write
from unsample.models.base import Condition

FOLDER = Path(__file__).parent / "mini"
SIZE, BATCH, STEPS = 16, 40, 2000
SHAPES = ("circle", "square", "triangle", "cross", "line")
SCHEDULES, PREDICTIONS = ("linear", "cosine"), {"epsilon": "epsilon", "v": "v_prediction"}
WORLDS = ("ink", "ink", "grey")  # of each seed
NAMES = tuple(f"{world}-{s}-{p}-{k}" for k, world in enumerate(WORLDS) for p in PREDICTIONS for s in SCHEDULES)
APART = 10**8  # training seeds of one network's pictures from the next; held-out pictures start at 10^9
HELD_OUT = 10**9
GROUND = -0.5  # of the grey world
CARD = """# The small networks

{about}

Each has {parameters:,} parameters and {steps:,} updates of {batch} pictures, none seen twice, and is kept in half
precision. Names: world, schedule, prediction, seed. They are no part of the wheel:
`unsample.load("mini-ink-linear-epsilon-0")` finds them in the source tree or in `$UNSAMPLE_MINI`.

By `python -m training.mini --evaluate`, 32 pictures of each at 50 steps, with leading and with trailing spacing.
Eigenvalue: of c d eps / dx at the true x1 of the first inversion step, the one of largest size, over 16 pictures; where
it is beyond 1 the truth repels the plain fixed point. Ink: the share of pixels within .1 of black or white, as pictures
are shown, in [0, 1]; of the grey world nothing is asked there. Mean: of pixels in [-1, 1].

"""


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
    share = np.clip(0.5 - found[0] / 3, 0, 1)
    return (GROUND + (0.3 + 1.1 * numbers[:, 11, None, None]) * share)[:, None].astype(np.float32)


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


def eps_of(model: Any, grid: Any, x: Tensor, i: int) -> Tensor:
    """eps (B, 1, 16, 16) at level i."""
    out = model.network(x, grid.timesteps[i], Condition())
    return out if grid.prediction_type == "epsilon" else grid.alpha[i] * out + grid.sigma[i] * x


def dominant(model: Any, grid: Any, x1: Tensor) -> Tensor:
    """The eigenvalue (B,) of largest size of c d eps / d x at x1, by the power method on finite differences.

    c = sigma_1 - sigma_0 alpha_1 / alpha_0: a fixed-point iteration of the first inversion step multiplies a small
    error by this matrix, so above 1 (in size) the truth repels it.
    """
    c = grid.sigma[1] - grid.sigma[0] * grid.alpha[1] / grid.alpha[0]
    h = 0.01 * grid.sigma[1] * SIZE  # the length of a hundredth of the noise
    v = torch.randn(x1.shape, generator=torch.Generator().manual_seed(0))
    value = torch.zeros(len(x1))
    for _ in range(40):
        v = v / v.flatten(1).norm(dim=1)[:, None, None, None]
        image = c * (eps_of(model, grid, x1 + h * v, 1) - eps_of(model, grid, x1 - h * v, 1)) / (2 * h)
        value, v = (image * v).flatten(1).sum(1), image
    return value


@torch.no_grad()
def looked_at(name: str, count: int = 32) -> str:
    """A line of the card."""
    model = unsample.load(FOLDER / name)
    cells = []
    for spacing in ("leading", "trailing"):
        grid = model.grid(50, timestep_spacing=spacing)
        x = torch.randn(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(HELD_OUT))
        before = x
        for i in range(50, 0, -1):
            before, eps = x, eps_of(model, grid, x, i)
            x = grid.alpha[i - 1] * (x - grid.sigma[i] * eps) / grid.alpha[i] + grid.sigma[i - 1] * eps
        found = dominant(model, grid, before[:16]).sort().values
        cells += [f"{grid.sigma[1]:.3f}", f"{found.median():.2f} ({found[0]:.2f} to {found[-1]:.2f})"]
        cells += [f"{((x.abs() - 1).abs() <= 0.2).float().mean():.3f}", f"{x.mean():.2f}"]
    own = torch.from_numpy(draw(name.split("-")[0], range(HELD_OUT, HELD_OUT + 2048)))
    return f"| {name} | {' | '.join([*cells, f'{own.mean():.2f}'])} |"


def evaluate() -> None:
    """Write the card."""
    names = [name for name in NAMES if (FOLDER / name / "model_index.json").exists()]
    parameters = sum(part.numel() for part in build().parameters())
    measures = ("sigma 1", "eigenvalue, median (range)", "ink", "mean")
    heads = ["network", *(f"{each}, {s}" for s in ("leading", "trailing") for each in measures), "mean of the world"]
    about = (__doc__ or "").split("\n\n    python")[0]
    text = CARD.format(about=about, parameters=parameters, steps=STEPS, batch=BATCH)
    text += "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *map(looked_at, names), ""])
    atomic_write(FOLDER / "README.md", lambda temporary: temporary.write_text(text))


def main() -> None:
    options = arguments(__doc__ or "", steps=STEPS, switches=["--evaluate"])
    if options.evaluate:
        return evaluate()
    for name in NAMES:
        if not (FOLDER / name / "model_index.json").exists() and not train(name, options.steps, options.minutes):
            return


if __name__ == "__main__":
    main()
