"""`unsample doctor --model`: the verdict, its exit code, and what it is not asked without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run


def test_a_model_that_is_served_as_its_pipeline_would_ends_with_0(run: Run, tiny_sd: Path) -> None:
    ended = run("doctor", "--model", tiny_sd, "--steps", 3, "--guidance-scale", 2, "--prompt", "a red circle", "--json")
    assert ended.code == 0
    found = ended.json
    assert (found["verdict"], found["problems"], found["steps"], found["size"]) == ("clean", [], 3, [16, 16])
    assert [one["guidance_scale"] for one in found["compared"]] == [1, 2]
    assert max(one["latents"] for one in found["compared"]) < 1e-5
    shown = run("doctor", "-m", tiny_sd, "--steps", 3, "--size", "24x16")
    assert "verdict       clean" in shown.out
    assert "24x16" in shown.out


def test_one_that_is_not_ends_with_5_and_says_where(run: Run, tiny_sd: Path, monkeypatch: Any) -> None:
    from unsample.models.latent import LatentModel

    embed = LatentModel.embed
    monkeypatch.setattr(LatentModel, "embed", lambda self, prompts, *more: embed(self, ["a"] * len(prompts), *more))
    ended = run("doctor", "--model", tiny_sd, "--steps", 2, "--prompt", "two blue stars")
    assert ended.code == 5
    assert "problem: at guidance 1 latents differ after the first step by" in ended.out


@pytest.mark.parametrize("option", [("--prompt", "a"), ("--steps", "3"), ("--dtype", "float16"), ("--seed", "0")])
def test_options_of_a_model_are_refused_without_one(run: Run, option: tuple[str, str]) -> None:
    ended = run("doctor", *option)
    assert ended.code == 2
    assert f"{option[0]} is of a model to be checked; give --model too" in ended.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--size", "big"), "--size takes a number of pixels"),
        (("--guidance-scale", "0.5"), "at least 1"),
        (("--class-labels", "1"), "draws no classes"),
        (("--steps", "0"), "--steps"),
    ],
)
def test_what_a_check_cannot_be_asked_is_refused(run: Run, tiny_sd: Path, more: tuple[str, ...], says: str) -> None:
    ended = run("doctor", "--model", tiny_sd, *more)
    assert ended.code == 2
    assert says in ended.err
