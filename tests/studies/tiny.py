"""A study of two cheap methods, to try doors, pages and runs on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from unsample.studies.base import MIXTURE, OURS, Asked, Cells, Row, Study, value

NAMES = ("tiny", "needy")
CLAIMS = """
[[claim]]
name = "iterating_helps"
says = "Iterating <b>finds</b> the noise better."
value = "e_latent"
of = { method = "fixed_point" }
against = { method = "ddim" }
effect = "ratio"
direction = "below"
least = 0.9
n = 3
published = ".5 against 1 & more"
"""


def plans(asked: Asked) -> list[dict[str, Any]]:
    given = {"metrics": ["e_latent", "e_recon"], "datasets": {"recovered": asked.generated}}
    return [asked.plan(methods=["ddim", "fixed_point"], **given)]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    for cell in cells:
        found = {name: value(cell, f"recovered.{name}") for name in ("e_latent", "e_recon")}
        yield {"model": cell["model"], "unit": cell["item"], "method": cell["method"]} | found


def figure(rows: Sequence[Row]) -> Any:
    from unsample.studies.plotting import panels

    drawn, (axis,) = panels(1)
    axis.plot([row["e_latent"] for row in rows])
    return drawn


def study(name: str, **given: Any) -> Study:
    common: dict[str, Any] = {"question": "Does <i>iterating</i> help?", "paper": OURS, "shows": "nothing published"}
    common |= {"models": (MIXTURE,), "num_samples": 4, "steps": 4, "plans": plans, "rows": rows, "figure": figure}
    return Study(name=name, **(common | given))


def install(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let there be these studies alone."""
    import unsample.studies
    from unsample.studies import claimed

    for name, needs in (("tiny", ()), ("needy", ("vae",))):
        module: Any = ModuleType(f"unsample.studies.{name}")
        module.STUDY = study(name, needs=needs)
        patch.setitem(sys.modules, module.__name__, module)
    (folder / "claims").mkdir()
    (folder / "claims" / "tiny.toml").write_text(CLAIMS)
    patch.setattr(unsample.studies, "NAMES", NAMES)
    patch.setattr(claimed, "FOLDER", folder / "claims")
    claimed.claims_of.cache_clear()
