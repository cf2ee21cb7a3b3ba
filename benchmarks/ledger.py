"""Finished rows of the long tables, kept in `benchmarks/results/`: a table that is started again goes on where it was.

A row is known by its table, its name, its settings and the weights it was made with; change one and it is run again.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from unsample.media.files import atomic_write, lock

RESULTS = Path(__file__).parent / "results"
DOCS = Path("docs/methods.md")


def finished(table: str, row: str, about: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row, from the ledger or made now.

    Args:
        table: names the file.
        row: what stands in the first column.
        about: everything that the row depends on, JSON.
        make: the figures.
    """
    path = RESULTS / f"{table}.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    key = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]
    kept = rows.get(row)
    if kept is not None and kept["key"] == key:
        return dict(kept["figures"])
    print(f"{table}: {row} ...", flush=True)
    begin = time.perf_counter()
    figures = make()
    figures["seconds"] = round(time.perf_counter() - begin, 1)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    on = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    RESULTS.mkdir(exist_ok=True)
    taken = lock(RESULTS, f"{table}.lock", wait=True)  # several processes may fill one table
    assert taken is not None
    with taken:
        rows = json.loads(path.read_text()) if path.exists() else {}
        rows[row] = {"key": key, "date": date, "on": on, "about": dict(about), "figures": figures}
        text = json.dumps(rows, indent=1, default=str)
        atomic_write(path, lambda temporary: temporary.write_text(text))
    return figures


def dates(table: str) -> str:
    """When the rows of a table were made."""
    path = RESULTS / f"{table}.json"
    found = sorted({r["date"] for r in json.loads(path.read_text()).values()}) if path.exists() else []
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}" if found else "not made yet"


def markdown(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table for the docs."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def write_section(name: str, text: str) -> None:
    """Put a table between its two markers in `DOCS`, and leave the rest as it is."""
    begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
    document = DOCS.read_text()
    before, _, rest = document.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{DOCS} has no markers {begin} ... {end}")
    atomic_write(DOCS, lambda temporary: temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}"))
