"""`unsample sample`: each picture has its own seed, whatever the batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run


def pixels(path: Path | str) -> Any:
    """(H, W, 3) in 0 to 255."""
    return np.asarray(Image.open(path), np.int64)


def test_picture_n_has_seed_plus_n_whatever_the_batch(run: Run, tiny_ddpm: Path) -> None:
    arguments = ("sample", "-m", tiny_ddpm, "--steps", 3)
    ended = run(*arguments, "--num-images", 3, "--seed", 5, "--batch-size", 2, "-o", "some", "--json")
    assert [row["image"] for row in ended.json["images"]] == [f"some/sample-{seed}.png" for seed in (5, 6, 7)]
    assert [row["seed"] for row in ended.json["images"]] == [5, 6, 7]
    assert run(*arguments, "--seed", 7, "-o", "seven.png").code == 0
    assert np.abs(pixels("some/sample-7.png") - pixels("seven.png")).max() <= 1
    assert not np.array_equal(pixels("some/sample-5.png"), pixels("some/sample-6.png"))
    assert run("show", "some/sample-6.png", "--json").json["unsample"]["seed"] == 6


def test_the_picture_is_diffusers_own_for_that_seed(run: Run, tiny_sd: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    prompt, w = "a red circle", 3.0
    assert (
        run("sample", "-m", tiny_sd, "--steps", 4, "--prompt", prompt, "--guidance-scale", w, "-o", "a.png").code == 0
    )
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    theirs = pipeline(prompt, num_inference_steps=4, guidance_scale=w, generator=generator, output_type="np").images[0]
    assert np.abs(pixels("a.png") - theirs * 255).max() <= 1  # rounding to 8 bits


@pytest.mark.parametrize(
    ("output", "expected"),
    [("a.png", ["a-2.png", "a.png"]), ("deep/b.PNG", ["b-2.PNG", "b.PNG"]), ("out", ["sample-0.png", "sample-1.png"])],
)
def test_the_output_is_a_png_or_a_folder(run: Run, tiny_ddpm: Path, output: str, expected: list[str]) -> None:
    assert run("sample", "-m", tiny_ddpm, "--steps", 1, "--num-images", 2, "-o", output).code == 0
    folder = Path(output) if output == "out" else Path(output).parent
    assert sorted(os.listdir(folder)) == expected


def test_a_sample_is_recorded(run: Run, tiny_sd: Path) -> None:
    arguments = ("--steps", 2, "--prompt", "a red circle", "--negative-prompt", "blue", "--guidance-scale", 2)
    ended = run("sample", "-m", tiny_sd, *arguments, "-o", "a.png", "--json")
    (row,) = ended.json["images"]
    assert (row["input"], row["inversion"], row["nfe"], row["status"]) == (None, None, 4, "ok")
    settings = run("show", "a.png", "--json").json["unsample"]
    expected = {"verb": "sample", "prompt": "a red circle", "negative_prompt": "blue", "guidance_scale": 2}
    expected |= {"num_inference_steps": 2, "model": "tiny-sd", "seed": 0, "size": [16, 16]}
    assert {name: settings.get(name) for name in expected} == expected


def test_another_sampler_is_recorded_in_the_picture_and_its_cost_in_the_row(run: Run, tiny_ddpm: Path) -> None:
    arguments = ("sample", "-m", tiny_ddpm, "--steps", 3, "--json")
    ended = run(*arguments, "--method", "edict", "--set", "p=0.98", "-o", "a.png")
    assert (ended.json["method"], ended.json["images"][0]["nfe"]) == ("edict", 6)
    recorded = run("show", "a.png", "--json").json["unsample"]
    assert (recorded["method"], recorded["method_settings"]["p"]) == ("edict", 0.98)
    assert "inversion_guidance_scale" not in recorded
    assert run(*arguments, "-o", "b.png").json["method"] == "ddim"
    assert not np.array_equal(pixels("a.png"), pixels("b.png"))
    for method, code, said in (
        ("null_text", 2, "null_text does not sample: it plays back what it stored of a picture"),
        ("fixed_point", 2, "fixed_point does not sample: it finds noise"),
        ("edcit", 2, "did you mean 'edict'"),
    ):
        refused = run(*arguments, "--method", method, "-o", "c.png")
        assert (refused.code, os.path.exists("c.png")) == (code, False)
        assert said in refused.err
