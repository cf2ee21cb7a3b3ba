"""Is a run what it says it is: no cell lost, none twice, no row or artefact damaged. And several shards as one run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unsample.bench import sets
from unsample.bench.artefacts import copy, damage
from unsample.bench.coverage import Counts, covered, total
from unsample.bench.ledger import (
    PLAN,
    RUNNING,
    VOLATILE,
    Altered,
    Ledger,
    RunData,
    checked,
    plan_of,
    read_run,
    read_unchecked,
    row_of,
    set_of,
)
from unsample.bench.parts import Apart, Part, Several, cell_id, part_of, parts_of
from unsample.errors import BadInput
from unsample.media.files import atomic_write, check_writable_folder


@dataclass
class Verdict:
    """What `verify` found."""

    cells: int = 0  # of the whole plan, those left out apart
    rows: int = 0
    counts: Counts = field(default_factory=Counts)  # all that was planned
    apart: Sequence[Apart] = ()  # what is not run: stopped, or not applicable
    several: Several = field(default_factory=lambda: Several(steps=False, datasets=False))
    artefacts: int = 0
    sets: int = 0  # rows of whole sets
    lost: list[str] = field(default_factory=list)  # cells, and whole sets, without a row: the run is not finished
    strange: list[str] = field(default_factory=list)  # rows of nothing in the plan
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
    from unsample.datasets import open_dataset

    plan = plan_of(folder)
    found = Verdict(several=Several.of(plan))
    raws, raw_sets, standing = read_unchecked(folder)
    (rows, wrong), (measured, more) = checked(raws, row_of), checked(raw_sets, set_of)
    found.damaged = [f"row {which.removeprefix('of ')}{_why(error)}" for which, error in (*wrong, *more)]
    if not standing.items:  # of an earlier version's run: the data set's as it is now
        standing = replace(standing, items={spec: list(open_dataset(spec).ids) for spec in plan.stages})
    standing = replace(standing, statuses={cell: row["status"] for cell, row in rows.items()}, sets=list(measured))
    parts, every = covered(plan, standing), {p.part: p for p in parts_of(plan)}
    planned = [p.part for p in parts if p.counts.planned]
    expected = {part.cell(item) for part in planned for item in every[part].ids(standing.items)
                if (part.dataset, item) not in standing.broken}  # fmt: skip
    whole = {part.cell("") for part in planned if plan.set_metrics and every[part].pictured(plan)}
    stale = sets.lacking(plan, RunData({}, list(rows.values()), standing=standing, sets=list(measured.values())))
    found.cells, found.rows, found.sets = len(expected), len(raws), len(raw_sets)
    found.counts, found.apart = total(p.counts for p in parts), [p.apart for p in parts if p.apart]
    lost = (expected - {cell for cell, _, _ in raws}) | {p.part.cell("") for p in stale}
    found.lost = sorted(lost | whole - {part for part, _, _ in raw_sets})
    found.strange = [name for name in (*rows, *measured) if name not in expected | whole]
    for row in rows.values():
        for artefact in row["artefacts"]:
            found.artefacts += 1
            if said := damage(folder, artefact):
                found.damaged.append(said)
    return found


def _why(error: BadInput) -> str:
    return "" if isinstance(error, Altered) else f": {error}"


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
    """Put shards of one plan together: rows, artefacts and broken items; and measure the sets that are whole now.

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
    plan, rows, measured = plan_of(runs[0].folder), _together(runs), _sets_together(runs)
    files = _checked_files(rows.values())
    check_writable_folder(into)
    with Ledger(into) as ledger:
        text = json.dumps(runs[0].plan, indent=1) + "\n"
        atomic_write(into / PLAN, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        for artefact, source in files:
            if not _same(source, into):
                copy(source, artefact, into)
        items: dict[str, list[str]] = {}
        for data, ids in (pair for run in runs for pair in run.items.items()):
            items[data] = list(dict.fromkeys([*items.get(data, ()), *ids]))
        broken = {key: reason for run in runs for key, reason in run.standing.broken.items()}
        ledger.note(items, broken, [a for run in runs for a in run.apart])
        ledger.add([row for row, _ in rows.values()])
        ledger.add_sets(measured)
        sets.finish(plan, ledger)
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


def _sets_together(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """The rows of whole sets; one of other pictures than the whole run has is measured anew later."""
    found: dict[tuple[Part, str], dict[str, Any]] = {}
    for row in (row for run in runs for row in run.sets):
        key = part_of(row), row["of"]
        if found.setdefault(key, row) != row:
            raise BadInput(f"cannot merge: the whole set of {key[0].cell('')} differs between runs")
    return list(found.values())


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
