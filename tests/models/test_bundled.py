"""The trained models in the package: ordinary folders for diffusers and transformers, and what inversion does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import unsample
from tests.problems import normal, seeded
from unsample.datasets.scenes import Scenes
from unsample.models.loading import BUNDLED_FOLDER, check_manifest

PROMPT = "a large red circle at the center on a white background"


def folder(name: str, part: str) -> Path:
    """The folder of a bundled model; the test is skipped, and says so, only where it was never built."""
    path = BUNDLED_FOLDER / name
    if not (path / part).is_file():
        pytest.skip(f"{path} is not built yet (make models)")
    return path


@pytest.fixture(scope="module")
def sd() -> Path:
    return folder("scenes-sd", "model_index.json")


@pytest.fixture(scope="module")
def ddpm() -> Path:
    return folder("scenes-ddpm", "model_index.json")


@pytest.fixture(scope="module")
def clip() -> Path:
    return folder("scenes-clip", "config.json")


@pytest.fixture(scope="module")
def flow() -> Path:
    return folder("scenes-flow", "model_index.json")


@pytest.fixture(scope="module")
def flow_pipeline(flow: Path) -> Any:
    from diffusers import StableDiffusion3Pipeline

    left_out: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(flow, dtype=torch.float32, local_files_only=True, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def sd_pipeline(sd: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(sd, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("name", ["scenes-sd", "scenes-flow", "scenes-ddpm"])
def test_the_files_are_what_the_manifest_says(name: str) -> None:
    check_manifest(folder(name, "model_index.json"))


def test_everything_together_is_at_most_40_megabytes(sd: Path, flow: Path, ddpm: Path, clip: Path) -> None:
    size = sum(p.stat().st_size for f in (sd, flow, ddpm, clip) for p in f.rglob("*") if p.is_file())
    assert size <= 40 * 2**20
    assert sum(p.stat().st_size for p in (flow / "transformer").iterdir()) <= 8e6


def test_scenes_sd_loads_and_generates_with_diffusers_own_pipeline(sd_pipeline: Any) -> None:
    made = sd_pipeline(PROMPT, num_inference_steps=10, guidance_scale=5.0, generator=seeded(0), output_type="pt").images
    assert made.shape == (1, 3, 64, 64)
    assert made.isfinite().all()
    assert made.std() > 0.05  # a picture, not a constant


def test_scenes_ddpm_loads_and_generates_with_diffusers_own_pipeline(ddpm: Path) -> None:
    from diffusers import DDIMPipeline, DDPMPipeline

    pipeline = DDPMPipeline.from_pretrained(ddpm, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(generator=seeded(0), num_inference_steps=25, output_type="np").images
    assert made.shape == (1, 32, 32, 3)
    assert made.std() > 0.05
    fast = DDIMPipeline(unet=pipeline.unet, scheduler=pipeline.scheduler)
    fast.scheduler = type(fast.scheduler).from_config(fast.scheduler.config, clip_sample=False)
    fast.set_progress_bar_config(disable=True)
    theirs = fast(generator=seeded(3), num_inference_steps=10, eta=0.0, output_type="np").images
    ours = unsample.sample(unsample.load("scenes-ddpm"), num_inference_steps=10, generator=seeded(3)).images
    assert (ours.permute(0, 2, 3, 1) - torch.from_numpy(theirs)).abs().max() < 1e-3  # as below, without guidance


def test_scenes_clip_loads_with_transformers_and_tells_pictures_from_texts(clip: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(clip, local_files_only=True).eval()
    tokenizer = CLIPTokenizer.from_pretrained(clip, local_files_only=True)
    items = list(Scenes("tune", 8))
    tokens = tokenizer([i.prompt for i in items], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        scores = model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=torch.stack([i.image for i in items]) * 2 - 1,
        ).logits_per_image
    assert scores.shape == (8, 8)
    assert int((scores.argmax(1) == torch.arange(8)).sum()) >= 6  # chance is 1


def test_both_text_encoders_of_scenes_flow_are_the_text_tower_of_scenes_clip(flow: Path, clip: Path) -> None:
    from transformers import CLIPModel, CLIPTextModelWithProjection

    whole = CLIPModel.from_pretrained(clip, local_files_only=True)
    tower, projection = whole.text_model.state_dict(), whole.text_projection.weight
    encoder = CLIPTextModelWithProjection.from_pretrained(flow / "text_encoder", local_files_only=True)
    own = encoder.text_model.state_dict()
    assert all(torch.equal(own[name], tower[name]) for name in tower)
    assert torch.equal(encoder.text_projection.weight, projection)
    first, second = (flow / part / "model.safetensors" for part in ("text_encoder", "text_encoder_2"))
    assert first.read_bytes() == second.read_bytes()


def test_the_text_encoder_of_scenes_sd_is_the_text_tower_of_scenes_clip(sd: Path, clip: Path) -> None:
    from transformers import CLIPModel, CLIPTextModel

    tower = CLIPModel.from_pretrained(clip, local_files_only=True).text_model.state_dict()
    encoder = CLIPTextModel.from_pretrained(sd / "text_encoder", local_files_only=True).state_dict()
    encoder = {name.removeprefix("text_model."): value for name, value in encoder.items()}
    assert set(encoder) == set(tower)
    assert all(torch.equal(encoder[name], tower[name]) for name in tower)


@pytest.mark.parametrize("w", [1.0, 5.0])
def test_sampling_agrees_with_diffusers_own_pipeline(sd: Path, sd_pipeline: Any, w: float) -> None:
    model = unsample.load("scenes-sd")
    noise = normal(2, *model.sample_shape, dtype=torch.float32)
    prompts = [PROMPT, "a small striped blue star at the left on a black background"]
    ours = unsample.sample(model, prompts, num_inference_steps=10, guidance_scale=w, noise=noise)
    theirs = sd_pipeline(
        prompts, latents=noise, num_inference_steps=10, guidance_scale=w, eta=0.0, output_type="pt"
    ).images
    # Both float32; diffusers also steps in float32 with rounded alphas (1e-7 a step), and the trained network and the
    # decoder magnify it: a difference of half an 8-bit level would be 2e-3.
    assert (ours.images - theirs).abs().max() < 1e-3


@pytest.mark.parametrize("w", [1.0, 3.0])
def test_scenes_flow_agrees_with_diffusers_own_pipeline_and_draws_what_it_is_told(flow_pipeline: Any, w: float) -> None:
    model = unsample.load("scenes-flow")
    noise = normal(2, *model.sample_shape, dtype=torch.float32)
    prompts = [PROMPT, "a small striped blue star at the left on a black background"]
    ours = unsample.sample(model, prompts, num_inference_steps=10, guidance_scale=w, noise=noise)
    given = {"latents": noise, "num_inference_steps": 10, "guidance_scale": w, "output_type": "pt"}
    assert (ours.images - flow_pipeline(prompts, **given).images).abs().max() < 1e-4
    red = ours.images[0, :, 28:36, 28:36].mean((1, 2))  # the middle of the picture, then its corner
    assert float(red[0] - red[1:].max()) > 0.4
    assert float(ours.images[0, :, :6, :6].mean()) > 0.8
    assert float(ours.images[1, :, :6, :6].mean()) < 0.2


def test_a_pipeline_object_and_the_bundled_name_are_the_same_model(sd: Path, sd_pipeline: Any) -> None:
    assert unsample.load(sd_pipeline).weights_sha256() == unsample.load("scenes-sd").weights_sha256()


@pytest.mark.parametrize(
    ("name", "error", "better"),
    [
        ("scenes-sd", 1e-3, 100),  # measured at 20 steps: 5e-3 to 8e-3, and ratios of 240 to 730; more at 50 steps
        ("scenes-ddpm", 1e-3, 100),
        ("scenes-flow", 2e-4, 20),  # straighter paths: 5e-4 to 8e-4, and ratios of 45 to 63
    ],
)
def test_ddim_shows_the_failure_and_fixed_point_round_trips_many_times_better(
    name: str, error: float, better: float
) -> None:
    folder(name, "model_index.json")
    model = unsample.load(name)
    scenes = Scenes("tune", 1, size=model.picture_size[0])
    images = torch.stack([item.image for item in scenes])
    prompts = [item.prompt for item in scenes] if model.takes_prompt else None
    errors = {}
    for method in ("ddim", "fixed_point"):
        inversion = unsample.invert(model, images, prompts, method=method, num_inference_steps=20)
        again = unsample.reconstruct(model, inversion)
        errors[method] = float((again.latents - inversion.latents).square().mean())
    assert errors["ddim"] > error
    assert errors["fixed_point"] * better <= errors["ddim"], errors


def test_inverting_a_generated_picture_recovers_a_noise_near_the_one_it_was_made_of(sd: Path) -> None:
    model = unsample.load("scenes-sd")
    made = unsample.sample(model, PROMPT, num_inference_steps=20, generator=seeded(0))
    given = {"latents": made.latents, "prompt": PROMPT, "num_inference_steps": 20}
    inversion = unsample.invert(model, **given, method=unsample.methods.fixed_point(num_iters=6))
    assert inversion.status == ["ok"]
    assert float((inversion.noise - made.noise).square().mean()) < 0.1  # unrelated noises differ by 2
