"""Is a run what it says it is: no cell lost, none twice, no row or artefact damaged. And several shards as one run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsample.bench.artefacts import copy, damage
from unsample.bench.coverage import Counts, covered, total
from unsample.bench.ledger import (
    PLAN,
    RUNNING,
    VOLATILE,
    Altered,
    Apart,
    Ledger,
    Raw,
    RunData,
    Standing,
    cell_id,
    cell_name,
    plan_of,
    read_run,
    read_unchecked,
    row_of,
)
from unsample.bench.plan import Plan
from unsample.errors import BadInput
from unsample.media.files import atomic_write, check_writable_folder


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
    plan, found = plan_of(folder), Verdict()
    raws, standing = _standing(plan, folder)
    rows = _sound(raws, found)
    parts = covered(plan, replace(standing, statuses={cell: row["status"] for cell, row in rows.items()}))
    usable = [item for item in standing.items if item not in standing.broken]
    expected = {cell_name((p.model, p.method, p.guidance), item) for p in parts if p.counts.planned for item in usable}
    found.cells, found.rows = len(expected), len(raws)
    found.counts, found.apart = total(p.counts for p in parts), [p.apart for p in parts if p.apart]
    found.lost = sorted(expected - {cell for cell, _, _ in raws})
    found.strange = [cell for cell in rows if cell not in expected]
    for row in rows.values():
        for artefact in row["artefacts"]:
            found.artefacts += 1
            if wrong := damage(folder, artefact):
                found.damaged.append(wrong)
    return found


def _sound(raws: Iterable[Raw], found: Verdict) -> dict[str, dict[str, Any]]:
    """The rows that can be used, by their cell; what is wrong with the others goes into the verdict."""
    rows: dict[str, dict[str, Any]] = {}
    for number, (cell, text, sha) in enumerate(raws, 1):
        which = f"row {cell[:200]}" if isinstance(cell, str) else f"row {number}"
        try:
            if cell in rows:
                raise BadInput("it stands there twice")
            rows[cell] = row_of(cell, text, sha)
        except Altered:
            found.damaged.append(which)
        except BadInput as error:
            found.damaged.append(f"{which}: {error}")
    return rows


def _standing(plan: Plan, folder: Path) -> tuple[list[Raw], Standing]:
    """The rows, unchecked, and the rest; the items of an earlier version's run are the data set's as it is now."""
    from unsample.datasets import open_dataset

    raws, standing = read_unchecked(folder)
    return raws, standing if standing.items else replace(standing, items=list(open_dataset(plan.dataset).ids))


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
    ended one is kept. A run that `into` holds already is one of them. Every file is compared with its hash before
    anything is written.

    Raises:
        BadInput: runs of different plans, rows or files that contradict each other, damaged ones, or a folder that
            cannot be used.
    """
    there = [into] if os.path.lexists(into / PLAN) and not any(_same(into, folder) for folder in folders) else []
    runs = [read_run(folder) for folder in [*there, *folders]]
    prints = [run.plan.get("fingerprint") for run in runs]
    if len(set(prints[len(there) :])) > 1:
        raise BadInput(f"cannot merge runs of different plans: {', '.join(str(f) for f in folders)}")
    if len(set(prints)) > 1:
        raise BadInput(f"{str(into)!r} holds the run of another plan; choose another -o")
    rows = _together(runs)
    files = _checked_files(rows.values())
    check_writable_folder(into)
    with Ledger(into) as ledger:
        text = json.dumps(runs[0].plan, indent=1) + "\n"
        atomic_write(into / PLAN, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        for artefact, source in files:
            if not _same(source, into):
                copy(source, artefact, into)
        items = dict.fromkeys(item for run in runs for item in run.items)
        ledger.note(list(items), {b for run in runs for b in run.broken}, [a for run in runs for a in run.apart])
        ledger.add([row for row, _ in rows.values()])
    return read_run(into)


def _together(runs: Sequence[RunData]) -> dict[str, tuple[dict[str, Any], Path]]:
    """Every cell's row, and the folder that it comes from."""
    rows: dict[str, tuple[dict[str, Any], Path]] = {}
    for run in runs:
        for row in run.rows:
            cell = cell_id(row)
            there = rows.get(cell)
            if there is None or there[0]["status"] == "failed":
                rows[cell] = (row, run.folder)
            elif row["status"] != "failed" and not same_result(there[0], row):
                raise BadInput(f"cannot merge: {cell} differs between {there[1]} and {run.folder}")
    return rows


def _checked_files(rows: Iterable[tuple[dict[str, Any], Path]]) -> list[tuple[dict[str, str], Path]]:
    """Every file of the rows once, and the folder it comes from.

    Raises:
        BadInput: one is not what was written, or two of one name differ.
    """
    found: dict[str, tuple[dict[str, str], Path]] = {}
    for row, source in rows:
        for artefact in row["artefacts"]:
            first, other = found.get(artefact["path"], (None, source))
            if first is None:
                if wrong := damage(source, artefact):
                    raise BadInput(f"cannot merge: {source}: {wrong}; verify that run")
                found[artefact["path"]] = (artefact, source)
            elif first["sha256"] != artefact["sha256"]:
                raise BadInput(f"cannot merge: {artefact['path']} differs between {other} and {source}")
    return list(found.values())


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)
