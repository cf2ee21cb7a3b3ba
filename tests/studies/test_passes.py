"""What a study is said to take, against the calls that a run makes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.studies import tiny
from unsample.bench.plan import make_plan
from unsample.bench.run import How, run_plan
from unsample.datasets import open_dataset
from unsample.errors import BadOption
from unsample.studies import NAMES, get_study
from unsample.studies.base import DDPM, MIXTURE, Asked
from unsample.studies.passes import Work, pictures_of, pictures_told, work_of, work_of_plan
from unsample.studies.running import asked_of, check_study, plans_of

ALL = {"dataset": "generated:2,split=report", "metrics": ["e_latent", "e_recon", "e_interp", "psnr"]}
RECOVERED = {"datasets": {"recovered": ALL["dataset"]}, "metrics": ["e_latent"]}
EDITED = {"dataset": "scenes:2,split=report", "metrics": ["psnr"], "edit": True}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures that go through the network, call by call; nothing is remembered between calls."""
    from unsample.experiment import shared
    from unsample.models.gaussian import GaussianModel

    seen: list[int] = []
    network = GaussianModel.network

    def counted(self: Any, x: Any, *rest: Any) -> Any:
        seen.append(len(x))
        return network(self, x, *rest)

    monkeypatch.setattr(GaussianModel, "network", counted)
    monkeypatch.setattr(shared, "LIMIT_MB", 0.0)
    monkeypatch.setattr(shared.Shared.__init__, "__defaults__", (0.0,))
    return seen


@pytest.mark.parametrize("given", [ALL, RECOVERED, EDITED], ids=["all", "recovered", "edited"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize(
    "method", ["ddim", "fixed_point[num_iters=2,tol=0.0]", "edict", "null_text[num_inner_steps=2]", "zero"]
)
def test_the_calls_of_a_plan_are_those_that_its_run_makes(
    given: dict[str, Any], guidance: float, method: str, calls: list[int], tmp_path: Path
) -> None:
    if method == "zero" and given is EDITED:
        pytest.skip("zero is of recovered noise")
    plan = make_plan({"models": [MIXTURE], "methods": [method], "steps": [3], "guidance": [guidance], **given})
    run_plan(plan, tmp_path, How(artefacts="none", threads=1))
    work = work_of_plan(plan)
    assert (work.total, work.passes[MIXTURE] * 2) == (sum(calls), sum(calls))


def test_what_several_methods_ask_alike_makes_it_no_more(calls: list[int], tmp_path: Path) -> None:
    methods = ["ddim", "fixed_point", "easyinv"]
    plan = make_plan({"models": [MIXTURE], "methods": methods, "steps": [4], **ALL})
    run_plan(plan, tmp_path, How(artefacts="none", threads=1))
    assert sum(calls) - 2 * 2 * 4 * 2 <= work_of_plan(plan).total  # the pictures are made once a method here


def test_probes_count_and_models_add_up() -> None:
    asked = Asked(models=(MIXTURE, "scenes-ddpm"), num_samples=4, steps=4)
    plain = work_of(tiny.study("tiny"), asked)
    probed = work_of(tiny.study("tiny", probe_passes=lambda asked: 3 * asked.steps), asked)
    assert {m: probed.passes[m] - plain.passes[m] for m in asked.models} == dict.fromkeys(asked.models, 12)
    assert probed.total - plain.total == 2 * 4 * 12
    assert plain.total == 4 * sum(plain.passes.values())
    assert plain.cells == 2 * 2 * 4
    assert (Work() + plain) == plain
    assert f"{plain.total:,} in all" in plain.told


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_of_two_plans_the_one_with_fewer_pictures_has_some_of_the_others(name: str, seed: int) -> None:
    study = get_study(name)
    found: dict[tuple[str, str], list[set[str]]] = {}
    for plan in plans_of(study, asked_of(study, seed=seed)).values():
        for spec in plan.stages:
            ids = open_dataset(spec).ids
            for model in plan.models:
                found.setdefault((model, str(ids[0]).rstrip("0123456789")), []).append(set(ids))
    for sets in found.values():
        ordered = sorted(sets, key=len)
        assert all(fewer <= more for fewer, more in pairwise(ordered))


def test_a_lent_model_is_of_one_type() -> None:
    import unsample

    asked = Asked(models=(MIXTURE,), num_samples=2, steps=2)
    with pytest.raises(unsample.Incompatible, match="float64, float32"):
        check_study(get_study("precision"), asked, loaded={MIXTURE: unsample.load(MIXTURE)})


def test_pictures_are_told_as_the_plans_have_them() -> None:
    study = get_study("zeng_table1")
    counts = pictures_of(plans_of(study, Asked(models=(DDPM, MIXTURE), num_samples=4)).values())
    assert (counts[DDPM], counts[MIXTURE]) == (2, 4)
    assert pictures_told(counts) == "2 to 4 pictures each"


@pytest.mark.parametrize("name", ["taba_triangle", "taba_assignment", "zeng_first_step"])
def test_more_steps_than_a_model_has_are_refused_though_plans_walk_other_numbers(name: str) -> None:
    with pytest.raises(BadOption, match="at most 1000"):
        check_study(get_study(name), Asked(models=(MIXTURE,), num_samples=4, steps=1001))
