"""Metrics of whole sets (`fd`, `kd`, `precision` ...): a row for each part of a plan whose cells have all ended.

They are measured of the pictures as they were written, a few at a time, by whoever writes the ledger: after a run,
after one that was gone on with, and after a merge. A row says of which pictures it is (`of`), so that one that is out
of date is found and made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.bench.cells import about_part
from unsample.bench.coverage import covered
from unsample.bench.ledger import Ledger, RunData, read_run
from unsample.bench.parts import Planned, part_of, parts_of
from unsample.bench.plan import Plan, digest
from unsample.errors import BadInput, BadOption
from unsample.media.files import open_inside

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 32  # pictures that are in memory at once
Pair = tuple[Mapping[str, str], Mapping[str, str]]  # artefacts: a picture, and what it is held against
NONE = "no picture of this stage was written"


def check_kept(plan: Plan, artefacts: str) -> None:
    """Refuse to throw away the pictures that a plan's metrics need.

    Raises:
        BadOption: which metric.
    """
    if plan.set_metrics and artefacts == "none":
        raise BadOption(
            f"{plan.set_metrics[0]} is measured of the pictures of a run, and --artefacts none keeps none; "
            "use --artefacts pictures, or leave the metric out"
        )


def lacking(plan: Plan, run: RunData) -> list[Planned]:
    """The parts whose cells have all ended and whose sets, as they are now, are not measured."""
    if not plan.set_metrics:
        return []
    whole = {p.part for p in covered(plan, run.standing) if p.counts.planned and not p.counts.missing}
    made = {part_of(row): row["of"] for row in run.sets}
    rows = rows_of(run)
    found = [p for p in parts_of(plan) if p.part in whole and p.pictured(plan) and rows.get(p.part)]
    return [p for p in found if made.get(p.part) != made_of(pairs_of(plan, p, rows[p.part]))]


def finish(plan: Plan, ledger: Ledger) -> int:
    """Measure what `lacking` names, each committed when it is there; how many."""
    run = read_run(ledger.folder)
    rows, todo = rows_of(run), lacking(plan, run)
    for planned in todo:
        ledger.add_sets([_measured(plan, planned, rows[planned.part], ledger.folder)])
    return len(todo)


def rows_of(run: RunData) -> dict[Any, list[dict[str, Any]]]:
    """The rows of each part."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in run.rows:
        found.setdefault(part_of(row), []).append(row)
    return found


def pairs_of(plan: Plan, planned: Planned, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Pair]]:
    """For each stage the pictures, with what they are held against: the source, of edits the true edit."""
    found: dict[str, list[Pair]] = {stage: [] for stage in planned.pictured(plan)}
    for row in rows:
        files = {a["kind"]: a for a in row["artefacts"]}
        for stage, pairs in found.items():
            held = files.get("truth" if stage == "edit" else "source")
            if stage in files and held is not None:
                pairs.append((files[stage], held))
    return found


def made_of(pairs: Mapping[str, Sequence[Pair]]) -> str:
    """SHA-256 of what a row is of: each picture's name and hash."""
    return digest({stage: [[a["path"], a["sha256"], b["sha256"]] for a, b in some] for stage, some in pairs.items()})


def _measured(plan: Plan, planned: Planned, rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    from unsample.metrics import Settings, Subject
    from unsample.metrics.measuring import Measuring

    pairs, values = pairs_of(plan, planned, rows), {}
    for stage, some in pairs.items():
        measuring, reason = Measuring(plan.set_metrics, Settings(clip=plan.clip_model)), None if some else NONE
        try:
            for images, reference in _batches(folder, some):
                measuring.add(Subject(images=images, reference=reference))
        except BadInput as error:  # a picture is gone or is another one; `verify` says so too
            reason = str(error)
        for name, score in measuring.finish().items():
            entry = {"value": score.values[0], "exact": score.exact[0], "reason": score.reasons[0]}
            entry = {"value": None, "exact": False, "reason": reason} if reason else entry
            values[f"{stage}.{name}"] = entry | {"n": len(some), "details": dict(score.details)}
    return {**about_part(planned.part, planned.named, planned.edited), "values": values, "of": made_of(pairs)}


def _batches(folder: Path, pairs: Sequence[Pair]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures and what they are held against, (B, 3, H, W) in [0, 1]; a batch has one size."""
    import torch

    waiting: list[tuple[Tensor, Tensor]] = []
    for pair in pairs:
        opened = _opened(folder, pair[0]), _opened(folder, pair[1])
        if waiting and (len(waiting) == BATCH or waiting[0][0].shape != opened[0].shape):
            yield torch.stack([a for a, _ in waiting]), torch.stack([b for _, b in waiting])
            waiting = []
        waiting.append(opened)
    if waiting:
        yield torch.stack([a for a, _ in waiting]), torch.stack([b for _, b in waiting])


def _opened(folder: Path, artefact: Mapping[str, str]) -> Tensor:
    """A picture of the run folder, (3, H, W) in [0, 1], if it is what was written.

    Raises:
        BadInput: it is not.
    """
    import numpy
    import torch

    from unsample.media.pictures import MAX_BYTES, from_bytes

    path = artefact["path"]
    try:
        with open_inside(folder, path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != artefact["sha256"]:
        raise BadInput(f"{path} is not what was written")
    pixels = numpy.asarray(from_bytes(content, path).pixels.convert("RGB"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
