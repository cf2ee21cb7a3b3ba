"""The rows of a run as CSV, JSON or Parquet: one row a cell, a column a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unsample.bench.coverage import coverage, total
from unsample.bench.ledger import RunData
from unsample.errors import BadInput, BadOption
from unsample.media.files import as_csv, atomic_write

NESTED = ("settings", "editor_settings", "artefacts", "probed")


def flat_rows(run: RunData) -> list[dict[str, Any]]:
    """Values as columns `stage.metric`, beside them `stage.metric.exact`, `.reason` and `.n` where some row has one.

    After the cells come the rows of whole sets, which have no item.
    """
    rows = [*run.rows, *run.sets]
    entries = [(name, entry) for row in rows for name, entry in row["values"].items()]
    beside = {key: {n for n, e in entries if e.get(key)} for key in ("exact", "reason", "n")}
    unknown = {"value": None, "exact": False, "reason": None, "n": None}
    flat = []
    for row in rows:
        plain = {k: v for k, v in row.items() if k not in ("values", *NESTED)}
        plain |= {k: json.dumps(row[k], sort_keys=True) for k in NESTED if k in row}
        for name in dict.fromkeys(name for name, _ in entries):
            entry = unknown | row["values"].get(name, {})
            plain[name] = entry["value"]
            plain |= {f"{name}.{key}": entry[key] for key, names in beside.items() if name in names}
        flat.append(plain)
    return flat


def as_text(run: RunData, form: str, raw: bool = False) -> str:
    """The rows as `csv` (`files.as_csv`; `raw`: no text is made harmless) or `json`."""
    if form == "json":
        parts = coverage(run)
        far = {"cells": total(part.counts for part in parts).plain(), "parts": [part.plain() for part in parts]}
        whole = {"plan": run.plan, **far, "rows": run.rows, "sets": run.sets, "broken": run.broken}
        return json.dumps(whole, indent=1, allow_nan=False) + "\n"
    rows = flat_rows(run)
    return as_csv(list(dict.fromkeys(k for row in rows for k in row)), rows, raw)


def write(run: RunData, path: Path, form: str, raw: bool = False) -> None:
    """Write a file, in one step.

    Raises:
        BadOption: Parquet without pyarrow. BadInput: the file cannot be written.
    """
    if form == "parquet":
        _parquet(run, path)
    else:
        text = as_text(run, form, raw)
        atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _parquet(run: RunData, path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise BadOption("--parquet needs pyarrow: pip install 'unsample[parquet]'; or use --csv or --json") from error
    try:
        table = pyarrow.Table.from_pylist(flat_rows(run))
    except (pyarrow.ArrowException, TypeError, OverflowError) as error:  # a later version's columns may be of any type
        raise BadInput(f"the rows are no Parquet table: {error}; use --csv or --json") from error
    atomic_write(path, lambda temporary: parquet.write_table(table, temporary))
