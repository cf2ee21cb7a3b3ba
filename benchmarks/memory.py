"""Peak memory of inversion at 10 and at 100 steps, each in a process of its own, with and without the trajectory.

glibc hands small blocks back late, so that a process seems to grow by some megabytes a run whatever it keeps; with its
threshold fixed at 64 KiB the peak is what is alive.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.tables import show

BATCH = 64


def in_child(module: str, *arguments: object) -> float:
    """The last number that a module prints when it is run in a process of its own."""
    call = [sys.executable, "-m", module, *map(str, arguments)]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return float(subprocess.run(call, check=True, capture_output=True, text=True, env=env).stdout.split()[-1])


def growth(call: Callable[[], object]) -> float:
    """How far a call raises the resident memory of this process while it runs, in MB (Linux).

    Asked of /proc and not of `getrusage`, whose peak begins at the parent's.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten: loading's may be higher
    before = _peak()
    call()
    return (_peak() - before) / 1024


def _peak() -> int:
    """The peak resident memory of this process, in kB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def child(steps: int, keep: bool) -> None:
    """Invert a batch on scenes-ddpm, after a run of two steps, and print by how much memory grows."""
    import torch

    import unsample

    model = unsample.load("scenes-ddpm")
    x = torch.randn(BATCH, *model.sample_shape, generator=torch.Generator().manual_seed(0)) * 0.3
    unsample.invert(model, latents=x, num_inference_steps=2)
    print(growth(lambda: unsample.invert(model, latents=x, num_inference_steps=steps, keep_trajectory=keep)))


def main() -> None:
    rows = [
        (steps, keep, round(in_child("benchmarks.memory", steps, int(keep)), 1))
        for keep in (False, True)
        for steps in (10, 100)
    ]
    each = BATCH * 3 * 32 * 32 * 4 / 2**20
    note = f"scenes-ddpm, batch {BATCH}; one latent of the batch is {each:.2f} MB"
    show("Memory while inverting, over what is resident before", ("steps", "trajectory kept", "MB more"), rows, note)


if __name__ == "__main__":
    child(int(sys.argv[1]), bool(int(sys.argv[2]))) if len(sys.argv) > 1 else main()
