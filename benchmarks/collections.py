"""Collections: speed over the bare network, memory along many pictures, a run that is killed. Figures are of one run.

    python -m benchmarks.collections [speed] [workers] [memory] [kills]

`speed`: 64 pictures of 64 px inverted by scenes-sd and reconstructed (measured, decoded, written), over the network's
own answers at the same batch and as many of them; one thread, by the processor's time, so that what else runs on the
machine does not count. `workers`: the same by the clock, two workers over the bare network on two cores. `memory`: the
resident memory along 10,000 pictures of 64 px. `kills`: a folder of 2,000 pictures, killed three times.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import unsample
from benchmarks.common import run_parts, scene_batch
from unsample.collections.asking import walked
from unsample.collections.jobs import Job
from unsample.collections.opened import Collection
from unsample.collections.run import How, Summary, run_collection
from unsample.collections.sources import open_source
from unsample.datasets import Scenes
from unsample.methods import get_method
from unsample.metrics.pixels import as_pil
from unsample.preflight.walk import Walk

Row = tuple[str, object]
MODEL, BATCH, STEPS, PICTURES = "scenes-sd", 8, 50, 64


def photos(folder: Path, count: int, size: int = 64) -> Path:
    """Scenes as PNG files; after 500 the same pictures come again."""
    folder.mkdir(parents=True)
    scenes = Scenes("tune", min(count, 500), size=size)
    for k in range(len(scenes)):
        as_pil(scenes[k].image[None])[0].save(folder / f"{k:05d}.png")
    for k in range(len(scenes), count):
        shutil.copyfile(folder / f"{k % len(scenes):05d}.png", folder / f"{k:05d}.png")
    return folder


def job(method: str = "ddim", steps: int = STEPS, metrics: tuple[str, ...] = ("psnr", "ssim")) -> Job:
    """Invert by scenes-sd under one prompt."""
    asked = walked(Walk(get_method(method), steps=steps), ("a red circle", None))
    return Job("invert", MODEL, asked | {"metrics": list(metrics), "dtype": "float32"})


def bare(model: Any, evaluations: int, clock: Callable[[], float]) -> float:
    """Seconds of the network alone."""
    _, _, condition = scene_batch(model, BATCH)
    x = torch.randn(BATCH, *model.sample_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.network(x, 0, condition)
        begin = clock()
        for k in range(evaluations):
            model.network(x, 20 * (k % STEPS), condition)
    return clock() - begin


def speed(root: Path) -> list[Row]:
    """A process's time over that of the bare network."""
    torch.set_num_threads(1)
    model, source, rows = unsample.load(MODEL), photos(root / "photos", PICTURES), []
    how = How(batch_size=BATCH, threads=1)
    for label, metrics, each in (("inverted", (), 1), ("inverted, reconstructed, measured", ("psnr", "ssim"), 2)):
        evaluations = each * STEPS * PICTURES // BATCH
        alone = bare(model, evaluations, time.process_time) / 2  # half before and half after
        begin = time.process_time()
        asked = job(metrics=metrics)
        run_collection(asked, open_source([str(source)]), root / label, how, loaded={MODEL: model})
        ours = time.process_time() - begin
        alone += bare(model, evaluations, time.process_time) / 2
        rows.append((f"{label}: pictures a second over the bare network's (at least 0.9)", round(alone / ours, 3)))
    return rows


def workers(root: Path) -> list[Row]:
    """Two workers over the bare network on two cores, by the clock."""
    source, marks = photos(root / "photos", 4 * PICTURES), []
    how = How(batch_size=BATCH, workers=2, threads=1)
    begin = time.perf_counter()
    run_collection(
        job(), open_source([str(source)]), root / "two", how, lambda s: marks.append((time.perf_counter(), s.done))
    )
    whole, (first, done), last = time.perf_counter() - begin, marks[1], marks[-1][0]
    torch.set_num_threads(2)
    alone = bare(unsample.load(MODEL), 2 * STEPS, time.perf_counter) / BATCH  # a picture
    return [
        ("2 workers, from the first batch on", round(alone * (4 * PICTURES - done) / (last - first), 3)),
        (f"2 workers, their start included, {4 * PICTURES} pictures", round(alone * 4 * PICTURES / whole, 3)),
    ]


def resident() -> float:
    """The resident memory of this process now, in MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def memory(root: Path) -> list[Row]:
    """The resident memory along 10,000 pictures: `random_noise`, which asks no network, encoded and written."""
    source, seen = photos(root / "photos", 10_000), {}

    def look(summary: Summary) -> None:
        seen[summary.done] = resident()

    how = How(batch_size=64, threads=1)
    summary = run_collection(job("random_noise", 1, ()), open_source([str(source)]), root / "out", how, look)
    kept = sorted(path.name for path in (root / "out").iterdir())
    marks = [min(seen, key=lambda done, at=at: abs(done - at)) for at in (1000, 2500, 5000, 7500, 10_000)]
    said = " / ".join(f"{seen[mark]:.0f}" for mark in marks)
    return [
        (f"resident memory after {' / '.join(f'{mark:,}' for mark in marks)} pictures, MB", said),
        ("rows by status", dict(summary.statuses)),
        ("files in the folder", len(kept)),
    ]


def kills(root: Path) -> list[Row]:
    """The command killed three times, and given again."""
    source, chooser = photos(root / "photos", 2000), random.Random(0)
    command = [sys.executable, "-m", "unsample", "invert", str(source), "-m", MODEL, "--method", "random_noise"]
    command += [
        "--steps",
        "1",
        "--metrics",
        "none",
        "--batch-size",
        "16",
        "--shard-size",
        "256",
        "-o",
        str(root / "out"),
    ]
    told: list[int] = []
    while len(told) < 3:
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        goal = (told[-1] if told else 0) + chooser.randint(200, 500)
        while child.poll() is None and _rows(root / "out") < goal:
            time.sleep(0.5)
        assert child.poll() is None, "it ended before it was killed"
        child.send_signal(signal.SIGKILL)
        child.wait()
        told.append(_rows(root / "out"))
    code = subprocess.run(command, check=False, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
    found = Counter(row["name"] for row in Collection(root / "out").rows())
    places = Counter((row["shard"], row["row"]) for row in Collection(root / "out").rows())
    whole = set(found) == {f"{k:05d}" for k in range(2000)}
    return [
        ("rows when it was killed", " / ".join(map(str, told))),
        ("exit code of the last", code),
        ("pictures with one row each", f"{sum(n == 1 for n in found.values()):,} of 2,000, none lost: {whole}"),
        ("places in shards that two rows name", sum(n > 1 for n in places.values())),
        ("files in the folder", len(list((root / "out").iterdir()))),
    ]


def _rows(folder: Path) -> int:
    try:
        return sum(1 for _ in Collection(folder).rows())
    except Exception:
        return 0  # not begun, or just being written


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "speed": speed,
    "workers": workers,
    "memory": memory,
    "kills": kills,
}


if __name__ == "__main__":
    run_parts(__doc__, PARTS)
