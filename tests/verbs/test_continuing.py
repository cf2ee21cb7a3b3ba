"""`Inversion.to_diffusers`: the pipeline's own call makes what `reconstruct` makes, or it is refused by name."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler, EulerDiscreteScheduler

import unsample
from unsample.errors import BadInput, BadOption, Incompatible
from unsample.models.loading import BUNDLED_FOLDER
from unsample.verbs.continuing import Continuation

PROMPTS = [
    "a large red circle at the center on a white background",
    "a small blue star at the left on a black background",
]
STEPS = 6
pytestmark = pytest.mark.filterwarnings("ignore")


def pipeline(name: str, **more: Any) -> Any:
    """diffusers' own, of a bundled folder."""
    folder = BUNDLED_FOLDER / name
    pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def sd() -> tuple[Any, Any, torch.Tensor]:
    """Model, pipeline, two pictures."""
    model: Any = unsample.load("scenes-sd")
    pipe = pipeline("scenes-sd")
    pictures = unsample.sample(model, PROMPTS, generator=[0, 1], guidance_scale=3, num_inference_steps=STEPS).images
    return model, pipe, pictures


def called(pipe: Any, there: Continuation) -> torch.Tensor:
    """Its latents at the end."""
    pipe.scheduler = there.scheduler
    return pipe(latents=there.latents, **there.arguments, output_type="latent").images


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """To what float32 and another order of sums make of a few steps."""
    return float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"guidance_scale": 3.0, "method": "fixed_point", "negative_prompt": "a large blue star"},
        {"strength": 0.6},
        {"guidance_scale": 0.0},
        {"method": "ddim", "sampling_guidance_scale": 2.0},
    ],
    ids=["plain", "guided", "strength", "unconditional", "two guidances"],
)
def test_the_call_makes_the_reconstruction(sd: tuple[Any, Any, torch.Tensor], how: dict[str, Any]) -> None:
    model, pipe, pictures = sd
    inversion = unsample.invert(model, pictures, PROMPTS, num_inference_steps=STEPS, **how)
    there = inversion.to_diffusers()
    assert near(called(pipe, there), unsample.reconstruct(model, inversion).latents)
    there.scheduler.set_timesteps(len(there.scheduler.timesteps))
    names = {"pipe": pipe, "there": there}
    exec(there.code, names)
    assert len(names["images"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_it_does_on_grids_that_diffusers_own_ddim_leaves(spacing: str) -> None:
    model: Any = unsample.load(f"scenes-sd[timestep_spacing={spacing}]")
    pipe = pipeline("scenes-sd")
    picture = unsample.sample(model, PROMPTS[:1], num_inference_steps=7).images
    inversion = unsample.invert(model, picture, PROMPTS[:1], num_inference_steps=7)
    assert near(called(pipe, inversion.to_diffusers(model)), unsample.reconstruct(model, inversion).latents)
    with pytest.raises(Incompatible, match="DDIMScheduler"):
        inversion.to_diffusers(scheduler=model.scheduler)


def test_a_scheduler_of_ones_own_stays_where_it_walks_the_grid(sd: tuple[Any, Any, torch.Tensor]) -> None:
    model, pipe, pictures = sd
    inversion = unsample.invert(model, pictures, PROMPTS, num_inference_steps=STEPS)
    expected = unsample.reconstruct(model, inversion).latents
    config = pipe.scheduler.config if "beta_start" in pipe.scheduler.config else model.scheduler.config
    own = DDIMScheduler.from_config(config)
    assert near(called(pipe, inversion.to_diffusers(scheduler=own)), expected)
    assert own.num_inference_steps is None, "the one given is not touched"
    euler = EulerDiscreteScheduler.from_config(config, final_sigmas_type="sigma_min")  # DDIM's step in x / alpha
    there = inversion.to_diffusers(scheduler=euler)
    assert float(there.scheduler.init_noise_sigma) > 2
    end = called(pipe, there) * inversion.meta.grid.alpha[0]
    assert float((end - expected).abs().max()) < 2e-3  # its sigmas are float32
    others = DPMSolverMultistepScheduler.from_config(config), DDIMScheduler.from_config(config, steps_offset=0)
    for scheduler in (*others, EulerDiscreteScheduler.from_config(config)):
        with pytest.raises(Incompatible, match=type(scheduler).__name__):
            inversion.to_diffusers(scheduler=scheduler)


def test_a_flow_is_played_back_by_its_own_pipeline() -> None:
    model: Any = unsample.load("scenes-flow")
    picture = unsample.sample(model, PROMPTS[:1], guidance_scale=2, num_inference_steps=4).images
    inversion = unsample.invert(model, picture, PROMPTS[:1], num_inference_steps=4, guidance_scale=2.0)
    with pytest.raises(Incompatible, match="to_diffusers"):
        inversion.to_diffusers()
    pipe = pipeline("scenes-flow", text_encoder_3=None, tokenizer_3=None)
    expected = unsample.reconstruct(model, inversion).latents
    assert near(called(pipe, inversion.to_diffusers(model)), expected)
    own = inversion.to_diffusers(model, pipe.scheduler if hasattr(pipe.scheduler, "sigmas") else model.scheduler)
    assert near(called(pipe, own), expected)


def test_pixels_are_played_back_by_a_loop() -> None:
    model: Any = unsample.load("scenes-ddpm")
    made = unsample.sample(model, num_inference_steps=STEPS)
    inversion = unsample.invert(model, made.images, num_inference_steps=STEPS)
    pipe = pipeline("scenes-ddpm")
    names: dict[str, Any] = {"pipe": pipe, "there": inversion.to_diffusers()}
    exec(names["there"].code, names)
    assert near(names["x"], unsample.reconstruct(model, inversion).latents)


def test_what_no_call_plays_back_is_refused(sd: tuple[Any, Any, torch.Tensor]) -> None:
    model, _, pictures = sd

    def inverted(**how: Any) -> Any:
        return unsample.invert(model, pictures[:1], PROMPTS[:1], num_inference_steps=3, **how)

    for how, said in (
        ({"method": "edict"}, "edict keeps"),
        ({"method": "edit_friendly"}, "edit_friendly keeps"),
        ({"guidance_scale": 0.5}, "guidance out for w <= 1"),
        ({"sampling_guidance_scale": 3.0, "guidance_schedule": "linear"}, "schedule"),
    ):
        with pytest.raises(Incompatible, match=said):
            inverted(**how).to_diffusers()
    mixture: Any = unsample.load("scenes-mixture")
    of_mixture = unsample.invert(mixture, latents=torch.randn(1, 3, 32, 32), num_inference_steps=2)
    with pytest.raises(Incompatible, match="no pipeline"):
        of_mixture.to_diffusers()
    with pytest.raises(BadInput, match="scenes-ddpm"):
        inverted().to_diffusers(unsample.load("scenes-ddpm"))
    scheduler = inverted().to_diffusers().scheduler
    with pytest.raises(BadOption, match="num_inference_steps=3"):
        scheduler.set_timesteps(4)
    x = torch.zeros(1, 4, 16, 16)
    for t in scheduler.timesteps:
        x = scheduler.step(x, t, x).prev_sample
    with pytest.raises(BadOption, match="set_timesteps"):
        scheduler.step(x, 1, x)


def test_latents_are_in_the_networks_dtype() -> None:
    model: Any = unsample.load("scenes-sd", dtype="bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inversion = unsample.invert(model, latents=torch.randn(1, 4, 16, 16), num_inference_steps=2)
    assert inversion.noise.dtype is torch.float32
    there = inversion.to_diffusers()
    assert there.latents.dtype is torch.bfloat16
    assert there.scheduler.step(there.latents, 1, there.latents).prev_sample.dtype is torch.bfloat16
