"""The index of a collection: one Parquet file, a row an item. It follows from the ledger, and is written anew."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from unsample.errors import BadInput
from unsample.media.files import atomic_write

TEXTS = ("name", "input", "status", "reason", "prompt", "target_prompt", "shard", "grade", "grade_reason", "auto")
COUNTS = ("row", "width", "height", "nfe", "backward", "edit_nfe", "residual_step", "seed")
NUMBERS = ("mean", "std", "kl", "lag1_correlation", "residual", "first_step_shell", "first_step_radius",
           "edit_guidance", "seconds")  # fmt: skip
LISTS = ("out_of_domain", "notes")
AT_ONCE = 4096  # rows in memory


def check_pyarrow() -> None:
    """Refuse, before any work, where the index cannot be written.

    Raises:
        BadInput: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise BadInput(
            "the index of a collection is a Parquet file, which needs pyarrow: pip install 'unsample[parquet]'"
        )


def write_index(path: Path, rows: Iterable[Mapping[str, Any]], metrics: Sequence[str]) -> int:
    """Write the index; how many rows. A metric is a column, infinite where pictures are equal; why a value is missing
    stands in `reasons`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(COUNTS, pa.int64())}
    kinds |= {**dict.fromkeys(NUMBERS, pa.float64()), **dict.fromkeys(LISTS, pa.list_(pa.string()))}
    kinds |= {**dict.fromkeys(metrics, pa.float64()), "reasons": pa.string()}
    schema, total = pa.schema(list(kinds.items())), 0

    def write(temporary: Path) -> None:
        nonlocal total
        with pq.ParquetWriter(temporary, schema) as writer:
            for some in _some(flat(row, metrics) for row in rows):
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
                total += len(some)

    atomic_write(path, write)
    return total


def flat(row: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    """A row of the ledger as the index has it."""
    values, first = row.get("values") or {}, row.get("first_step") or {}
    found = {name: row.get(name) for name in (*TEXTS, *COUNTS, *NUMBERS, *LISTS)}
    found |= {"first_step_shell": first.get("shell"), "first_step_radius": first.get("radius")}
    for name in metrics:
        entry = values.get(name) or {"value": None, "exact": False}
        found[name] = math.inf if entry["exact"] else entry["value"]
    reasons = dict.fromkeys(entry["reason"] for entry in values.values() if entry["reason"])
    return found | {"reasons": "; ".join(reasons) or None}


def _some(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while some := list(islice(rows, AT_ONCE)):
        yield some
