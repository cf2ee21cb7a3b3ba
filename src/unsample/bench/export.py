"""The rows of a run as CSV, JSON or Parquet: one row a cell, a column a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unsample.bench.coverage import coverage, total
from unsample.bench.ledger import RunData
from unsample.errors import BadInput, BadOption
from unsample.media.files import as_csv, atomic_write

NESTED = ("settings", "artefacts")


def flat_rows(run: RunData) -> list[dict[str, Any]]:
    """Values as columns `stage.metric`, beside them `stage.metric.exact` and `.reason` where some row has one."""
    names = list(dict.fromkeys(name for row in run.rows for name in row["values"]))
    exact = {n for row in run.rows for n, v in row["values"].items() if v["exact"]}
    reasons = {n for row in run.rows for n, v in row["values"].items() if v["reason"]}
    flat = []
    for row in run.rows:
        plain = {k: v for k, v in row.items() if k not in ("values", *NESTED)}
        plain |= {k: json.dumps(row[k], sort_keys=True) for k in NESTED}
        for name in names:
            entry = row["values"].get(name, {"value": None, "exact": False, "reason": None})
            plain[name] = entry["value"]
            plain |= {f"{name}.exact": entry["exact"]} if name in exact else {}
            plain |= {f"{name}.reason": entry["reason"]} if name in reasons else {}
        flat.append(plain)
    return flat


def as_text(run: RunData, form: str, raw: bool = False) -> str:
    """The rows as `csv` (`files.as_csv`; `raw`: no text is made harmless) or `json`."""
    if form == "json":
        parts = coverage(run)
        far = {"cells": total(part.counts for part in parts).plain(), "parts": [part.plain() for part in parts]}
        whole = {"plan": run.plan, **far, "rows": run.rows, "broken": run.broken}
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
