"""A rectified flow on points of the plane, trained in seconds and inverted: `python examples/rectified_flow.py`.

The network is of the first convention (Liu, Gong and Liu, 2022, arXiv:2209.03003, Eq. 1, and most code since): time
runs from the noise, t = 0, to the data, t = 1, the state between is (1 - t) noise + t data, and the network predicts
data - noise. diffusers, SD3 and FLUX run the other way, which `reversed_time` says to `unsample.wrap`. States are
vectors (B, 2), which are (B, 2, 1, 1) to unsample; there are no pictures, and `latents` are what goes in and comes out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

import unsample

STEPS, TRAINED, BATCH, POINTS = 50, 3000, 256, 512


def moons(count: int, generator: torch.Generator) -> Tensor:
    """(count, 2): two half circles that reach into each other, a little blurred, of about unit size."""
    angle = math.pi * torch.rand(count, generator=generator)
    side = (torch.rand(count, generator=generator) < 0.5).float()
    x, y = angle.cos() * (1 - 2 * side) + side - 0.5, angle.sin() * (1 - 2 * side) + 0.5 * side - 0.25
    return 1.2 * torch.stack([x, y], 1) + 0.05 * torch.randn(count, 2, generator=generator)


class Velocity(nn.Module):
    """data - noise, from a point (B, 2) and its time (B,) in [0, 1]."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        inner = (nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.layers = nn.Sequential(nn.Linear(3, width), nn.SiLU(), *inner, nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([x, t[:, None]], 1))


def trained(steps: int = TRAINED, seed: int = 0) -> nn.Module:
    """Flow matching by Adam, its rate to zero on a cosine."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Velocity()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        data, t = moons(BATCH, generator), torch.rand(BATCH, generator=generator)
        noise = torch.randn(BATCH, 2, generator=generator)
        state = torch.lerp(noise, data, t[:, None])
        loss = (network(state, t) - (data - noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def wrapped(network: nn.Module) -> Any:
    """The network as a model of unsample."""
    return unsample.wrap(
        network,
        FlowMatchEulerDiscreteScheduler(),
        sample_shape=(2,),
        batched_timestep=True,
        reversed_time=True,
        timestep_scale=1 / 1000,  # a scheduler of diffusers counts to 1000
    )


def off_data(points: Tensor) -> float:
    """Mean distance of points (B, 2) to the nearest of many of the data's."""
    data = moons(4096, torch.Generator().manual_seed(1))
    return float(torch.cdist(points, data).min(1).values.mean())


def measured(model: Any, steps: int = STEPS) -> dict[str, Any]:
    """How near the samples are to the data, and of each method the largest errors, over the points sampled."""
    noise = torch.randn(POINTS, 2, 1, 1, generator=torch.Generator().manual_seed(2))
    made = unsample.sample(model, noise=noise, num_inference_steps=steps)
    found: dict[str, Any] = {"noise off data": off_data(noise.flatten(1)), "samples": off_data(made.latents.flatten(1))}
    for method in ("ddim", "fixed_point"):
        inversion = unsample.invert(model, latents=made.latents, method=method, num_inference_steps=steps)
        again = unsample.reconstruct(model, inversion)
        off = ((inversion.noise, noise), (again.latents, made.latents))
        found[method] = [float((a - b).abs().max()) for a, b in off]
    data = moons(POINTS, torch.Generator().manual_seed(3))[..., None, None]
    of_data = unsample.invert(model, latents=data, method="fixed_point", num_inference_steps=steps).noise
    return found | {"mean": float(of_data.mean()), "std": float(of_data.std())}


def main() -> None:
    model = wrapped(trained())
    found = measured(model)
    print(
        f"{model}\nmean distance to the data: {found['samples']:.3f} of samples, {found['noise off data']:.3f} of noise"
    )
    for method in ("ddim", "fixed_point"):
        noise, again = found[method]
        print(f"{method:12} noise off by {noise:.1e}, reconstruction by {again:.1e} at most, of {POINTS} points")
    print(f"noise of the data by fixed_point: mean {found['mean']:.3f}, standard deviation {found['std']:.3f}")


if __name__ == "__main__":
    main()
