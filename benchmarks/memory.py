"""Peak memory of inversion at 10 and at 100 steps, each in a process of its own, with and without the trajectory."""

from __future__ import annotations

import sys

import torch

import unsample
from benchmarks.common import growth, in_child, show

BATCH = 64


def child(steps: int, keep: bool) -> None:
    """Invert a batch on scenes-ddpm, after a run of two steps, and print by how much memory grows."""
    model = unsample.load("scenes-ddpm")
    x = torch.randn(BATCH, *model.sample_shape, generator=torch.Generator().manual_seed(0)) * 0.3
    unsample.invert(model, latents=x, num_inference_steps=2)
    print(growth(lambda: unsample.invert(model, latents=x, num_inference_steps=steps, keep_trajectory=keep)))


def main() -> None:
    cases = [(steps, keep) for keep in (False, True) for steps in (10, 100)]
    rows = [(steps, keep, round(in_child("benchmarks.memory", steps, int(keep)), 1)) for steps, keep in cases]
    note = f"scenes-ddpm, batch {BATCH}; one latent of the batch is {BATCH * 3 * 32 * 32 * 4 / 2**20:.2f} MB"
    show("Memory while inverting, over what is resident before", ("steps", "trajectory kept", "MB more"), rows, note)


if __name__ == "__main__":
    child(int(sys.argv[1]), bool(int(sys.argv[2]))) if len(sys.argv) > 1 else main()
