"""What the benchmarks share: a loaded model, scenes, seconds, memory of a process of its own, a printed table."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import unsample
from unsample.datasets import Scenes
from unsample.models.base import Model
from unsample.verbs.prompts import Prompts


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> None:
    """One table on stdout."""
    table = Table(title=title, title_justify="left", caption_justify="left", caption=f"{note}\n{where()}".strip())
    for k, name in enumerate(columns):
        table.add_column(name, justify="left" if k == 0 else "right")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    Console(width=int(os.environ.get("COLUMNS", "150"))).print(table)


def where() -> str:
    """Versions and machine, in a line."""
    return (
        f"unsample {unsample.__version__}, torch {torch.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )


def load(id: str) -> Model:
    """A bundled model, on the accelerator if there is one; there in full float32, as on a CPU."""
    torch.backends.cudnn.allow_tf32 = False
    return unsample.load(id, device="cuda" if torch.cuda.is_available() else "cpu")


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One a picture."""
    return [torch.Generator().manual_seed(s) for s in seeds]


def scene_batch(model: Any, count: int, first: int = 0) -> tuple[torch.Tensor, list[str] | None, Any]:
    """Report scenes: pictures (B, 3, H, W), their prompts if the model takes any, the condition of the network."""
    items = list(Scenes("report", count, size=model.picture_size[0], start=first))
    prompts = [item.prompt for item in items] if model.takes_prompt else None
    with torch.no_grad():
        condition, _ = Prompts(prompts).conditions(model, count, 1.0)
    return torch.stack([item.image for item in items]), prompts, condition


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def in_child(module: str, *arguments: object) -> float:
    """The last number that a module prints when it is run in a process of its own.

    glibc hands small blocks back late, so that a process seems to grow by some megabytes a run whatever it keeps; with
    its threshold fixed at 64 KiB the peak is what is alive.
    """
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


def run_parts(about: str | None, parts: Mapping[str, Callable[[Path], Sequence[Sequence[object]]]]) -> None:
    """The parts that are named on the command line, or all, each in a folder of its own, a table each."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    for name in parser.parse_args().parts or parts:
        with tempfile.TemporaryDirectory() as root:
            show(name, ("what", "found"), parts[name](Path(root)))
