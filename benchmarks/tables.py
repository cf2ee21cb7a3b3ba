"""Print a table, with what it was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

import unsample
from unsample.models.base import Model


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


def batch(model: Model, on_cpu: int) -> int:
    """Pictures at a time: an accelerator takes 64 as fast as 16."""
    return on_cpu if model.device.type == "cpu" else max(on_cpu, 64)


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One a picture."""
    return [torch.Generator().manual_seed(s) for s in seeds]
