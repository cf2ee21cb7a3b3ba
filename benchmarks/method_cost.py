"""What each method costs over the bare network: wall time over the forward and backward passes it ran, timed bare.

Bare passes and methods are timed in turn in one run. At most 1.15 is asked of every method without a regulariser; of
`pix2pix_zero` and `renoise` the share of the wall time that the regulariser takes stands beside the ratio, by running
the same method without it. Memory is the growth of a process's peak, each method in a process of its own.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
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
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {  # the same method without its regulariser
    "pix2pix_zero": ("ddim", {}),
    "renoise": ("renoise", {"num_reg_steps": 0}),
}


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


def measure(model: Any, method: Any, batch: int) -> tuple[int, int, float, float]:
    """Passes forward and backward a picture, wall seconds, and what the bare passes would take."""
    items = list(Scenes("report", batch))
    images, prompts = torch.stack([i.image for i in items]), [i.prompt for i in items]
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
    """Growth of this process's peak resident memory by one inversion, over loading and one bare pass, in MB."""
    model = unsample.load("scenes-sd")
    items = list(Scenes("report", batch))
    images, prompts = torch.stack([i.image for i in items]), [i.prompt for i in items]
    with torch.no_grad():
        condition, _ = Prompts(prompts).conditions(model, batch, 1.0)
        model.network(model.encode(images), 500, condition)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unsample.invert(model, images, prompts, method=get_method(name, settings(name)), num_inference_steps=STEPS)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def child_peak(name: str, batch: int) -> float:
    """`peak` in a process of its own."""
    call = [sys.executable, "-m", "benchmarks.method_cost", name, str(batch)]
    return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    model = unsample.load("scenes-sd")
    rows = []
    for name in [n for n in METHODS if n not in SKIPPED]:
        for batch in (1, 8):
            nfe, backward, wall, ideal = measure(model, get_method(name, settings(name)), batch)
            ratio, share = wall / ideal if ideal else None, ""
            if name in PLAIN and ratio:
                *_, plain, bare_plain = measure(model, get_method(*PLAIN[name]), batch)
                share = f"{100 * (1 - plain / bare_plain / ratio):.0f} %"
            memory = f"{child_peak(name, batch):.0f}"
            rows.append((name, batch, nfe, backward, f"{wall:.2f}", ratio or "-", share, memory))
    columns = (
        "method (quick)",
        "batch",
        "forward",
        "backward",
        "seconds",
        "over bare passes",
        "regulariser",
        "MB more",
    )
    show(
        f"Cost of invert, scenes-sd, {STEPS} steps, tol=None", columns, rows, f"medians of {REPEATS} runs taken in turn"
    )


if __name__ == "__main__":
    print(peak(sys.argv[1], int(sys.argv[2]))) if len(sys.argv) > 1 else main()
