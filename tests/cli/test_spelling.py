"""Options under the names that other tools give them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from tests.cli.conftest import Run
from unsample.cli.app import app
from unsample.cli.spelling import OTHERS, meant

UNKNOWN = {
    "sample --num_inference_steps 3": "--num-inference-steps",
    "sample --negative_prompt x": "--negative-prompt",
    "sample --cfg-scale 3": "--guidance-scale",
    "sample --cfg=3": "--guidance-scale",
    "sample --guidance 3": "--guidance-scale",
    "sample --num-images-per-prompt 2": "--num-images",
    "sample -n 2": "--num-images",
    "sample --out x": "--output",
    "sample --ddim_steps 3": "--num-inference-steps",
    "sample --random-seed 3": "--seed",
    "invert x.png --sampler ddim": "--method",
    "invert x.png --promt x": "--prompt",
    "invert x.png --Steps 3": "--steps",
    "edit x.png --src_prompt x": "--source-prompt",
    "edit x.png --denoising-strength 1": "--strength",
    "compare x.png --method ddim": "--methods",
    "interpolate a b --frames 3": "--num-frames",
    "reconstruct a --cfg 3": "--guidance-scale",
    "bench run quick --outdir x": "--output",
}


@pytest.mark.parametrize("line", UNKNOWN)
def test_an_option_of_another_tool_is_answered_with_ours(run: Run, line: str) -> None:
    ended = run(*line.split())
    assert ended.code == 2
    assert f"did you mean {UNKNOWN[line]}?" in ended.err


def test_an_option_that_is_like_no_other_is_refused_without_a_guess(run: Run) -> None:
    ended = run("sample", "--zzz", "3")
    assert ended.code == 2
    assert "no such option: --zzz; see 'unsample sample --help'" in ended.err


def test_every_name_in_the_table_is_that_of_an_option() -> None:
    command = get_command(app)
    verbs = list(command.commands.values())  # type: ignore[attr-defined]
    known = {name for verb in verbs for param in verb.params for name in param.opts}
    assert set(OTHERS) <= known


def test_the_nearest_come_first() -> None:
    assert meant("--stesp", ["--steps", "--seed", "--output"])[0] == "--steps"


@pytest.mark.parametrize("verb", ["invert", "edit", "sample", "compare", "bench run"])
def test_every_verb_that_takes_steps_takes_them_under_the_name_of_diffusers(verb: str) -> None:
    command = get_command(app)
    for word in verb.split():
        command = command.commands[word]  # type: ignore[attr-defined]
    assert ["--num-inference-steps", "--steps"] in [param.opts for param in command.params]


def test_both_names_of_the_steps_do_the_same(run: Run, tiny_ddpm: object) -> None:
    for name in ("--num-inference-steps", "--steps"):
        assert run("sample", "-m", tiny_ddpm, name, 3, "-o", f"{name}.png").code == 0
    a, b = (np.asarray(Image.open(f"{name}.png")) for name in ("--num-inference-steps", "--steps"))
    assert np.array_equal(a, b)
