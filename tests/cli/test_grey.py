"""A network of one channel: its pictures are grey, and a colour picture loses its colours, which is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unsample
from tests.cli.conftest import Run
from tests.problems import ddpm, saved, seeded
from unsample.verbs.inputs import GREYED

STEPS = ("--steps", 20)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    return saved(ddpm(in_channels=1, out_channels=1), tmp_path_factory.mktemp("grey") / "tiny")


def test_a_picture_comes_back_in_grey_and_lost_colours_are_said(grey: Path, run: Run) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(levels).save("colour.png")
    Image.fromarray(levels).convert("L").save("grey.png")
    ended = run("invert", "colour.png", "grey.png", "-m", grey, *STEPS, "-o", "out", "--force")
    assert ended.code == 0
    assert f"colour.png: {GREYED}" in ended.err
    assert f"grey.png: {GREYED}" not in ended.err
    colour, plain = (unsample.Inversion.load(f"out/{name}.safetensors") for name in ("colour", "grey"))
    assert torch.equal(colour.source, plain.source)
    assert torch.equal(colour.noise, plain.noise)
    assert run("reconstruct", "out/colour.safetensors", "-m", grey, "-o", "again").code == 0
    (again,) = Path("again").glob("*.png")
    made = np.asarray(Image.open(again))
    assert made.shape == (16, 16, 3)
    assert (made == made[..., :1]).all()
    assert run("measure", again, "out/colour.png").code == 0
    assert run("sample", "-m", grey, *STEPS, "-o", "sampled.png").code == 0


def test_tensors_are_seen_by_their_luminance(grey: Path) -> None:
    model = unsample.load(grey)
    images = torch.rand(1, 3, 16, 16, generator=seeded(0))
    seen = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    asked = {"method": "ddim", "num_inference_steps": 20, "progress": False}
    inversion, plain = (unsample.invert(model, pictures, **asked) for pictures in (images, seen))
    assert inversion.meta["notes"] == [GREYED]
    assert plain.meta["notes"] == [""]
    assert torch.allclose(inversion.noise, plain.noise, atol=1e-4)  # float32
    exact = torch.full((1, 3, 16, 16), 0.3)
    assert torch.equal(model.encode(exact), exact[:, :1] * 2 - 1)


def test_the_pipeline_of_diffusers_agrees(grey: Path, run: Run) -> None:
    ended = run("doctor", "--model", grey, "--steps", 4)
    assert ended.code == 0, ended.err
