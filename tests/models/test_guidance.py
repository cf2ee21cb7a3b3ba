"""Guidance: halves joined as in plain sampling, whatever asks for them."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

import unsample
from tests.problems import mixture, normal, smooth_network
from unsample.errors import Incompatible
from unsample.grid import grid_from_scheduler
from unsample.models.base import Condition
from unsample.models.guidance import Predict


def test_halves_asked_for_apart_join_to_what_plain_sampling_sees_clamped_or_not() -> None:
    model = mixture(scheduler=DDIMScheduler(clip_sample=True, clip_sample_range=0.6))
    embeds = model.embed(["left", "right"])
    for clip in ("off", "config"):
        grid = grid_from_scheduler(model.scheduler, 5, clip=clip)
        predict = Predict(model, grid, Condition(embeds[:1]), Condition(embeds[1:]), 3.0, 1)
        x = normal(1, 3, 8, 8) * 2
        plain = predict(x, 3)
        for pair in (predict.pair(x, 3), (predict.free(x, 3), predict.conditional(x, 3))):
            joined = predict.guided(*pair, 3)
            assert torch.allclose(joined.x0, plain.x0, atol=1e-12)
            assert torch.allclose(joined.eps, plain.eps, atol=1e-12)
        assert (float(plain.x0.abs().max()) <= 0.6) == (clip == "config")


def test_a_prompt_is_never_dropped_for_want_of_its_other_half() -> None:
    wrapped = unsample.wrap(smooth_network, DDIMScheduler(clip_sample=False), sample_shape=(3, 8, 8))
    given = {"latents": normal(1, 3, 8, 8), "prompt_embeds": torch.ones(1, 2, 4), "num_inference_steps": 3}
    for scales in ((0, 3.0), (3.0, 0)):
        with pytest.raises(Incompatible, match="negative_prompt_embeds"):
            unsample.invert(wrapped, **given, guidance_scale=scales[0], sampling_guidance_scale=scales[1])
    deaf = unsample.wrap(lambda x, t: 0 * x, DDIMScheduler(), sample_shape=(3, 8, 8))
    with pytest.raises(Incompatible, match="encoder_hidden_states was given, and the network takes no such argument"):
        unsample.invert(deaf, **given)
    half = Condition(torch.ones(1, 2, 4))
    with pytest.raises(Incompatible, match="both halves"):
        half.joined(Condition())


def test_frames_are_sampled_under_the_recorded_schedule() -> None:
    model = mixture()
    given = {"latents": normal(1, 3, 8, 8), "prompt": "left", "num_inference_steps": 5, "sampling_guidance_scale": 3.0}
    a = unsample.invert(model, **given, guidance_schedule="cosine")
    frames = unsample.interpolate(model, a, a, num_frames=2)
    assert torch.allclose(frames.latents[:1], unsample.reconstruct(model, a).latents, atol=1e-9)
    with pytest.raises(Incompatible, match="sampling guidance"):
        unsample.interpolate(model, a, unsample.invert(model, **given), num_frames=2)
