"""The table of families: README holds it as it is, and the command prints it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unsample.cli.main import main
from unsample.models.families import FAMILIES
from unsample.models.served import markdown

ROOT = Path(__file__).parents[2]


def test_readme_holds_the_table_of_families_as_it_is() -> None:
    assert markdown() in (ROOT / "README.md").read_text(), "python -m unsample.models.served prints it"


def test_models_families_prints_what_is_served_and_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "families"]) == 0
    told = capsys.readouterr().out
    assert all(family.name in told for family in FAMILIES)
    assert "None was run on real weights" in told
    assert "AdaptiveProjected: adaptive projected guidance (APG) carries momentum" in told
    assert main(["models", "families", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["served"]] == [family.name for family in FAMILIES]
    assert any("SanaSprint" in row["names"] for row in found["refused"])
    assert main(["models", "kinds"]) == 2
    assert "'families'" in capsys.readouterr().err
