"""What each method costs over the bare network: wall time over the forward and backward passes it ran, timed bare.

Bare passes and methods are timed in turn in one run. At most 1.15 is asked of every method without a regulariser; for
`pix2pix_zero` and a regularised `renoise` the share of the regulariser is what stands above 1.
"""

from __future__ import annotations

import resource
import statistics
import sys
from typing import Any

import torch

import unsample
from benchmarks.overhead import seconds
from benchmarks.tables import show
from unsample.datasets import Scenes
from unsample.inputs import Prompts
from unsample.methods import METHODS, get_method, setting_defaults

STEPS, REPEATS, SKIPPED = 8, 3, ("oracle",)


def bare(model: Any, batch: int, condition: Any, *, grad: bool) -> float:
    """Seconds of one forward pass, or of one forward and backward pass, of the whole batch."""
    x = torch.randn(batch, *model.sample_shape, generator=torch.Generator().manual_seed(0))

    def forward() -> None:
        with torch.no_grad():
            model.network(x, 500, condition)

    def both() -> None:
        y = x.clone().requires_grad_(True)
        model.network(y, 500, condition).square().sum().backward()

    call = both if grad else forward
    call()
    return statistics.median(seconds(call) for _ in range(7))


def settings(name: str) -> dict[str, Any]:
    """The quick preset, all iterations run."""
    quick = dict(METHODS[name].quick)
    return quick | ({"tol": None} if "tol" in setting_defaults(METHODS[name].factory) else {})


def measure(model: Any, name: str, batch: int) -> tuple[int, int, float, float]:
    """Passes forward and backward a picture, wall seconds, and what the bare passes would take."""
    items = list(Scenes("report", batch))
    images, prompts = torch.stack([i.image for i in items]), [i.prompt for i in items]
    method = get_method(name, settings(name))
    for parameter in model.unet.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        condition, _ = Prompts(prompts).conditions(model, batch, 1.0)
    times, ideal = [], []
    for _ in range(REPEATS):
        one, both = bare(model, batch, condition, grad=False), bare(model, batch, condition, grad=True)
        begin = seconds(
            lambda: times.append(unsample.invert(model, images, prompts, method=method, num_inference_steps=STEPS))
        )
        found = times.pop()
        times.append(begin)
        ideal.append(found.nfe[0] * one + found.backward[0] * max(both - one, 0.0))
    return found.nfe[0], found.backward[0], statistics.median(times), statistics.median(ideal)


def peak(name: str, batch: int) -> float:
    """Peak resident memory of this process after one inversion, in MB."""
    model = unsample.load("scenes-sd")
    measure(model, name, batch)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    model = unsample.load("scenes-sd")
    rows = []
    for name in [n for n in METHODS if n not in SKIPPED]:
        for batch in (1, 8):
            nfe, backward, wall, ideal = measure(model, name, batch)
            rows.append((name, batch, nfe, backward, f"{wall:.2f}", wall / ideal if ideal else "-"))
    columns = ("method (quick)", "batch", "forward", "backward", "seconds", "over bare passes")
    show(
        f"Cost of invert, scenes-sd, {STEPS} steps, tol=None", columns, rows, f"medians of {REPEATS} runs taken in turn"
    )


if __name__ == "__main__":
    print(peak(sys.argv[1], int(sys.argv[2]))) if len(sys.argv) > 1 else main()
