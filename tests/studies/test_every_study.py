"""Every study runs, at two pictures and three steps; its claims find what they are about in its rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unsample.bench.run import How
from unsample.studies import NAMES, get_study
from unsample.studies.base import DDPM, FLOW, MIXTURE, SD
from unsample.studies.claimed import FOLDER, claims_of
from unsample.studies.running import asked_of, run_study, write_rows

ELSEWHERE = ("space", "finest")  # columns of claims about other models than the one tried, or about more steps
QUICKEST = (MIXTURE, SD, DDPM, FLOW)
SETS = ("taba_interpolation", "taba_training")  # figures of sets, which two pictures are too few for


def quickest(name: str) -> str:
    """The model on which a study is tried."""
    models = get_study(name).default_models
    return next((model for model in QUICKEST if model in models), models[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_study_runs_and_its_claims_are_about_its_rows(name: str, tmp_path: Path) -> None:
    study = get_study(name)
    assert study.name == name
    asked = asked_of(study, [quickest(name)], num_samples=4 if name in SETS else 2, steps=3, quick=True)
    found = run_study(name, asked, tmp_path, How(artefacts="none", batch_size=4, threads=1))
    assert found.rows, name
    assert all({"model", "unit"} <= row.keys() for row in found.rows)
    write_rows(found, tmp_path)
    assert json.loads((tmp_path / "rows.json").read_text()) == found.rows
    for verdict in found.verdicts:
        about, of = verdict.claim.models, verdict.claim.of
        elsewhere = [key for key in ELSEWHERE if key in of and not any(row.get(key) == of[key] for row in found.rows)]
        if not elsewhere and (not about or asked.models[0] in about):
            assert verdict.found[0].effect is not None, f"{name}: {verdict.claim.name}: {verdict.found[0].reason}"
    again = run_study(name, asked, tmp_path, How(artefacts="none", batch_size=4, threads=1))
    assert again.rows == found.rows
    if study.figure is not None:
        study.figure(found.rows).savefig(tmp_path / "figure.png")


def test_every_file_of_claims_is_of_a_study() -> None:
    named = {path.stem for path in FOLDER.glob("*.toml")}
    assert named <= {*NAMES}
    assert all(claim.says.endswith(".") for name in named for claim in claims_of(name))
