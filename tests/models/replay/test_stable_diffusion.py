"""The adapter of any pipeline gives, on Stable Diffusion, what the hand-written one gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

import unsample
from unsample.models.loading import BUNDLED_FOLDER, without_bars
from unsample.models.replay import ReplayModel

PROMPTS = ["a large red circle at the center on a white background", "a blue square"]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Any]:
    with without_bars("diffusers", "transformers"):
        made = StableDiffusionPipeline.from_pretrained(
            BUNDLED_FOLDER / "scenes-sd", safety_checker=None, dtype=torch.float32
        )
    for part in (made.unet, made.vae, made.text_encoder):
        part.requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def replayed(pipeline: Any) -> ReplayModel:
    return ReplayModel(pipeline, "scenes-sd")


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-6) -> None:
    """The largest difference against the largest number."""
    assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def test_it_is_the_same_model(replayed: ReplayModel) -> None:
    written = unsample.load("scenes-sd")
    same = ("sample_shape", "picture_size", "multiple", "takes_prompt", "num_classes", "guidance", "dtype", "device")
    assert [getattr(replayed, n) for n in same] == [getattr(written, n) for n in same]
    assert replayed.weights_sha256() == written.weights_sha256()
    assert replayed.at((4, 16, 16), 10).grid(10) == written.grid(10)


def test_network_and_autoencoder_answer_alike(replayed: ReplayModel) -> None:
    written, bound = unsample.load("scenes-sd"), replayed.at(replayed.sample_shape, 10)
    x = torch.randn(2, *replayed.sample_shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = bound.embed(PROMPTS), written.embed(PROMPTS)
    with torch.no_grad():
        for timestep in (bound.grid(10).timesteps[3], 0, 777):  # of its grid, and off it
            near(bound.network(x, timestep, ours), written.network(x, timestep, theirs))
        pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        near(bound.encode(pictures), written.encode(pictures))
        near(bound.decode(x), written.decode(x))


@pytest.mark.parametrize("size", [None, 96])
def test_guided_sampling_is_alike(replayed: ReplayModel, size: int | None) -> None:
    asked: dict[str, Any] = {"num_inference_steps": 4, "generator": 3, "guidance_scale": 3.0, "progress": False}
    asked |= {"negative_prompt": "a grey triangle", "height": size, "width": size}
    ours, theirs = (unsample.sample(m, PROMPTS, **asked) for m in (replayed, unsample.load("scenes-sd")))
    near(ours.latents, theirs.latents, 1e-5)  # four steps of rounding, at guidance 3


def test_an_inversion_of_one_is_played_back_by_the_other(replayed: ReplayModel) -> None:
    written = unsample.load("scenes-sd")
    picture = unsample.sample(written, PROMPTS[0], num_inference_steps=4, generator=0, progress=False).images
    inverted = unsample.invert(replayed, picture, PROMPTS[0], num_inference_steps=4, progress=False)
    ours, theirs = (unsample.reconstruct(m, inverted, progress=False).images for m in (replayed, written))
    near(ours, theirs, 1e-5)


def test_a_record_leaves_the_pipeline_and_random_numbers_as_they_were(pipeline: Any) -> None:
    before, forward = dict(vars(pipeline)), vars(pipeline.unet).get("forward")
    settings, state = dict(vars(pipeline.scheduler)), torch.random.get_rng_state()
    ReplayModel(pipeline, "scenes-sd").at((4, 16, 16), 3).embed(["a"])
    assert vars(pipeline) == before
    assert vars(pipeline.unet).get("forward") is forward
    assert {n: v for n, v in vars(pipeline.scheduler).items() if v is not settings[n]} == {}
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_interrupt_within_the_call_leaves_it_so_too(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    before = dict(vars(pipeline))
    with monkeypatch.context() as patch:
        patch.setattr(type(pipeline), "prepare_latents", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _ = ReplayModel(pipeline, "scenes-sd").study
    assert vars(pipeline) == before
    assert "forward" not in vars(pipeline.unet)
