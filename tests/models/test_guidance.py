"""Guidance: halves joined as in plain sampling, whatever asks for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import mixture, normal, smooth_network
from unsample.errors import Incompatible
from unsample.methods import gradient
from unsample.models.base import Condition
from unsample.models.guidance import Predict
from unsample.numbers.grid import grid_from_scheduler


def test_halves_asked_for_apart_join_to_what_plain_sampling_sees_clamped_or_not() -> None:
    model = mixture(scheduler=DDIMScheduler(clip_sample=True, clip_sample_range=0.6))
    embeds = model.embed(["left", "right"]).prompt_embeds
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


def test_where_nobody_listens_no_picture_is_worked_out_that_a_step_does_not_take() -> None:
    model = mixture(scheduler=DDIMScheduler(clip_sample=False))
    predict = Predict(model, grid_from_scheduler(model.scheduler, 5), model.embed(["left"]), None, 1.0, 1)
    found = predict(normal(1, 3, 8, 8), 3)
    assert callable(found._x0)
    assert isinstance(found.x0, Tensor)


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


def halves_that_fail(bound: float, free: float) -> Any:
    """A network whose answer under embeddings of ones, or of zeros, is no number at timestep 500 for picture 1."""

    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        output, of = torch.tanh(x), encoder_hidden_states.mean((1, 2))
        bright = (x.flatten(1).mean(1) > 2) & (int(t) == 500)
        for embedding, value in ((1, bound), (0, free)):
            output[bright & (of == embedding)] *= value
        return output

    return unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=(3, 8, 8))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("bound", "free", "half"),
    [(torch.nan, 1, "conditional"), (1, torch.inf, "unconditional"), (torch.inf, torch.nan, None)],
)
def test_the_half_of_a_guided_answer_that_was_not_finite_is_named(bound: float, free: float, half: str | None) -> None:
    model = halves_that_fail(bound, free)
    x = torch.cat([0.1 * normal(1, 3, 8, 8), normal(1, 3, 8, 8) + 9])
    given = {"prompt_embeds": torch.ones(1, 2, 4), "negative_prompt_embeds": torch.zeros(1, 2, 4)}
    for verb, start in ((unsample.invert, "latents"), (unsample.sample, "noise")):
        found = verb(model, **{start: x}, **given, num_inference_steps=4, guidance_scale=2.0)
        assert found.nonfinite_at[0] is None
        assert found.nonfinite_at[1] is not None
        assert found.nonfinite_at[1]["half"] == half
        assert found.nonfinite_at[1]["timestep"] == 500
    for w, of in ((1.0, bound), (0.0, free)):  # one half alone is asked
        failed = unsample.invert(model, latents=x, **given, num_inference_steps=4, guidance_scale=w).nonfinite_at[1]
        assert (failed and failed["half"]) == (None if of == 1 else "conditional" if w else "unconditional")


def test_a_gradient_that_was_not_finite_is_named_as_one() -> None:
    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        dark = (x.detach().flatten(1).mean(1) < 2).to(x)[:, None, None, None]
        return 0.1 * x + (x - x.detach() + dark).sqrt()  # 0 where it is bright, of infinite slope

    model = unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=(3, 8, 8))
    x = torch.cat([0.1 * normal(1, 3, 8, 8), normal(1, 3, 8, 8) + 9])
    with pytest.warns(UserWarning, match=r"picture 1 \(\w+\): the network's gradient was not finite at timestep"):
        found = unsample.invert(model, latents=x, method=gradient(3), num_inference_steps=4)
    assert found.nonfinite_at[0] is None
    assert found.nonfinite_at[1] is not None
    assert (found.nonfinite_at[1]["what"], found.nonfinite_at[1]["input_finite"]) == ("gradient", True)
