"""Is a run what it says it is: no cell lost, none twice, no row or artefact damaged. And several shards as one run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsample.bench.artefacts import hash_of
from unsample.bench.coverage import Counts, covered, total
from unsample.bench.ledger import (
    PLAN,
    RUNNING,
    VOLATILE,
    Apart,
    Ledger,
    RunData,
    Standing,
    cell_id,
    cell_name,
    raw_rows,
    read_plan_file,
    read_run,
    read_standing,
    row_sha,
)
from unsample.bench.plan import Plan, make_plan
from unsample.errors import BadInput
from unsample.files import atomic_write, check_writable_folder


@dataclass
class Verdict:
    """What `verify` found."""

    cells: int = 0  # of the whole plan, those left out apart
    rows: int = 0
    counts: Counts = field(default_factory=Counts)  # all that was planned
    apart: Sequence[Apart] = ()  # what is not run: stopped, or not applicable
    artefacts: int = 0
    lost: list[str] = field(default_factory=list)  # cells without a row: the run is not finished
    strange: list[str] = field(default_factory=list)  # rows of no cell of the plan
    damaged: list[str] = field(default_factory=list)  # rows or artefacts that are not what was written

    @property
    def sound(self) -> bool:
        """Whether everything that is there is right; a run may be unfinished and sound."""
        return not self.strange and not self.damaged


def verify(folder: Path) -> Verdict:
    """Compare every row with its hash, every artefact with the row's, and the rows with the plan.

    Raises:
        BadInput: the folder holds no run.
    """
    plan, found = make_plan(read_plan_file(folder)["plan"]), Verdict()
    rows, standing = raw_rows(folder), _standing(plan, folder)
    parts = covered(plan, standing)
    usable = [item for item in standing.items if item not in standing.broken]
    expected = {cell_name((p.model, p.method, p.guidance), item) for p in parts if p.counts.planned for item in usable}
    found.cells, found.rows = len(expected), len(rows)
    found.counts, found.apart = total(p.counts for p in parts), [p.apart for p in parts if p.apart]
    found.lost = sorted(expected - {cell for cell, _, _ in rows})
    for cell, text, sha in rows:
        if row_sha(text) != sha:
            found.damaged.append(f"row {cell}")
            continue
        row = json.loads(text)
        if cell not in expected or cell_id(row) != cell:
            found.strange.append(cell)
        for artefact in row["artefacts"]:
            found.artefacts += 1
            path = folder / artefact["path"]
            if not path.is_file():
                found.damaged.append(f"{artefact['path']} is missing")
            elif hash_of(path) != artefact["sha256"]:
                found.damaged.append(f"{artefact['path']} is not what was written")
    return found


def _standing(plan: Plan, folder: Path) -> Standing:
    """How far a run is; the items of an earlier version's run are those of the data set as it is now."""
    from unsample.datasets import open_dataset

    standing = read_standing(folder)
    return standing if standing.items else replace(standing, items=list(open_dataset(plan.dataset).ids))


def same_result(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two rows say the same, whoever ran them and when."""
    return _result(a) == _result(b)


def _result(row: dict[str, Any]) -> dict[str, Any]:
    """A row without how it was run; a saved inversion holds its seconds, and safetensors orders its header anew."""
    artefacts = [a | {"sha256": ""} if a["kind"] == "inversion" else a for a in row["artefacts"]]
    return {k: v for k, v in row.items() if k not in (*VOLATILE, *RUNNING)} | {"artefacts": artefacts}


def same_table(a: Path, b: Path) -> bool:
    """Whether two runs have the same rows, whoever ran them and when."""
    left, right = read_run(a).rows, read_run(b).rows
    return len(left) == len(right) and all(same_result(p, q) for p, q in zip(left, right, strict=True))


def merge(folders: Sequence[Path], into: Path) -> RunData:
    """Put shards of one plan together: rows, artefacts and broken items.

    A cell that is in two of them must say the same in both; of a cell that failed in one and ended in another the
    ended one is kept.

    Raises:
        BadInput: runs of different plans, rows that contradict each other, or a folder that cannot be used.
    """
    runs = [read_run(folder) for folder in folders]
    prints = {run.plan.get("fingerprint") for run in runs}
    if len(prints) > 1:
        raise BadInput(f"cannot merge runs of different plans: {', '.join(str(f) for f in folders)}")
    rows: dict[str, tuple[dict[str, Any], Path]] = {}
    for run in runs:
        for row in run.rows:
            cell = cell_id(row)
            there = rows.get(cell)
            if there is None or there[0]["status"] == "failed":
                rows[cell] = (row, run.folder)
            elif row["status"] != "failed" and not same_result(there[0], row):
                raise BadInput(f"cannot merge: {cell} differs between {there[1]} and {run.folder}")
    check_writable_folder(into)
    if (into / PLAN).exists() and read_plan_file(into).get("fingerprint") not in prints:
        raise BadInput(f"{str(into)!r} holds the run of another plan; choose another -o")
    with Ledger(into) as ledger:
        text = json.dumps(runs[0].plan, indent=1) + "\n"
        atomic_write(into / PLAN, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        for row, source in rows.values():
            for artefact in row["artefacts"]:
                _copy(source / artefact["path"], into / artefact["path"])
        noted = [ledger.standing.items, *(run.items for run in runs)]
        items = dict.fromkeys(item for some in noted for item in some)
        ledger.note(list(items), {b for run in runs for b in run.broken}, [a for run in runs for a in run.apart])
        ledger.add([row for row, _ in rows.values()])
    return read_run(into)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        atomic_write(target, lambda temporary: shutil.copyfile(source, temporary))
    except FileNotFoundError as error:
        raise BadInput(f"cannot merge: {source} is missing; verify that run") from error
