"""What inversion costs over the bare network: `invert(method="ddim")` at 50 steps over 50 network calls.

Both sides are timed in turn, in one run, and the ratio of the medians is printed. `invert` includes everything: checks,
the encoder, the text encoder, the health figures.
"""

from __future__ import annotations

import statistics

import torch

import unsample
from benchmarks.common import scene_batch, seconds, show

STEPS, REPEATS = 50, 7


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
    for name, batch in [(name, batch) for name in ("scenes-sd", "scenes-ddpm") for batch in (1, 8)]:
        ours, bare = measure(name, batch)
        single.setdefault(name, ours)
        gain = 8 * single[name] / ours if batch == 8 else "-"
        rows.append((name, batch, f"{ours:.3f}", f"{bare:.3f}", ours / bare, gain))
    of = f"{STEPS} network calls, s"
    columns = ("model", "batch", "invert, s", of, "ratio (at most 1.10)", "8 singles / batch of 8")
    show(f"Overhead of invert(method='ddim'), {STEPS} steps", columns, rows, f"medians of {REPEATS} runs taken in turn")


if __name__ == "__main__":
    main()
