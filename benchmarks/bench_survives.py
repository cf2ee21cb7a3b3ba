"""Does the benchmark survive what it says it survives? Every figure is of one run of this command.

    python -m benchmarks.bench_survives [kills] [ray] [parent] [same] [speed] [memory] [disk]

`kills`, `ray`: SIGKILL of a random worker every max(5 s, three times a worker's start) in a run of 200 cells.
`parent`: SIGKILL of the driver at 20 random moments, then the same command again. `same`: one worker, two, Ray,
shards merged, batches of 1 and 8. `speed`: two workers over one, and the ledger's share. `memory`: the peak over
2,000 cells. `disk`: a small file system that is full (needs the right to mount).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import run_parts, seconds
from unsample.bench.checking import merge, same_table, verify
from unsample.bench.ledger import Ledger, raw_rows, read_run
from unsample.bench.local import Processes, Workplace
from unsample.bench.plan import Plan, make_plan
from unsample.bench.run import How, run_plan
from unsample.errors import BadInput

Row = tuple[str, object]
METHODS, METRICS = ["ddim", "fixed_point[num_iters=3]"], ["psnr", "ssim", "noise_std"]


def plan(cells: int, steps: int, model: str = "scenes-mixture") -> Plan:
    """Two methods on scenes."""
    dataset = f"scenes:{cells // 2},split=tune"
    return make_plan({"dataset": dataset, "models": [model], "steps": steps, "methods": METHODS, "metrics": METRICS})


def killed(root: Path, engine: str) -> list[Row]:
    """Random workers killed while 200 cells run."""
    workers = 1 + (engine == "local")
    start = How(engine=engine, workers=workers, threads=1)
    every = max(5.0, 3 * seconds(lambda: run_plan(plan(2, 2, "scenes-sd"), root / f"{engine}-start", start)))
    engines: list[Any] = []
    deaths, over = [0], threading.Event()

    def make(place: Workplace) -> Any:
        if engine == "ray":
            from unsample.bench.ray_engine import RayActors

            engines.append(RayActors(place, 2))
        else:
            engines.append(Processes(place, 2))
        return engines[-1]

    def kill() -> None:
        chooser = random.Random(0)
        while not over.wait(every):
            with contextlib.suppress(Exception):
                os.kill(chooser.choice(engines[-1].pids()), signal.SIGKILL)
                deaths[0] += 1

    killer = threading.Thread(target=kill)
    killer.start()
    how = How(engine=engine, workers=2, batch_size=4, threads=1)
    try:
        summary = run_plan(plan(200, 50, "scenes-sd"), root / engine, how, engine=make)
    finally:
        over.set()
        killer.join()
    found = verify(root / engine)
    lost = f"lost {len(found.lost)}, strange {len(found.strange)}, damaged {len(found.damaged)}"
    label = f"{engine}, 2 workers, killed {deaths[0]} times, one every {every:.0f} s"
    return [(label, f"{found.rows} rows: {lost}, failed {summary.failed}")]


def parent(root: Path) -> list[Row]:
    """The driver killed at random moments, and gone on with until it ends."""
    run_plan(plan(120, 60), root / "undisturbed", How(workers=2, batch_size=2, threads=1))
    chooser, kills, folder = random.Random(1), 0, root / "parent"
    command = [sys.executable, "-m", "unsample", "bench", "run", "--dataset", "scenes:60,split=tune", "--steps", "60"]
    command += ["-m", "scenes-mixture", "--methods", ",".join(METHODS), "--metrics", ",".join(METRICS)]
    command += ["--batch-size", "2", "--threads", "1", "--workers", "2", "-o", str(folder)]
    quiet: dict[str, Any] = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    while kills < 20:
        child = subprocess.Popen(command, **quiet)
        try:
            child.wait(chooser.uniform(0.2, 9.0))
            shutil.rmtree(folder)  # it ended before 20 kills: from the start again
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
    code = subprocess.run(command, check=False, **quiet).returncode
    equal = same_table(folder, root / "undisturbed")
    said = f"exit {code}, sound {verify(folder).sound}, same table bit for bit: {equal}"
    return [(f"driver killed {kills} times", said)]


def alike(root: Path) -> list[Row]:
    """The same table, however it is made."""
    asked = plan(24, 20)
    run_plan(asked, root / "one", How(batch_size=8, threads=1))
    rows: list[Row] = []
    for label, engine in (("2 workers", "local"), ("ray, 2 actors", "ray")):
        with contextlib.suppress(ImportError):
            run_plan(asked, root / label, How(batch_size=8, threads=1, workers=2, engine=engine))
            rows.append((f"{label} against 1, batch 8", f"same bits: {same_table(root / label, root / 'one')}"))
    shards = [root / f"shard{i}" for i in (1, 2, 3)]
    for i, shard in enumerate(shards, 1):
        run_plan(asked, shard, How(batch_size=8, threads=1, shard=(i, 3)))
    merge(shards, root / "merged")
    rows.append(("3 shards merged against 1, batch 8", f"same bits: {same_table(root / 'merged', root / 'one')}"))
    run_plan(asked, root / "singly", How(batch_size=1, threads=1))
    apart = 0.0
    for a, b in zip(read_run(root / "singly").rows, read_run(root / "one").rows, strict=True):
        pairs = [(a["values"][n]["value"], v["value"]) for n, v in b["values"].items()]
        apart = max([apart, *(abs(p - q) / max(abs(q), 1e-9) for p, q in pairs if p is not None and q is not None)])
    return [*rows, ("batch 1 against 8", f"largest relative difference of a value {apart:.1e}")]


def speed(root: Path) -> list[Row]:
    """Two workers over one from the first cell on, and what the ledger takes."""
    asked, took = plan(80, 25, "scenes-sd"), {}
    for workers in (1, 2):
        first: list[float] = []
        begin = time.perf_counter()
        how = How(workers=workers, batch_size=4, threads=1)
        run_plan(asked, root / f"speed{workers}", how, lambda summary, first=first: first.append(time.perf_counter()))
        took[workers] = (time.perf_counter() - first[0], time.perf_counter() - begin)
    rows = read_run(root / "speed1").rows
    with tempfile.TemporaryDirectory(dir=root) as folder, Ledger(Path(folder)) as ledger:
        kept = seconds(lambda: [ledger.add(rows[k : k + 4]) for k in range(0, len(rows), 4)])
    return [
        ("2 workers over 1, from the first batch on (at least 1.7)", round(took[1][0] / took[2][0], 2)),
        ("2 workers over 1, starts included", round(took[1][1] / took[2][1], 2)),
        ("ledger, share of a cell's time (at most 2 %)", f"{kept / took[1][0]:.2%} of {took[1][0] / len(rows):.2f} s"),
    ]


def memory(root: Path) -> list[Row]:
    """The peak of a worker's memory along 2,000 cells."""
    run_plan(plan(2000, 2), root / "memory", How(batch_size=8, threads=1, artefacts="none"))
    peaks = [row["peak_memory_mb"] for row in sorted(read_run(root / "memory").rows, key=lambda r: r["finished"])]
    said = " / ".join(f"{peaks[k - 1]:.0f}" for k in (200, 1000, 2000))
    return [("peak memory after 200 / 1,000 / 2,000 cells, MB", said)]


def disk(root: Path) -> list[Row]:
    """A file system of one megabyte."""
    place = root / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False).returncode:
        return [("full disk", "not run: no right to mount")]
    asked, how, said = plan(120, 2), How(batch_size=2, threads=1), ""
    try:
        try:
            run_plan(asked, place / "run", how)
        except BadInput as error:
            said = str(error)
        rows = len(raw_rows(place / "run"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        run_plan(asked, place / "run", how)
        found = verify(place / "run")
    finally:
        subprocess.run(["umount", str(place)], check=False)
    return [("full disk", f"{said[-90:]!r} after {rows} rows; gone on with: {found.rows} rows, sound {found.sound}")]


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "kills": lambda root: killed(root, "local"),
    "ray": lambda root: killed(root, "ray"),
    "parent": parent,
    "same": alike,
    "speed": speed,
    "memory": memory,
    "disk": disk,
}


if __name__ == "__main__":
    run_parts(__doc__, PARTS)
