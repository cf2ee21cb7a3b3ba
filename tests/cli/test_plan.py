"""`unsample plan`: memory and passes before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from unsample.methods import Walked, get_method


def planned(run: Run, folder: Path, *more: str) -> Any:
    ended = run("plan", "-m", folder, "--json", *more)
    assert ended.code == 0, ended.err
    return ended.json


def test_it_counts_the_passes_that_the_method_says_and_twice_the_rows_under_guidance(run: Run, tiny_sd: Path) -> None:
    plain = planned(run, tiny_sd, "--steps", "10", "--method", "fixed_point", "--set", "num_iters=3")
    guided = planned(
        run, tiny_sd, "--steps", "10", "--method", "fixed_point", "--set", "num_iters=3", "--guidance-scale", "2"
    )
    method = get_method("fixed_point", {"num_iters": 3})
    assert [p["passes"] for p in (plain, guided)] == [method.passes(Walked(10, pair)) for pair in (1, 2)]
    assert guided["activations"]["denoise"] > 1.5 * plain["activations"]["denoise"]
    assert guided["activations"]["decode"] == plain["activations"]["decode"]
    gradient = planned(run, tiny_sd, "--steps", "10", "--method", "null_text", "--sampling-guidance-scale", "7.5")
    assert gradient["backward"] > 0
    assert gradient["activations"]["backward"] > guided["activations"]["denoise"]


def test_what_saves_memory_is_predicted_to(run: Run, tiny_sd: Path) -> None:
    plain = planned(run, tiny_sd)
    assert plain["size"] == [16, 16]
    assert plain["peak"]["device"] > sum(plain["weights"].values())
    half = planned(run, tiny_sd, "--dtype", "bfloat16")
    assert half["weights"]["unet"] == plain["weights"]["unet"] / 2
    assert half["weights"]["vae"] == plain["weights"]["vae"]
    for less in (["--offload", "model"], ["--offload", "sequential"], ["--free-text-encoders"]):
        peak = planned(run, tiny_sd, *less)["peak"]
        assert peak["device"] < plain["peak"]["device"], less
        assert (peak["waiting"] > 0) is ("--offload" in less)
    large = planned(run, tiny_sd, "--size", "64x32", "--batch-size", "2")
    assert large["size"] == [64, 32]
    assert large["activations"]["decode"] == pytest.approx(16 * plain["activations"]["decode"], rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["-m", "scenes-mixture"], 2, "nothing to plan"),
        (["-m", "nobody/nothing"], 3, "nobody/nothing"),
        (["--size", "big"], 2, "--size must be WIDTHxHEIGHT"),
        (["--size", "0x5"], 2, "--size must be WIDTHxHEIGHT"),
        (["--size", "65x65"], 4, "refuses to be asked for 65x65"),
        (["--quantize", "torchao_int8"], 2, "needs the package torchao"),
        (["--offload", "model", "--free-text-encoders"], 2, "offload moves the text encoders away already"),
        (["-m", "scenes-ddpm", "--method", "null_text"], 2, "scenes-ddpm takes no"),
    ],
)
def test_what_cannot_be_planned_is_said(run: Run, arguments: list[str], code: int, says: str) -> None:
    if says.endswith("torchao"):
        from importlib.util import find_spec

        if find_spec("torchao"):
            pytest.skip("torchao is installed")
    ended = run("plan", *arguments)
    assert ended.code == code, ended.err
    assert says in ended.err


def test_the_plan_is_told(run: Run, tiny_sd: Path) -> None:
    ended = run("plan", "-m", tiny_sd, "--steps", "10")
    assert ended.code == 0
    assert "10 a picture, without early stopping" in ended.out
    assert "weights of unet" in ended.out
