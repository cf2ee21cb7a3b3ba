"""A few families by what they are the first to need; `tests/zoo` goes over all of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import unsample
from tests.zoo.table import ZOO
from unsample.errors import Incompatible
from unsample.models.replay import ReplayModel

QUIET: dict[str, Any] = {"num_inference_steps": 3, "progress": False}
TEXTS = ["a cat", "two dogs and a long day by the sea"]


@cache
def model(name: str) -> ReplayModel:
    return ReplayModel(ZOO[name].built(), name)


def bound(name: str) -> ReplayModel:
    own = model(name)
    return own.at(own.shape_of(ZOO[name].call.get("height"), ZOO[name].call.get("width")), 3)


@pytest.mark.parametrize("name", ["qwen_image", "z_image", "lumina2"])
def test_prompts_of_other_lengths_are_answered_in_a_batch_as_alone(name: str) -> None:
    asked = bound(name)
    x = torch.randn(2, *asked.sample_shape, generator=torch.Generator().manual_seed(0))
    t = asked.grid(3).timesteps[2]
    with torch.no_grad():
        both = asked.network(x, t, asked.embed(TEXTS))
        alone = torch.cat([asked.network(x[k : k + 1], t, asked.embed([TEXTS[k]])) for k in range(2)])
    assert torch.allclose(both, alone, atol=1e-5 * float(alone.abs().max()))
    assert not torch.allclose(both[0], asked.network(x, t, asked.embed(TEXTS[::-1]))[0])


def test_a_distilled_scale_goes_into_the_condition_in_one_pass() -> None:
    flux = model("flux")
    size: dict[str, Any] = {"height": 32, "width": 32, "generator": 0, **QUIET}
    low, high = (unsample.sample(flux, "a", guidance_scale=w, **size) for w in (1, 4))
    assert low.nfe == high.nfe == [3]
    assert not torch.allclose(low.latents, high.latents)
    with pytest.raises(Incompatible, match="negative prompt"):
        unsample.sample(flux, "a", negative_prompt="b", guidance_scale=4, **size)
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(Incompatible, match="cannot be guided away"):
        unsample.invert(flux, picture, "a", method="null_text", **QUIET)


def test_no_guidance_is_refused_by_name() -> None:
    with pytest.raises(Incompatible, match="has no guidance"):
        unsample.sample(model("flux_schnell"), "a", guidance_scale=2, height=32, width=32, **QUIET)


def test_classes_have_their_null_class() -> None:
    dit = model("dit")
    assert (dit.num_classes, dit.null_class, dit.takes_prompt) == (1000, 1000, False)
    made = unsample.sample(dit, class_labels=[7], guidance_scale=4, generator=0, **QUIET)
    assert made.nfe == [6]
    with pytest.raises(Incompatible, match="makes samples of"):
        unsample.sample(dit, class_labels=[7], height=64, width=64, **QUIET)


def test_gradients_reach_the_rows_of_the_prompt() -> None:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    method = unsample.methods.null_text(num_inner_steps=2, early_stop=None)
    inverted = unsample.invert(
        model("sdxl"),
        picture,
        "a cat",
        method=method,
        sampling_guidance_scale=3.0,
        num_inference_steps=2,
        progress=False,
    )
    assert inverted.backward == [4]
    fitted = inverted.state["unconditional"]
    assert not torch.equal(fitted[:, 0], fitted[:, 1])


def test_given_embeddings_are_saved_with_all_their_rows(tmp_path: Any) -> None:
    sd3 = bound("sd3")
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inverted = unsample.invert(model("sd3"), picture, prompt_embeds=sd3.embed(["a cat"]), **QUIET)
    assert inverted.more.keys() == {"prompt_embeds.pooled_projections"}
    inverted.save(tmp_path / "one.safetensors")
    again = unsample.Inversion.load(tmp_path / "one.safetensors")
    ours, theirs = (unsample.reconstruct(model("sd3"), i, progress=False).images for i in (again, inverted))
    assert torch.equal(ours, theirs)
    with pytest.raises(Incompatible, match="pooled_projections"):
        unsample.invert(model("sd3"), picture, prompt_embeds=sd3.embed(["a"]).prompt_embeds, **QUIET)


def test_between_two_prompts_all_rows_are_interpolated() -> None:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ends = [unsample.invert(model("sd3"), picture, text, **QUIET) for text in TEXTS]
    made = unsample.interpolate(model("sd3"), *ends, num_frames=3, progress=False)
    first = unsample.reconstruct(model("sd3"), ends[0], use="noise", progress=False)
    assert torch.allclose(made.images[0], first.images[0], atol=1e-5)
    assert made.images.shape == (3, 3, 32, 32)


def test_embeddings_fitted_to_one_length_are_played_back_beside_prompts_of_another(tmp_path: Any) -> None:
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    method = unsample.methods.null_text(num_inner_steps=1)
    asked: dict[str, Any] = {"method": method, "sampling_guidance_scale": 3.0, "num_inference_steps": 2}
    inverted = unsample.invert(model("cogview4"), pictures, TEXTS, progress=False, **asked)
    inverted.save(tmp_path / "two.safetensors")
    again = unsample.reconstruct(model("cogview4"), tmp_path / "two.safetensors", progress=False)
    assert again.status == ["ok", "ok"]
    other = "another prompt, of yet another length, longer than either of those before it was"
    assert unsample.edit(model("cogview4"), inverted, other, progress=False).status == ["ok", "ok"]


def test_a_pipeline_without_guidance_is_edited_without() -> None:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inverted = unsample.invert(model("flux_schnell"), picture, "a cat", **QUIET)
    assert unsample.edit(model("flux_schnell"), inverted, "a dog", progress=False).meta.guidance_scale == 1


def test_another_scheduler_in_the_pipeline_makes_another_grid() -> None:
    from diffusers import EulerDiscreteScheduler

    own = ReplayModel(ZOO["sd"].built(), "sd")
    before = own.at((4, 16, 16), 4).grid(4)
    own.pipeline.scheduler = EulerDiscreteScheduler.from_config(own.pipeline.scheduler.config, use_karras_sigmas=True)
    after = own.at((4, 16, 16), 4).grid(4)
    assert before.sigma != after.sigma
    assert own.at((4, 16, 16), 4).changes == []


def test_pictures_of_any_size_are_encoded_and_decoded_before_a_number_of_steps_is_known() -> None:
    picture = torch.rand(1, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    state = model("flux").encode(picture)
    assert state.shape == (1, 4, 24, 16)
    assert torch.equal(state, model("flux").at((4, 24, 16), 3).encode(picture))
    assert model("flux").decode(state).shape == picture.shape
