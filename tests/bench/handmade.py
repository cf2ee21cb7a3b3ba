"""A finished run of two cells, made without a model: what `verify` calls sound, to be damaged by the tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.report.runs import row, value
from unsample.bench.ledger import PLAN, Ledger
from unsample.bench.plan import FORMAT, Plan, make_plan, plain

GIVEN = {"dataset": "scenes:2,split=tune", "models": ["scenes-mixture"], "methods": ["ddim"], "steps": 3}
OPTIONS = ["--dataset", "scenes:2,split=tune", "-m", "scenes-mixture", "--methods", "ddim", "--steps", "3"]


def plan() -> Plan:
    """What the run is of."""
    return make_plan(GIVEN | {"metrics": ["psnr"]})


def row_of(folder: Path, number: int) -> dict[str, Any]:
    """A cell with one picture, which is written."""
    path = Path("artefacts/scenes-mixture", f"tune-{number}", "source.png")
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), ("red", "blue")[number]).save(folder / path)
    sha256 = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    about = {"dataset": GIVEN["dataset"], "model": "scenes-mixture", "steps": 3, "edit": False, "order": number}
    kept = [{"kind": "source", "path": path.as_posix(), "sha256": sha256}]
    return row(f"tune-{number}", "ddim", values={"noise.psnr": value(20.0 + number)}, artefacts=kept, **about)


def make(folder: Path, *rows: dict[str, Any]) -> Path:
    """The folder of a run; without rows of its own both cells are there."""
    folder.mkdir(parents=True, exist_ok=True)
    made = rows or (row_of(folder, 0), row_of(folder, 1))
    with Ledger(folder) as ledger:
        ledger.note({plan().dataset: ["tune-0", "tune-1"]}, {}, [])
        ledger.add(made)
    kept = {"format": FORMAT, "fingerprint": plan().fingerprint(), "plan": plain(plan()), "versions": {}, "command": []}
    (folder / PLAN).write_text(json.dumps(kept))
    return folder
