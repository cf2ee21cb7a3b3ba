"""What inversion costs over the bare network: `invert(method="ddim")` at 50 steps over 50 network calls.

Both sides are timed in turn, in one run, and the ratio of the medians is printed. `invert` includes everything: checks,
the encoder, the text encoder, the health figures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import unsample
from benchmarks.tables import show
from unsample.datasets import Scenes
from unsample.verbs.inputs import Prompts

STEPS, REPEATS = 50, 7


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def scene_batch(model: Any, batch: int) -> tuple[torch.Tensor, list[str] | None, Any]:
    """Report scenes: pictures (B, 3, H, W), their prompts if the model takes any, the condition of the network."""
    items = list(Scenes("report", batch, size=model.picture_size[0]))
    prompts = [item.prompt for item in items] if model.takes_prompt else None
    with torch.no_grad():
        condition, _ = Prompts(prompts).conditions(model, batch, 1.0)
    return torch.stack([item.image for item in items]), prompts, condition


def measure(name: str, batch: int) -> tuple[float, float]:
    """Median seconds of `invert` and of the bare network calls."""
    model = unsample.load(name)
    images, prompt, condition = scene_batch(model, batch)
    x = torch.randn(batch, *model.sample_shape, generator=torch.Generator().manual_seed(0))

    def bare() -> None:
        with torch.no_grad():
            for k in range(STEPS):
                model.network(x, 20 * k, condition)

    def ours() -> None:
        unsample.invert(model, images, prompt, method="ddim", num_inference_steps=STEPS)

    ours(), bare()
    pairs = [(seconds(ours), seconds(bare)) for _ in range(REPEATS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> None:
    rows, single = [], {}
    for name in ("scenes-sd", "scenes-ddpm"):
        for batch in (1, 8):
            ours, bare = measure(name, batch)
            single.setdefault(name, ours)
            gain = 8 * single[name] / ours if batch == 8 else "-"
            rows.append((name, batch, f"{ours:.3f}", f"{bare:.3f}", ours / bare, gain))
    columns = (
        "model",
        "batch",
        "invert, s",
        f"{STEPS} network calls, s",
        "ratio (at most 1.10)",
        "8 singles / batch of 8",
    )
    show(f"Overhead of invert(method='ddim'), {STEPS} steps", columns, rows, f"medians of {REPEATS} runs taken in turn")


if __name__ == "__main__":
    main()
