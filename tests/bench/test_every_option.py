"""Every option of a plan reaches the cells: with it, what a batch asks the library for is another. And every seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.recorded import recording
from unsample.bench.ledger import read_run
from unsample.bench.plan import Plan, make_plan
from unsample.bench.run import How, run_plan

GIVEN: dict[str, Any] = {
    "dataset": "scenes:2,split=tune",
    "models": ["scenes-mixture"],
    "methods": ["fixed_point[num_iters=2]"],
    "metrics": ["psnr", "edit_gain"],
    "guidance": [2.0],
    "steps": 2,
    "edit": True,
}
MADE = {"dataset": "generated:2,split=tune", "edit": False, "metrics": ["e_interp"]}
HOW = How(batch_size=2, threads=1, artefacts="none")
pytestmark = pytest.mark.filterwarnings("ignore")

# The change, what it is a change of, and the calls that must be others: `sample` is of the baseline `fresh`, and of
# pictures that the model makes (and again from between two noises, for `e_interp`).
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "guidance": ({"guidance": [3.0]}, {}, ("invert", "edit", "sample")),
    "guidance_schedule": ({"guidance_schedule": "linear"}, {}, ("invert", "sample")),
    "inversion_guidance": ({"inversion_guidance": 2.0}, {}, ("invert",)),
    "inversion_guidance of a method": (
        {"methods": ["fixed_point[num_iters=2,inversion_guidance=2]"]}, {}, ("invert",),
    ),
    "methods": ({"methods": ["ddim"]}, {}, ("invert",)),
    "settings": ({"methods": ["fixed_point[num_iters=3]"]}, {}, ("invert",)),
    "quick": ({"quick": True}, {"methods": ["fixed_point"]}, ("invert",)),
    "steps": ({"steps": 3}, {}, ("invert", "sample")),
    "seed": ({"seed": 1}, {}, ("invert", "sample")),
    "models": ({"models": ["scenes-ddpm"], "guidance": [1.0]}, {"guidance": [1.0]}, ("load",)),
    "dtype": ({"dtype": "float16"}, {}, ("load",)),
    "fit": ({"fit": "pad"}, {}, ("as_images",)),
    "clip_model": ({"clip_model": "another"}, {}, ("measure",)),
    "metrics": ({"metrics": ["ssim"]}, {"metrics": ["psnr"]}, ("measure",)),
    "edit": ({"edit": False}, {}, ("edit", "sample")),
    "editors": ({"editors": ["none[guidance=3]"]}, {}, ("edit",)),
    "masks": ({"masks": ["given"]}, {}, ("edit",)),
    "edit_guidance": ({"edit_guidance": [3.0]}, {}, ("edit",)),
    "dataset": ({"dataset": "scenes:2,split=tune,start=5"}, {}, ("invert", "edit")),
    "datasets": ({"datasets": {"edit": "scenes:2,split=tune,start=5"}}, {}, ("edit",)),
    "strength": ({"strength": 0.5}, {}, ("invert",)),
    "strength of a method": ({"methods": ["fixed_point[num_iters=2,strength=0.5]"]}, {}, ("invert",)),
    "steps of a method": ({"methods": ["fixed_point[num_iters=2,steps=3]"]}, {}, ("invert", "sample")),
    "guidance of a method": ({"methods": ["fixed_point[num_iters=2,guidance=3]"]}, {}, ("invert", "edit", "sample")),
    "guidance of pictures that the model makes": ({"guidance": [3.0]}, MADE, ("invert", "sample")),
    "schedule of pictures that the model makes": ({"guidance_schedule": "linear"}, MADE, ("invert", "sample")),
    "steps of pictures that the model makes": ({"steps": 3}, MADE, ("invert", "sample")),
    "items that the model makes": ({"dataset": "generated:2,split=tune,start=5"}, MADE, ("sample",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def mixture() -> Any:
    """Loaded once."""
    import unsample

    return unsample.load("scenes-mixture")


@pytest.fixture
def asked(mixture: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Plan], list[Any]]:
    """What a run of a plan asks the library for, in order."""
    import unsample
    from unsample import metrics
    from unsample.verbs import inputs

    calls: list[Any] = []
    answers = {name: getattr(unsample, name) for name in ("invert", "sample", "reconstruct", "edit")}
    for name, answer in answers.items():
        monkeypatch.setattr(unsample, name, recording(calls, name, answer))
    monkeypatch.setattr(unsample, "load", recording(calls, "load", lambda *args, **more: mixture))
    monkeypatch.setattr(inputs, "as_images", recording(calls, "as_images", inputs.as_images))
    measure = metrics.measure

    def measuring(names: Any, subject: Any, settings: Any) -> Any:
        calls.extend([("measure", names, settings)] if names else [])
        return measure(names, subject, settings)

    monkeypatch.setattr(metrics, "measure", measuring)

    def ask(plan: Plan) -> list[Any]:
        calls.clear()
        folder = tmp_path / plan.fingerprint()[:12]
        run_plan(plan, folder, HOW)
        return list(calls)

    return ask


OF_STUDIES = ("keep_trajectory", "probe", "probe_settings")  # tests/studies


def test_every_option_of_a_plan_is_in_the_table() -> None:
    assert {name.partition(" ")[0] for name in OPTIONS} >= Plan.__dataclass_fields__.keys() - {"docs", *OF_STUDIES}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_a_plan_reaches_the_cells(option: str, asked: Callable[[Plan], list[Any]]) -> None:
    change, base, names = OPTIONS[option]
    plain, changed = asked(make_plan(GIVEN | base)), asked(make_plan(GIVEN | base | change))
    for name in names:
        before, after = ([call for call in calls if call[0] == name] for calls in (plain, changed))
        assert before, name
        same = [call for call in after if call in before]
        assert same == [], name


def test_every_picture_of_a_batch_has_a_noise_of_its_own_from_the_seed_of_its_row(tmp_path: Path) -> None:
    import torch

    from unsample import Inversion

    given = {"dataset": "scenes:3,split=tune", "edit": False, "methods": ["random_noise"], "metrics": ["std"]}
    run_plan(make_plan(GIVEN | given), tmp_path, replace(HOW, batch_size=3, artefacts="all"))
    noises = {}
    for row in read_run(tmp_path).rows:
        path = next(a["path"] for a in row["artefacts"] if a["kind"] == "inversion")
        noises[row["seed"]] = Inversion.load(tmp_path / path).noise[0]
    assert len(noises) == 3
    for seed, noise in noises.items():
        drawn = torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(noise, drawn)


def test_every_batch_is_seeded_picture_by_picture(asked: Callable[[Plan], list[Any]]) -> None:
    for base, names in (({}, ("invert", "sample")), (MADE, ("invert", "sample"))):
        calls = [c for c in asked(make_plan(GIVEN | base)) if c[0] in names and "generator" in c[2]]
        assert {c[0] for c in calls} == {*names}
        for _, _, more in calls:
            assert len({*more["generator"]}) == 2
