"""`unsample bench`: run, go on, verify, merge, export, report; and what ends with which code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run

SMALL = ["--dataset", "scenes:3,split=tune", "-m", "scenes-mixture", "--steps", "3", "--threads", "1"]
METHODS = ["--methods", "ddim,fixed_point[num_iters=2]", "--metrics", "psnr"]


def test_a_run_goes_on_is_sound_and_is_reported(run: Run, tmp_path: Path) -> None:
    first = run("bench", "run", *SMALL, *METHODS, "-o", "x", "--shard", "1/2", "--json")
    assert first.code == 0, first.err
    assert first.json["done"] == first.json["cells"] == 3
    found = run("bench", "verify", "x", "--json").json
    assert (found["cells"], found["rows"], len(found["lost"])) == (6, 3, 3)
    again = run("bench", "run", *SMALL, *METHODS, "-o", "x", "--json")
    assert (again.json["cells"], again.json["statuses"]) == (6, {"not_converged": 3})
    assert "6 of 6 cells" in run("bench", "verify", "x").out
    kept = json.loads((tmp_path / "x" / "plan.json").read_text())
    assert kept["command"][0] == "unsample"
    ended = run("report", "x")
    assert ended.code == 0, ended.err
    page = (tmp_path / "x" / "report.html").read_text()
    assert "fixed_point[num_iters=2]" in page
    assert "data:image/" in page
    assert run("bench", "merge", "x", "x", "-o", "y").code == 0
    lines = run("bench", "export", "y", "--csv").out.splitlines()
    assert len(lines) == 7
    assert run("bench", "export", "y", "--json").json["rows"][0]["item"] == "tune-0"


def test_a_tampered_run_ends_with_4(run: Run, tmp_path: Path) -> None:
    assert run("bench", "run", *SMALL, "--methods", "ddim", "-o", "x").code == 0
    next((tmp_path / "x").rglob("noise.png")).write_bytes(b"")
    ended = run("bench", "verify", "x")
    assert ended.code == 4
    assert "is not what was written" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run"], 2, "give a plan"),
        (["run", "qick"], 4, "quick, zeng"),
        (["run", *SMALL, "--methods", "ddmi"], 2, "did you mean 'ddim'"),
        (["run", *SMALL, *METHODS, "--guidance", "1,x"], 2, "numbers"),
        (["run", *SMALL, *METHODS, "--guidance", "nan"], 2, "finite"),
        (["run", *SMALL, *METHODS, "--inversion-guidance", "sam"], 2, "--inversion-guidance takes a number, or same"),
        (["run", *SMALL, *METHODS, "--device", "cuda:0,gpu"], 2, "--device must be one of"),
        (["run", *SMALL, *METHODS, "--workers", "0"], 2, "--workers must be at least 1"),
        (["run", *SMALL, *METHODS, "--batch-size", "many"], 2, "or auto"),
        (["run", *SMALL, *METHODS, "--shard", "3/2"], 2, "--shard takes I/N"),
        (["run", "--dataset", "scenes:3", "--methods", "ddim", "-m", "scenes-ds"], 3, "scenes-ds"),
        (["run", "--dataset", "folder:gone", "--methods", "ddim"], 4, "gone"),
        (["verify", "gone"], 4, "is no run"),
        (["merge", "gone"], 4, "is no run"),
        (["export", "gone", "--csv"], 4, "is no run"),
        (["export", "gone"], 2, "one of --csv"),
    ],
)
def test_mistakes_are_said_before_anything_is_done(
    run: Run, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    ended = run("bench", *arguments)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [("bench", "run", *SMALL, "--methods", "ddim"), ("study", "taba_path"), ("invert", "photos", "--sharded")],
)
def test_an_address_of_a_cluster_goes_with_its_engine(run: Run, command: tuple[str, ...]) -> None:
    refused = run(*command, "-o", "x", "--ray-address", "head:6379")
    assert (refused.code, "--ray-address goes with --engine ray" in refused.err) == (2, True), refused.err


def test_a_dry_run_counts_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    told: Any = run("bench", "run", "quick", "--dry-run", "--json").json
    assert (told["cells"], told["items"]) == (60, 6)
    assert told["estimated_nfe"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_no_stage_measures_is_said_once(run: Run, tmp_path: Path) -> None:
    ended = run("bench", "run", *SMALL, "--methods", "ddim", "--metrics", "psnr,attribute_render_fit", "--dry-run")
    assert ended.code == 0
    assert ended.err.count("attribute_render_fit will not be measured: it is measured in the stage edit") == 1
    assert "psnr will not" not in ended.err
    assert "e_latent" not in run("bench", "run", *SMALL, "--methods", "ddim", "--metrics", "e_latent", "--dry-run").err


def test_options_go_over_the_plans_keys_and_another_plan_is_refused(run: Run) -> None:
    assert run("bench", "run", *SMALL, "--methods", "ddim", "-o", "x").code == 0
    ended = run("bench", "run", *SMALL, "--methods", "ddim", "--seed", "1", "-o", "x")
    assert ended.code == 4
    assert "seed: 0 there, 1 asked" in ended.err


def test_a_guidance_of_inversion_is_taken_as_the_plans_key_is(run: Run, tmp_path: Path) -> None:
    for text, kept in (("same", "same"), ("1.5", 1.5)):
        more = ("--guidance", "1.5", "--inversion-guidance", text, "-o", text, "--artefacts", "none")
        ended = run("bench", "run", *SMALL[2:], "--dataset", "scenes:1,split=tune", "--methods", "ddim", *more)
        assert ended.code == 0, ended.err
        assert json.loads((tmp_path / text / "plan.json").read_text())["plan"]["inversion_guidance"] == kept
    told = " ".join(run("bench", "run", "--help").out.replace("│", " ").split())
    assert "the plan's, else each method's own, else 1" in told


@pytest.mark.parametrize(
    ("key", "option", "said"),
    [
        ("strength = 1.5", [], "error: strength of a plan must be above 0 and at most 1; got 1.5"),
        ("strength = 0.1", [], "error: strength 0.1 of a plan of 3 steps is no step"),
        ("steps = 0", [], "error: steps of a plan: num_inference_steps must be at least 1"),
        ("steps = 100000", [], "error: steps of a plan: num_inference_steps must be at least 1 and at most 1000"),
        ("", ["--steps", "0"], "error: --steps: num_inference_steps must be at least 1"),
        ("", ["--steps", "100000"], "error: --steps: num_inference_steps must be at least 1 and at most 1000"),
    ],
)
def test_what_is_wrong_is_called_as_it_was_given(
    run: Run, tmp_path: Path, key: str, option: list[str], said: str
) -> None:
    steps = "" if "steps" in key else "steps = 3"
    (tmp_path / "p.toml").write_text(f'dataset = "scenes:2"\nmethods = ["ddim"]\n{key}\n{steps}\n')
    ended = run("bench", "run", "p.toml", *option, "--dry-run")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
