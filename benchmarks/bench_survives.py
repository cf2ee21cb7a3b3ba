"""Does the benchmark survive what it says it survives? Every figure is of one run of this command.

    python -m benchmarks.bench_survives [kills] [ray] [parent] [same] [speed] [memory] [disk]

`kills`, `ray`: SIGKILL of a random worker every max(5 s, three times a worker's start) in a run of 200 cells.
`parent`: SIGKILL of the driver at 20 random moments, then the same command again. `same`: one worker, two, Ray,
shards merged, batches of 1 and 8. `speed`: two workers over one, and the ledger's share. `memory`: the peak over
2,000 cells. `disk`: a small file system that is full (needs the right to mount).
"""

from __future__ import annotations

import argparse
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

from benchmarks.tables import show
from unsample.bench.checking import merge, same_table, verify
from unsample.bench.ledger import Ledger, raw_rows, read_run
from unsample.bench.local import Processes, Workplace
from unsample.bench.plan import Plan, make_plan
from unsample.bench.run import How, run_plan
from unsample.errors import BadInput

Row = tuple[str, object]


def plan(cells: int, steps: int, model: str = "scenes-mixture") -> Plan:
    """Two methods on scenes."""
    given = {"dataset": f"scenes:{cells // 2},split=tune", "models": [model], "steps": steps}
    return make_plan(
        given | {"methods": ["ddim", "fixed_point[num_iters=3]"], "metrics": ["psnr", "ssim", "noise_std"]}
    )


def killed(root: Path, engine: str) -> list[Row]:
    """Random workers killed while 200 cells run."""
    asked, how = plan(200, 50, "scenes-sd"), How(engine=engine, workers=2, batch_size=4, threads=1)
    begin = time.perf_counter()
    run_plan(
        plan(2, 2, "scenes-sd"),
        root / f"{engine}-start",
        How(engine=engine, workers=1 + (engine == "local"), threads=1),
    )
    every = max(5.0, 3 * (time.perf_counter() - begin))
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
    try:
        summary = run_plan(asked, root / engine, how, engine=make)
    finally:
        over.set()
        killer.join()
    found = verify(root / engine)
    label = f"{engine}, 2 workers, killed {deaths[0]} times, one every {every:.0f} s"
    result = (
        f"lost {len(found.lost)}, strange {len(found.strange)}, damaged {len(found.damaged)}, failed {summary.failed}"
    )
    return [(label, f"{found.rows} rows: {result}")]


def command(asked: Plan, folder: Path) -> list[str]:
    """The run as a command."""
    call = [sys.executable, "-m", "unsample", "bench", "run", "--dataset", asked.dataset, "-m", ",".join(asked.models)]
    call += ["--methods", ",".join(asked.methods), "--metrics", ",".join(asked.metrics), "--steps", str(asked.steps)]
    return [*call, "--batch-size", "2", "--threads", "1", "--workers", "2", "-o", str(folder)]


