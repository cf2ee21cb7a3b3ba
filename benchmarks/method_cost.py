"""What each method costs over the bare network: wall time over the forward and backward passes it ran, timed bare.

Bare passes and methods are timed in turn in one run. At most 1.15 is asked of every method without a regulariser; of
`pix2pix_zero` and `renoise` the share of the wall time that the regulariser takes stands beside the ratio, by running
the same method without it. Memory is the growth of a process's peak, each method in a process of its own.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import torch

import unsample
from benchmarks.memory import growth, in_child
from benchmarks.overhead import scene_batch, seconds
from benchmarks.tables import show
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
    images, prompts, condition = scene_batch(model, batch)
    for parameter in model.unet.parameters():
        parameter.requires_grad_(False)
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
    images, prompts, condition = scene_batch(model, batch)
    with torch.no_grad():
        model.network(model.encode(images), 500, condition)
    given = {"method": get_method(name, settings(name)), "num_inference_steps": STEPS}
    return growth(lambda: unsample.invert(model, images, prompts, **given))


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
            memory = f"{in_child('benchmarks.method_cost', name, batch):.0f}"
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