def parent(root: Path) -> list[Row]:
    """The driver killed at random moments, and gone on with until it ends."""
    asked = plan(120, 60)
    run_plan(asked, root / "undisturbed", How(workers=2, batch_size=2, threads=1))
    chooser, kills, folder = random.Random(1), 0, root / "parent"
    while kills < 20:
        child = subprocess.Popen(command(asked, folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            child.wait(chooser.uniform(0.2, 9.0))
            shutil.rmtree(folder)  # it ended before 20 kills: from the start again
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
    code = subprocess.run(
        command(asked, folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
    ).returncode
    found = verify(folder)
    equal = same_table(folder, root / "undisturbed")
    return [(f"driver killed {kills} times", f"exit {code}, sound {found.sound}, same table bit for bit: {equal}")]


def alike(root: Path) -> list[Row]:
    """The same table, however it is made."""
    asked = plan(24, 20)
    how = How(batch_size=8, threads=1)
    run_plan(asked, root / "one", how)
    rows: list[Row] = []
    for label, other in (("2 workers", {"workers": 2}), ("ray, 2 actors", {"workers": 2, "engine": "ray"})):
        with contextlib.suppress(ImportError):
            run_plan(asked, root / label, How(batch_size=8, threads=1, **other))  # type: ignore[arg-type]
            rows.append((f"{label} against 1, batch 8", f"same bits: {same_table(root / label, root / 'one')}"))
    for i in (1, 2, 3):
        run_plan(asked, root / f"shard{i}", How(batch_size=8, threads=1, shard=(i, 3)))
    merge([root / f"shard{i}" for i in (1, 2, 3)], root / "merged")
    rows.append(("3 shards merged against 1, batch 8", f"same bits: {same_table(root / 'merged', root / 'one')}"))
    run_plan(asked, root / "singly", How(batch_size=1, threads=1))
    apart = 0.0
    for a, b in zip(read_run(root / "singly").rows, read_run(root / "one").rows, strict=True):
        pairs = [(a["values"][n]["value"], v["value"]) for n, v in b["values"].items()]
        apart = max([apart, *(abs(p - q) / max(abs(q), 1e-9) for p, q in pairs if p is not None and q is not None)])
    return [*rows, ("batch 1 against 8", f"largest relative difference of a value {apart:.1e}")]


def speed(root: Path) -> list[Row]:
    """Two workers over one from the first cell on, and what the ledger takes."""
    asked, seconds = plan(80, 25, "scenes-sd"), {}
    for workers in (1, 2):
        first: list[float] = []
        begin = time.perf_counter()
        run_plan(
            asked, root / f"speed{workers}", How(workers=workers, batch_size=4, threads=1),
            lambda summary, first=first: first.append(time.perf_counter()),
        )  # fmt: skip
        seconds[workers] = (time.perf_counter() - first[0], time.perf_counter() - begin, len(first))
    rows = read_run(root / "speed1").rows
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=root) as folder, Ledger(Path(folder)) as ledger:
        for k in range(0, len(rows), 4):
            ledger.add(rows[k : k + 4])
    each = (time.perf_counter() - begin) / len(rows)
    cell = seconds[1][0] / len(rows)
    return [
        ("2 workers over 1, from the first batch on (at least 1.7)", round(seconds[1][0] / seconds[2][0], 2)),
        ("2 workers over 1, starts included", round(seconds[1][1] / seconds[2][1], 2)),
        ("ledger, share of a cell's time (at most 2 %)", f"{100 * each / cell:.2f} % of {cell:.2f} s"),
    ]


def memory(root: Path) -> list[Row]:
    """The peak of a worker's memory along 2,000 cells."""
    run_plan(plan(2000, 2), root / "memory", How(batch_size=8, threads=1, artefacts="none"))
    peaks = [row["peak_memory_mb"] for row in sorted(read_run(root / "memory").rows, key=lambda r: r["finished"])]
    return [
        (
            "peak memory after 200 / 1,000 / 2,000 cells, MB",
            " / ".join(f"{peaks[k - 1]:.0f}" for k in (200, 1000, 2000)),
        )
    ]


def disk(root: Path) -> list[Row]:
    """A file system of one megabyte."""
    place = root / "small"
    place.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False).returncode == 0
    )
    if not mounted:
        return [("full disk", "not run: no right to mount")]
    asked, how = plan(120, 2), How(batch_size=2, threads=1)
    try:
        said = ""
        try:
            run_plan(asked, place / "run", how)
        except BadInput as error:
            said = str(error)
        rows = len(raw_rows(place / "run"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        run_plan(asked, place / "run", how)
        found = verify(place / "run")
        return [
            ("full disk", f"{said[-90:]!r} after {rows} rows; gone on with: {found.rows} rows, sound {found.sound}")
        ]
    finally:
        subprocess.run(["umount", str(place)], check=False)


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "kills": lambda root: killed(root, "local"),
    "ray": lambda root: killed(root, "ray"),
    "parent": parent,
    "same": alike,
    "speed": speed,
    "memory": memory,
    "disk": disk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    for name in parser.parse_args().parts or PARTS:
        with tempfile.TemporaryDirectory() as root:
            show(name, ("what", "found"), PARTS[name](Path(root)))


if __name__ == "__main__":
    main()
