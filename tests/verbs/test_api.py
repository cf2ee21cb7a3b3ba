"""The verbs: batches, seeds, prompts, guidance, watching, what is refused, and what is left alone."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

import unsample
from tests.problems import (
    PROMPTS,
    broken_from,
    ddpm,
    mixture,
    mixture_picture,
    normal,
    rms,
    sd14,
    sd21,
    seeded,
    smooth_network,
)
from unsample.errors import BadInput, BadOption, Diverged, Incompatible, LostAt, UnsampleWarning
from unsample.methods import ddim, fixed_point

SHAPE = (3, 8, 8)

# Few steps and few iterations are enough for plumbing, and both are warned of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the noisiest of . grid points"),
    pytest.mark.filterwarnings("ignore:invert. fixed_point did not converge"),
]

# A matrix product or a convolution of another batch size rounds differently: 1e-16 or 1e-7 a call, and a walk of a
# few steps magnifies it a little.
BATCH64, BATCH32 = 1e-10, 2e-5


@pytest.fixture(scope="module")
def oracle() -> Any:
    return mixture()


@pytest.fixture(scope="module")
def text_model() -> Any:
    return unsample.load(sd14())


@pytest.fixture(scope="module")
def pixel_model() -> Any:
    return unsample.load(ddpm())


@pytest.fixture(params=["oracle", "text_model", "pixel_model"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def pictures(model: Any, count: int) -> Tensor:
    width, height = model.picture_size
    return torch.rand(count, 3, height, width, generator=seeded(7))


def prompts_for(model: Any, count: int) -> list[str] | None:
    return [PROMPTS[k % 2] for k in range(count)] if model.takes_prompt else None


def tolerance(model: Any) -> float:
    return BATCH64 if model.dtype is torch.float64 else BATCH32


# ---------------------------------------------------------------- a batch gives what single pictures give


def test_inverting_a_batch_gives_what_single_pictures_give(model: Any) -> None:
    images, prompts = pictures(model, 3), prompts_for(model, 3)
    for method in ("ddim", fixed_point(3)):
        together = unsample.invert(model, images, prompts, method=method, num_inference_steps=5)
        assert len(together) == 3
        for k in range(3):
            prompt = prompts and prompts[k]
            alone = unsample.invert(model, images[k : k + 1], prompt, method=method, num_inference_steps=5)
            assert rms(alone.noise[0] - together.noise[k]) < tolerance(model)
            assert (alone.nfe, alone.status) == (together.nfe[k : k + 1], together.status[k : k + 1])
            assert alone.meta["seeds"] == together.meta["seeds"][k : k + 1]
            for name in ("mean", "std", "kl", "lag1_correlation"):
                assert alone.health[0][name] == pytest.approx(together.health[k][name], abs=1e-4)


def test_playing_a_batch_back_gives_what_single_pictures_give(model: Any) -> None:
    images, prompts = pictures(model, 3), prompts_for(model, 3)
    inversion = unsample.invert(model, images, prompts, num_inference_steps=5)
    verbs: list[Any] = [unsample.reconstruct, lambda m, i: unsample.reconstruct(m, i, use="noise")]
    if model.takes_prompt:
        verbs.append(lambda m, i: unsample.edit(m, i, "right", guidance_scale=3))
    for verb in verbs:
        together = verb(model, inversion)
        assert together.images.shape == images.shape
        assert together.images.min() >= 0
        assert together.images.max() <= 1
        for k in range(3):
            assert rms(verb(model, inversion[k]).latents[0] - together.latents[k]) < tolerance(model)


def test_sampling_a_batch_gives_what_single_pictures_give(model: Any) -> None:
    prompts = prompts_for(model, 3)
    together = unsample.sample(model, prompts, num_inference_steps=5, generator=[seeded(5 + k) for k in range(3)])
    assert together.meta["seeds"] == [5, 6, 7]
    for k in range(3):
        alone = unsample.sample(model, prompts and prompts[k], num_inference_steps=5, generator=seeded(5 + k))
        assert torch.equal(alone.noise[0], together.noise[k])
        assert rms(alone.latents[0] - together.latents[k]) < tolerance(model)


def test_interpolating_a_batch_gives_what_single_pairs_give(oracle: Any) -> None:
    a, b = (
        unsample.invert(oracle, pictures(oracle, 4)[rows], prompt, num_inference_steps=5)
        for rows, prompt in ((slice(0, 2), "left"), (slice(2, 4), "right"))
    )
    together = unsample.interpolate(oracle, a, b, num_frames=3)
    assert together.images.shape == (6, *SHAPE)  # pair by pair
    for k in range(2):
        alone = unsample.interpolate(oracle, a[k], b[k], num_frames=3)
        assert rms(alone.latents - together.latents[3 * k : 3 * k + 3]) < BATCH64


# ---------------------------------------------------------------- seeds


def test_the_same_seed_gives_the_same_bits_and_another_one_others(model: Any) -> None:
    first, again, other = (
        unsample.sample(model, num_inference_steps=3, generator=seeded(seed)).images for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_generator_for_a_batch_is_split_into_recorded_seeds_drawn_from_it(oracle: Any) -> None:
    both = unsample.sample(oracle, list(PROMPTS), num_inference_steps=3, generator=seeded(3))
    expected = torch.randint(0, 2**32, (2,), generator=seeded(3)).tolist()
    assert both.meta["seeds"] == expected
    for k, seed in enumerate(expected):
        alone = unsample.sample(oracle, PROMPTS[k], num_inference_steps=3, generator=seeded(seed))
        assert torch.equal(alone.noise[0], both.noise[k])
    assert unsample.invert(oracle, both.images, generator=seeded(3)).meta["seeds"] == expected


def test_one_generator_for_one_picture_is_that_pictures_own(oracle: Any) -> None:
    made = unsample.sample(oracle, num_inference_steps=3, generator=seeded(9))
    assert made.meta["seeds"] == [9]
    assert torch.equal(made.noise[0].float(), torch.randn(SHAPE, generator=seeded(9)))


def test_without_a_generator_sample_draws_new_seeds_and_records_them(oracle: Any) -> None:
    first, second = (unsample.sample(oracle, list(PROMPTS), num_inference_steps=3) for _ in range(2))
    seeds = first.meta["seeds"] + second.meta["seeds"]
    assert len(set(seeds)) == 4
    again = unsample.sample(oracle, PROMPTS[1], num_inference_steps=3, generator=seeded(seeds[1]))
    assert torch.equal(again.noise[0], first.noise[1])


def test_an_inversion_is_seeded_by_a_number_and_each_picture_s_own_content(oracle: Any) -> None:
    images = pictures(oracle, 3)
    given = {"num_inference_steps": 3, "method": "random_noise"}
    default = unsample.invert(oracle, images, **given)
    assert default.meta["seeds"] == [0, 0, 0]  # whatever the place in the batch
    assert not torch.equal(default.noise[0], default.noise[1])  # no two pictures share a noise
    assert torch.equal(unsample.invert(oracle, images, **given, generator=0).noise, default.noise)
    assert torch.equal(unsample.invert(oracle, images[1:2], **given).noise[0], default.noise[1])
    assert not torch.equal(unsample.invert(oracle, images, **given, generator=1).noise, default.noise)
    one = unsample.invert(oracle, images[:1], **given, generator=seeded(4))
    assert one.meta["seeds"] == [4]
    assert torch.equal(one.noise[0].float(), torch.randn(SHAPE, generator=seeded(4)))


def test_noise_is_drawn_in_float32_on_the_cpu_whatever_the_model_computes_in(oracle: Any, text_model: Any) -> None:
    for model in (oracle, text_model):
        made = unsample.sample(model, num_inference_steps=2, generator=seeded(4))
        assert torch.equal(made.noise[0].float(), torch.randn(model.sample_shape, generator=seeded(4)))


def test_a_given_noise_takes_the_place_of_the_generator(oracle: Any) -> None:
    noise = normal(2, *SHAPE)
    made = unsample.sample(oracle, num_inference_steps=3, noise=noise)
    assert torch.equal(made.noise, noise)
    assert made.meta["seeds"] is None


@pytest.mark.parametrize("generator", [True, 5.0, [torch.Generator()], [1, 2.0], [1, 2, 3], "0", ["0", "1"], []])
def test_generators_that_do_not_fit_are_refused(oracle: Any, generator: Any) -> None:
    with pytest.raises(BadOption, match="generator must be"):
        unsample.invert(oracle, pictures(oracle, 2), generator=generator)
    with pytest.raises(BadOption, match="generator must be"):
        unsample.sample(oracle, list(PROMPTS), generator=generator)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**5000], ids=["-1", "2**63", "10**5000"])
def test_seeds_out_of_range_are_refused_by_both_verbs_that_draw(oracle: Any, seed: int) -> None:
    for given in (seed, [seed]):
        with pytest.raises(BadOption, match="a seed must be from 0 to 9223372036854775807"):
            unsample.sample(oracle, generator=given)
        with pytest.raises(BadOption, match="a seed must be from 0 to 9223372036854775807"):
            unsample.invert(oracle, pictures(oracle, 1), generator=given)


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor])
def test_sample_takes_a_whole_number_and_lists_of_them_as_invert_does(oracle: Any, kind: Any) -> None:
    made = unsample.sample(oracle, list(PROMPTS), num_inference_steps=2, generator=kind(7))
    assert made.meta["seeds"] == [7, 8]  # as `unsample sample --seed 7 --num-images 2`
    one = unsample.sample(oracle, PROMPTS[1], num_inference_steps=2, generator=seeded(8))
    assert torch.equal(made.noise[1], one.noise[0])
    listed = unsample.sample(oracle, "left", num_inference_steps=2, generator=[kind(8), kind(7)])
    assert torch.equal(listed.noise.flip(0), made.noise)
    given: dict[str, Any] = {"method": "random_noise", "num_inference_steps": 2}
    images = pictures(oracle, 2)
    both = unsample.invert(oracle, images, **given, generator=[kind(7), kind(9)])
    assert both.meta["seeds"] == [7, 9]
    for k, seed in enumerate((7, 9)):
        alone = unsample.invert(oracle, images[k : k + 1], **given, generator=kind(seed))
        assert alone.meta["seeds"] == [seed]
        assert torch.equal(alone.noise[0], both.noise[k])


def test_an_array_or_a_range_of_seeds_is_a_list_of_them(oracle: Any) -> None:
    wanted = unsample.sample(oracle, num_inference_steps=2, generator=[3, 4, 5])
    for seeds in (range(3, 6), np.arange(3, 6), torch.arange(3, 6), (3, 4, 5)):
        made = unsample.sample(oracle, num_inference_steps=2, generator=seeds)
        assert made.meta["seeds"] == [3, 4, 5]
        assert torch.equal(made.images, wanted.images)


def test_pictures_per_prompt_are_counted_as_in_diffusers(oracle: Any) -> None:
    made = unsample.sample(oracle, list(PROMPTS), num_inference_steps=2, num_images_per_prompt=2, generator=seeded(0))
    assert made.meta["prompt"] == ["left", "left", "right", "right"]
    one = unsample.sample(oracle, "left", num_inference_steps=2, generator=[seeded(0), seeded(1)])
    assert one.meta["prompt"] == ["left", "left"]  # a list of generators makes as many pictures of one prompt
    with pytest.raises(BadOption, match="a list of 4"):
        unsample.sample(oracle, list(PROMPTS), num_images_per_prompt=2, generator=[seeded(0), seeded(1)])
    for wrong in (0, 1.5):
        with pytest.raises(BadOption, match="num_images_per_prompt"):
            unsample.sample(oracle, num_images_per_prompt=wrong)
    again = unsample.sample(oracle, list(PROMPTS), num_inference_steps=2, num_images_per_prompt=2, noise=made.noise)
    assert torch.equal(again.latents, made.latents)  # each prompt twice in a row, as it was
    with pytest.raises(BadInput, match="noise holds 4 pictures, and 3 a prompt are 6"):
        unsample.sample(oracle, list(PROMPTS), num_images_per_prompt=3, noise=made.noise)
    for more in ({"generator": seeded(0)}, {"height": 8}, {"width": 8}):
        with pytest.raises(BadOption, match="leave generator, height and width out"):
            unsample.sample(oracle, list(PROMPTS), noise=made.noise[:2], **more)


def test_numbers_of_numpy_are_numbers(oracle: Any, tmp_path: Path) -> None:
    x = pictures(oracle, 2)

    def inverted(whole: Any, real: Any) -> unsample.Inversion:
        return unsample.invert(
            oracle,
            x,
            "left",
            method=unsample.methods.easyinv(base=unsample.methods.fixed_point(num_iters=whole(3)), eta=real(0.5)),
            num_inference_steps=whole(4),
            guidance_scale=real(1),
            strength=real(0.75),
            generator=whole(5),
        )

    found, plain = inverted(np.int64, np.float32), inverted(int, float)
    found[np.int64(1)].save(tmp_path / "one.safetensors")
    read = unsample.Inversion.load(tmp_path / "one.safetensors").meta
    assert {k: v for k, v in read.items() if k != "seconds"} == {
        k: v for k, v in plain[1].meta.items() if k != "seconds"
    }
    assert torch.equal(found.noise, plain.noise)
    assert len(unsample.sample(oracle, num_inference_steps=np.int32(2), num_images_per_prompt=np.int64(2))) == 2
    assert len(unsample.interpolate(oracle, plain[0], plain[1], num_frames=np.int64(3))) == 3


# ---------------------------------------------------------------- what people give


def test_pictures_can_be_paths_pil_images_lists_of_them_or_tensors(oracle: Any, tmp_path: Path) -> None:
    tensor = (pictures(oracle, 1) * 255).round() / 255
    pil = Image.fromarray((tensor[0] * 255).byte().permute(1, 2, 0).numpy())
    pil.save(tmp_path / "a.png")
    expected = unsample.invert(oracle, tensor, num_inference_steps=3)
    for given in (pil, [pil], tmp_path / "a.png", str(tmp_path / "a.png"), [tmp_path / "a.png"]):
        inversion = unsample.invert(oracle, given, num_inference_steps=3)
        assert torch.equal(inversion.noise, expected.noise)
        assert torch.equal(inversion.source, expected.source)
        assert inversion.meta["source_sizes"] == [[8, 8]]
    assert inversion.meta["names"] == ["a"]


@pytest.mark.parametrize(
    "images",
    [
        torch.full((1, 3, 8, 8), 1.1),
        torch.full((1, 3, 8, 8), -0.1),
        torch.full((1, 3, 8, 8), torch.nan),
        torch.zeros(3, 8, 8),
        torch.zeros(0, 3, 8, 8),
        torch.zeros(1, 4, 8, 8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        np.zeros((3, 8, 8), dtype=np.uint8),  # channels first
        [],
        5,
        "no such file.png",
    ],
)
def test_pictures_that_cannot_be_are_refused(oracle: Any, images: Any) -> None:
    with pytest.raises(BadInput):
        unsample.invert(oracle, images)


def test_sides_that_the_network_cannot_take_are_refused(text_model: Any) -> None:
    with pytest.raises(BadInput, match="multiples of 4"):
        unsample.invert(text_model, torch.rand(1, 3, 18, 16))
    for name in ("height", "width"):
        with pytest.raises(BadOption, match=f"{name} must be a multiple of 4"):
            unsample.sample(text_model, **{name: 18})


def test_pictures_of_other_sizes_and_shapes_go_through(text_model: Any, pixel_model: Any) -> None:
    for model in (text_model, pixel_model):
        inversion = unsample.invert(model, torch.rand(1, 3, 24, 16, generator=seeded(0)), num_inference_steps=2)
        assert unsample.reconstruct(model, inversion).images.shape == (1, 3, 24, 16)
        assert unsample.sample(model, num_inference_steps=2, height=24, width=16).images.shape == (1, 3, 24, 16)


def test_a_grey_tensor_is_taken_as_three_equal_channels(oracle: Any) -> None:
    grey = torch.rand(1, 1, 8, 8, generator=seeded(0))
    one, three = (unsample.invert(oracle, g, num_inference_steps=2) for g in (grey, grey.expand(-1, 3, -1, -1)))
    assert torch.equal(one.noise, three.noise)


def test_latents_take_the_place_of_images_and_of_the_encoder(text_model: Any) -> None:
    images = pictures(text_model, 2)
    by_picture = unsample.invert(text_model, images, "left", num_inference_steps=3)
    with torch.no_grad():
        latents = text_model.encode(images)
    by_latents = unsample.invert(text_model, latents=latents, prompt="left", num_inference_steps=3)
    assert torch.equal(by_latents.noise, by_picture.noise)
    assert by_latents.source is None
    assert by_latents.meta["names"] == ["latents-0", "latents-1"]


def test_latents_of_a_pixel_model_are_taken_as_they_are(pixel_model: Any) -> None:
    latents = 3 * normal(1, 3, 16, 16, dtype=torch.float32)  # beyond [-1, 1]
    inversion = unsample.invert(pixel_model, latents=latents, num_inference_steps=2)
    assert torch.equal(inversion.latents, latents)


@pytest.mark.parametrize(("given", "state"), [("float64", "float64"), ("float32", "float32"), ("float16", "float32")])
def test_float64_latents_make_the_whole_walk_float64(text_model: Any, given: str, state: str) -> None:
    latents = normal(1, *text_model.sample_shape).to(getattr(torch, given))
    inversion = unsample.invert(text_model, latents=latents, num_inference_steps=3, keep_trajectory=True)
    made = unsample.reconstruct(text_model, inversion)
    for tensor in (inversion.noise, inversion.trajectory, made.latents):
        assert tensor.dtype is getattr(torch, state)
    assert made.images.dtype is torch.float32


@pytest.mark.parametrize("latents", [torch.zeros(1, 4, 8, 8), torch.full((1, 3, 8, 8), torch.inf), [1.0], np.zeros(3)])
def test_latents_that_cannot_be_are_refused(oracle: Any, latents: Any) -> None:
    with pytest.raises(BadInput, match="latents"):
        unsample.invert(oracle, latents=latents)


def test_images_or_latents_one_of_the_two(oracle: Any) -> None:
    for given in ({}, {"images": pictures(oracle, 1), "latents": normal(1, *SHAPE)}):
        with pytest.raises(BadInput, match="one of the two"):
            unsample.invert(oracle, **given)


# ---------------------------------------------------------------- prompts and guidance


def test_prompt_embeds_take_the_place_of_the_prompt(text_model: Any, oracle: Any) -> None:
    for model in (text_model, oracle):
        with torch.no_grad():
            embeds, negative = model.embed(["left"]).prompt_embeds, model.embed(["right"]).prompt_embeds
        images = pictures(model, 2)
        words = {"prompt": "left", "negative_prompt": "right"}
        tensors = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
        for w in (1, 0, 3):
            a, b = (
                unsample.invert(model, images, num_inference_steps=3, guidance_scale=w, **given)
                for given in (words, tensors)
            )
            assert torch.equal(a.noise, b.noise)
            assert torch.equal(unsample.reconstruct(model, a).latents, unsample.reconstruct(model, b).latents)
            made, same = (
                unsample.sample(model, num_inference_steps=3, guidance_scale=w, generator=seeded(0), **given)
                for given in (words, tensors)
            )
            assert torch.equal(made.latents, same.latents)


def test_prompt_embeds_of_another_text_encoder_are_refused(text_model: Any) -> None:
    with torch.no_grad():
        embeds = text_model.embed(["left"]).prompt_embeds
    for wrong in (embeds[..., 1:], embeds[0]):
        for name in ("prompt_embeds", "negative_prompt_embeds"):
            with pytest.raises(BadOption, match=f"{name} of .* are"):
                unsample.sample(text_model, num_inference_steps=2, guidance_scale=2, **{name: wrong})


def test_a_network_that_answers_fewer_channels_is_refused() -> None:
    model = unsample.wrap(lambda x, t: x[:, :1], DDIMScheduler(), sample_shape=SHAPE)
    with pytest.raises(Incompatible, match=r"answered \(2, 1, 8, 8\)"):
        unsample.invert(model, latents=normal(2, *SHAPE, dtype=torch.float32), num_inference_steps=2)


def test_prompts_and_embeds_that_do_not_fit_are_refused(oracle: Any, text_model: Any) -> None:
    images, embeds = pictures(oracle, 2), oracle.embed(["left"]).prompt_embeds
    wrong: list[dict[str, Any]] = [
        {"prompt": "left", "prompt_embeds": embeds},
        {"prompt": ["left"] * 3},
        {"prompt": []},
        {"prompt": 5},
        {"prompt": [5, 6]},
        {"prompt": "left", "negative_prompt": ["a"] * 3, "guidance_scale": 2},
        {"prompt_embeds": embeds.expand(3, -1, -1)},
        {"prompt_embeds": embeds, "negative_prompt_embeds": torch.zeros(1, 2, 6)},
    ]
    for given in wrong:
        with pytest.raises(BadOption):
            unsample.invert(oracle, images, **given)
    for prompt in ([], 5):
        with pytest.raises(BadOption, match="prompt must be"):
            unsample.sample(oracle, prompt)
    with pytest.raises(Incompatible, match="takes no class_labels"):
        unsample.invert(text_model, pictures(text_model, 1), class_labels=[1])


def test_a_prompt_for_a_model_without_text_is_refused(pixel_model: Any) -> None:
    inversion = unsample.invert(pixel_model, pictures(pixel_model, 1), num_inference_steps=2)
    for verb in (
        lambda: unsample.sample(pixel_model, "a"),
        lambda: unsample.invert(pixel_model, pictures(pixel_model, 1), "a"),
        lambda: unsample.edit(pixel_model, inversion, "a"),
    ):
        with pytest.raises(Incompatible, match="takes no prompt"):
            verb()


@pytest.mark.parametrize(("w", "passes"), [(0, 1), (1, 1), (0.5, 2), (5, 2)])
def test_guidance_costs_one_pass_at_0_and_1_and_two_otherwise(text_model: Any, w: float, passes: int) -> None:
    inversion = unsample.invert(text_model, pictures(text_model, 2), "left", num_inference_steps=5, guidance_scale=w)
    assert inversion.nfe == [5 * passes] * 2
    assert inversion.backward == [0, 0]
    assert unsample.reconstruct(text_model, inversion, guidance_scale=w).nfe == [5 * passes] * 2
    assert unsample.edit(text_model, inversion, "right", guidance_scale=w).nfe == [5 * passes] * 2
    assert unsample.sample(text_model, "left", num_inference_steps=5, guidance_scale=w).nfe == [5 * passes]


def test_guidance_0_is_unconditional_and_1_has_no_use_for_the_negative_prompt(oracle: Any) -> None:
    def made(prompt: str, w: float, negative: str | None = None) -> Tensor:
        return unsample.sample(
            oracle, prompt, num_inference_steps=5, guidance_scale=w, negative_prompt=negative, generator=seeded(2)
        ).latents

    assert torch.equal(made("left", 0), made("right", 0))
    assert torch.equal(made("left", 0), made("", 1))
    assert torch.equal(made("left", 0, "right"), made("right", 1))
    assert torch.equal(made("left", 1), made("left", 1, "right"))
    assert not torch.equal(made("left", 3), made("left", 3, "right"))


def test_guidance_extrapolates_from_the_unconditional_prediction(text_model: Any) -> None:
    """One sampling step by hand: `eps_u + w (eps_c - eps_u)`, w below 1 too, unlike diffusers."""
    noise = normal(1, *text_model.sample_shape, dtype=torch.float32)
    steps = {}
    for w in (0, 1, 0.4, 6):
        made = unsample.sample(
            text_model, "left", num_inference_steps=2, guidance_scale=w, noise=noise, keep_trajectory=True
        )
        steps[w] = made.trajectory[1]
    for w in (0.4, 6):
        # the DDIM step is affine in eps; float32 rounding, times w
        assert rms(steps[w] - (steps[0] + w * (steps[1] - steps[0]))) < 1e-5


@pytest.mark.parametrize("w", [float("nan"), float("inf"), -1, "5", True, None])
def test_guidance_that_cannot_be_is_refused(oracle: Any, w: Any) -> None:
    with pytest.raises(BadOption, match="guidance_scale must be"):
        unsample.sample(oracle, guidance_scale=w)
    for name in ("guidance_scale", "sampling_guidance_scale") if w is not None else ():  # None: the method's own
        with pytest.raises(BadOption, match=f"{name} must be"):
            unsample.invert(oracle, pictures(oracle, 1), **{name: w})


def test_the_sampling_guidance_of_an_inversion_is_what_reconstruct_uses(oracle: Any) -> None:
    images = pictures(oracle, 1)
    plain = unsample.invert(oracle, images, "left", num_inference_steps=4)
    asked = unsample.invert(oracle, images, "left", num_inference_steps=4, sampling_guidance_scale=3)
    assert torch.equal(plain.noise, asked.noise)
    assert (plain.meta["sampling_guidance_scale"], asked.meta["sampling_guidance_scale"]) == (1.0, 3.0)
    assert asked.meta["guidance_scale"] == 1.0
    assert unsample.invert(oracle, images, guidance_scale=2, num_inference_steps=2).meta["sampling_guidance_scale"] == 2
    at_three = unsample.reconstruct(oracle, plain, guidance_scale=3)
    assert torch.equal(unsample.reconstruct(oracle, asked).latents, at_three.latents)
    assert at_three.meta["guidance_scale"] == 3


def test_a_prompt_that_is_too_long_is_truncated_with_a_warning_that_names_what_was_dropped(text_model: Any) -> None:
    with pytest.warns(UserWarning, match="the prompt has 20 tokens and .* reads 14; dropped: 'opqrst'"):
        unsample.sample(text_model, "abcdefghijklmnopqrst", num_inference_steps=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        unsample.invert(text_model, pictures(text_model, 1), "x" * 10_000, num_inference_steps=1)
    assert sum("dropped" in str(w.message) for w in said) == 1  # said once a call
    for prompt in ("", "ein Wörd", "漢字", "\U0001f600"):
        unsample.invert(text_model, pictures(text_model, 1), prompt, num_inference_steps=1)


# ---------------------------------------------------------------- edit


def test_an_edit_is_sampling_from_the_recovered_noise_with_another_prompt(oracle: Any) -> None:
    inversion = unsample.invert(oracle, pictures(oracle, 1), "left", num_inference_steps=5)
    edited = unsample.edit(oracle, inversion, "right", guidance_scale=2, negative_prompt="left")
    again = unsample.sample(
        oracle,
        "right",
        num_inference_steps=5,
        noise=inversion.noise,
        guidance_scale=2,
        negative_prompt="left",
    )
    assert torch.equal(edited.latents, again.latents)
    assert edited.meta["prompt"] == ["right"]
    assert edited.meta["source_prompt"] == ["left"]
    assert edited.meta["guidance_scale"] == 2
    assert inversion.meta["prompt"] == ["left"]  # untouched
    same = unsample.edit(oracle, inversion, "left", guidance_scale=1)
    assert torch.equal(same.latents, unsample.reconstruct(oracle, inversion).latents)


def test_an_edit_reaches_what_the_prompt_says(oracle: Any) -> None:
    """The mixture knows its truth: after the edit the picture belongs to a component of the other half."""
    image = mixture_picture(oracle, 0)
    inversion = unsample.invert(oracle, image, "left", method=fixed_point(), num_inference_steps=50)
    edited = unsample.edit(oracle, inversion, "right", guidance_scale=1)
    distances = (oracle.means - edited.latents).square().mean((1, 2, 3))
    assert int(distances.argmin()) >= 3
    kept = unsample.reconstruct(oracle, inversion)
    assert int((oracle.means - kept.latents).square().mean((1, 2, 3)).argmin()) == 0


def test_an_edit_needs_something_to_show(oracle: Any) -> None:
    inversion = unsample.invert(oracle, pictures(oracle, 1), num_inference_steps=2)
    with pytest.raises(BadOption, match="edit needs what the picture shall show"):
        unsample.edit(oracle, inversion)


# ---------------------------------------------------------------- strength


def test_strength_inverts_part_of_the_way_and_the_others_start_there(oracle: Any) -> None:
    images = pictures(oracle, 2)
    whole = unsample.invert(oracle, images, "left", num_inference_steps=10, keep_trajectory=True)
    part = unsample.invert(oracle, images, "left", num_inference_steps=10, strength=0.55, keep_trajectory=True)
    assert part.meta["stop_index"] == 5
    assert part.nfe == [5, 5]
    assert part.trajectory.shape[0] == 6
    assert torch.equal(part.noise, whole.trajectory[5])
    assert not part.health[0]["pure_noise"]
    assert whole.health[0]["pure_noise"]
    for verb in (
        lambda i: unsample.reconstruct(oracle, i),
        lambda i: unsample.reconstruct(oracle, i, use="noise"),
        lambda i: unsample.edit(oracle, i, "right"),
    ):
        assert verb(part).nfe[0] in (5, 10)  # guided edits count two
    other = unsample.invert(oracle, pictures(oracle, 2).flip(0), "left", num_inference_steps=10, strength=0.55)
    between = unsample.interpolate(oracle, part, other, num_frames=2)
    assert between.nfe == [5] * 4
    assert rms(unsample.reconstruct(oracle, part).latents[0] - between.latents[0]) < BATCH64


@pytest.mark.parametrize("strength", [0, -0.5, 1.01, float("nan"), "1", True, 0.05])
def test_strengths_that_cannot_be_are_refused(oracle: Any, strength: Any) -> None:
    with pytest.raises(BadOption, match="strength"):
        unsample.invert(oracle, pictures(oracle, 1), num_inference_steps=10, strength=strength)


# ---------------------------------------------------------------- interpolate


def test_the_ends_of_an_interpolation_are_the_reconstructions_from_the_noise(model: Any) -> None:
    images, prompts = pictures(model, 2), prompts_for(model, 2)
    a, b = (unsample.invert(model, images[k : k + 1], prompts and prompts[k], num_inference_steps=4) for k in range(2))
    frames = unsample.interpolate(model, a, b, num_frames=5)
    assert frames.images.shape[0] == len(frames.status) == 5
    for inversion, k in ((a, 0), (b, 4)):
        end = unsample.reconstruct(model, inversion, use="noise")
        assert torch.equal(frames.noise[k], inversion.noise[0])
        assert frames.meta["prompts"][k // 4] == inversion.meta["prompt"]
        assert rms(frames.latents[k] - end.latents[0]) < tolerance(model)
    assert rms(frames.latents[2] - frames.latents[0]) > 1e-3


def test_inversions_that_do_not_go_together_are_not_interpolated(oracle: Any) -> None:
    def inverted(**more: Any) -> Any:
        return unsample.invert(oracle, pictures(oracle, 1), "left", **{"num_inference_steps": 4, **more})

    plain = inverted()
    for other in (
        inverted(num_inference_steps=5),
        inverted(strength=0.5),
        inverted(sampling_guidance_scale=3),
        inverted(clip="config") if oracle.scheduler.config.clip_sample else inverted(num_inference_steps=6),
        unsample.invert(oracle, pictures(oracle, 2), num_inference_steps=4),
    ):
        with pytest.raises(Incompatible, match="cannot interpolate"):
            unsample.interpolate(oracle, plain, other)
    unsample.interpolate(oracle, plain, inverted(sampling_guidance_scale=3), guidance_scale=1, num_frames=2)
    for frames in (1, 0, True, 2.5):
        with pytest.raises(BadOption, match="num_frames"):
            unsample.interpolate(oracle, plain, plain, num_frames=frames)


def test_a_saved_inversion_may_be_named_by_its_path(oracle: Any, tmp_path: Path) -> None:
    inversion = unsample.invert(oracle, pictures(oracle, 1), "left", num_inference_steps=4)
    inversion.save(tmp_path / "one.safetensors")
    path = tmp_path / "one.safetensors"
    again = unsample.reconstruct(oracle, str(path))
    assert torch.equal(again.images, unsample.reconstruct(oracle, inversion).images)
    edits = [unsample.edit(oracle, i, "right") for i in (path, inversion)]
    assert torch.equal(edits[0].images, edits[1].images)
    assert len(unsample.interpolate(oracle, path, inversion, num_frames=3)) == 3
    with pytest.raises(BadInput, match="path of a saved one"):
        unsample.reconstruct(oracle, 3)  # type: ignore[arg-type]


def test_embeddings_on_one_side_only_are_not_interpolated() -> None:
    model = unsample.wrap(smooth_network, DDIMScheduler(), sample_shape=SHAPE)
    x = normal(1, *SHAPE, dtype=torch.float32)
    with_embeds = unsample.invert(model, latents=x, prompt_embeds=torch.ones(1, 2, 4), num_inference_steps=2)
    without = unsample.invert(model, latents=x, num_inference_steps=2)
    with pytest.raises(Incompatible, match="one inversion has embeddings"):
        unsample.interpolate(model, with_embeds, without)


# ---------------------------------------------------------------- another model


def test_another_model_is_refused_unless_allowed(oracle: Any) -> None:
    other = mixture(components=4)
    inversion = unsample.invert(oracle, pictures(oracle, 1), num_inference_steps=3)
    for verb in (
        lambda m, **k: unsample.reconstruct(m, inversion, **k),
        lambda m, **k: unsample.edit(m, inversion, "right", **k),
        lambda m, **k: unsample.interpolate(m, inversion, inversion, num_frames=2, **k),
    ):
        with pytest.raises(BadInput, match="was made by mixture .* allow_other_model"):
            verb(other)
        verb(other, allow_other_model=True)
        verb(mixture())  # the same weights elsewhere


def test_another_model_is_asked_in_its_own_terms() -> None:
    """A v-predicting model may play back what an epsilon-predicting one inverted: its output is read as v."""
    first, second = (
        mixture(scheduler=DDIMScheduler(clip_sample=False, prediction_type=kind))
        for kind in ("epsilon", "v_prediction")
    )
    inversion = unsample.invert(first, pictures(first, 1), num_inference_steps=10)
    one, other = (unsample.reconstruct(m, inversion, allow_other_model=True).latents for m in (first, second))
    assert rms(one - other) < 1e-9  # the same mixture, so the same pictures; conversions round


def test_a_model_of_other_channels_is_refused_even_when_allowed(oracle: Any, text_model: Any) -> None:
    inversion = unsample.invert(oracle, pictures(oracle, 1), num_inference_steps=2)
    with pytest.raises(BadInput, match="3 channels"):
        unsample.reconstruct(text_model, inversion, allow_other_model=True)


def test_use_is_the_record_or_the_noise(oracle: Any) -> None:
    inversion = unsample.invert(oracle, pictures(oracle, 1), num_inference_steps=2)
    with pytest.raises(BadOption, match="use must be 'record' or 'noise'"):
        unsample.reconstruct(oracle, inversion, use="all")


# ---------------------------------------------------------------- wrap


def test_a_plain_function_can_be_wrapped() -> None:
    model = unsample.wrap(lambda x, t: 0.3 * x, DDIMScheduler(), sample_shape=SHAPE)
    inversion = unsample.invert(model, torch.rand(2, 3, 8, 8, generator=seeded(0)), num_inference_steps=5)
    assert unsample.reconstruct(model, inversion).images.shape == (2, 3, 8, 8)
    assert unsample.sample(model, num_inference_steps=5, num_images_per_prompt=2).images.shape == (2, 3, 8, 8)
    with pytest.raises(Incompatible, match="takes no prompt"):
        unsample.sample(model, "a")
    with pytest.raises(Incompatible, match="give negative_prompt_embeds"):
        unsample.sample(model, guidance_scale=2)


def test_a_wrapped_network_is_given_prompt_embeds() -> None:
    model = unsample.wrap(smooth_network, DDIMScheduler(), sample_shape=SHAPE)
    x, embeds, negative = normal(2, *SHAPE, dtype=torch.float32), torch.ones(2, 4, 6), torch.zeros(1, 4, 6)
    free, bound, pushed = (
        unsample.invert(model, latents=x, num_inference_steps=4, **given).noise
        for given in (
            {},
            {"prompt_embeds": embeds},
            {"prompt_embeds": embeds, "negative_prompt_embeds": negative, "guidance_scale": 2},
        )
    )
    assert rms(free - bound) > 1e-2
    assert rms(bound - pushed) > 1e-2
    zero = unsample.invert(model, latents=x, num_inference_steps=4, prompt_embeds=embeds, guidance_scale=0)
    assert torch.equal(zero.noise, free)  # 0: unconditional, without embeddings
    with pytest.raises(Incompatible, match="give negative_prompt_embeds"):
        unsample.invert(model, latents=x, prompt_embeds=embeds, guidance_scale=2)
    with pytest.raises(BadOption, match="without prompt_embeds"):
        unsample.invert(model, latents=x, negative_prompt_embeds=negative, guidance_scale=2)


def test_a_wrapped_network_with_a_vae_gives_what_the_pipeline_gives(text_model: Any) -> None:
    model = unsample.wrap(text_model.unet, text_model.scheduler, vae=text_model.vae)
    assert (model.sample_shape, model.picture_size) == (text_model.sample_shape, text_model.picture_size)
    with torch.no_grad():
        embeds = text_model.embed(["left"]).prompt_embeds
    images = pictures(model, 2)
    a = unsample.invert(model, images, prompt_embeds=embeds, num_inference_steps=3)
    b = unsample.invert(text_model, images, "left", num_inference_steps=3)
    assert torch.equal(a.noise, b.noise)
    assert torch.equal(unsample.reconstruct(model, a).images, unsample.reconstruct(text_model, b).images)


def test_what_cannot_be_wrapped_is_refused() -> None:
    with pytest.raises(Incompatible, match="needs a callable network"):
        unsample.wrap("unet", DDIMScheduler())
    with pytest.raises(Incompatible, match="give sample_shape"):
        unsample.wrap(lambda x, t: x, DDIMScheduler())


# ---------------------------------------------------------------- classes


class Classes(torch.nn.Module):
    """A class-conditional network."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"sample_size": 8, "in_channels": 3, "num_class_embeds": 4}
        self.asked: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        self.asked.append(class_labels.tolist())
        return torch.tanh(x + class_labels[:, None, None, None])


def test_class_labels_go_to_the_network_and_come_back_from_a_file(tmp_path: Path) -> None:
    network = Classes()
    model = unsample.wrap(network, DDIMScheduler())
    images = torch.rand(2, 3, 8, 8, generator=seeded(0))
    inversion = unsample.invert(model, images, class_labels=[1, 2], num_inference_steps=2)
    assert network.asked == [[1, 2]] * 2
    inversion.save(tmp_path / "a.safetensors")
    unsample.reconstruct(model, unsample.Inversion.load(tmp_path / "a.safetensors"))
    assert network.asked[-1] == [1, 2]
    assert unsample.edit(model, inversion, class_labels=3, guidance_scale=1).meta["source_prompt"] == [None, None]
    assert network.asked[-1] == [3, 3]
    again = unsample.edit(model, inversion, class_labels=3)  # nothing unconditional to guide away from
    assert again.meta["guidance_scale"] == 1
    unsample.sample(model, class_labels=[0, 3], num_images_per_prompt=2, num_inference_steps=1)
    assert network.asked[-1] == [0, 0, 3, 3]
    unsample.interpolate(model, inversion[0], inversion[0], num_frames=3)
    assert network.asked[-1] == [1, 1, 1]
    with pytest.raises(Incompatible, match="class_labels"):
        unsample.interpolate(model, inversion[0], inversion[1])
    for labels in ([4, 0], [-1, 0]):
        with pytest.raises(BadOption, match="0 to 3"):
            unsample.invert(model, images, class_labels=labels)


# ---------------------------------------------------------------- watching


def test_the_callback_sees_every_step_and_may_replace_the_latents(oracle: Any) -> None:
    seen: list[tuple[int, int]] = []

    def look(model: Any, step: int, timestep: int, given: dict[str, Tensor]) -> None:
        assert model is oracle
        seen.append((step, timestep))

    images = pictures(oracle, 2)
    inversion = unsample.invert(oracle, images, num_inference_steps=4, callback_on_step_end=look)
    assert seen == [(0, 0), (1, 250), (2, 500), (3, 750)]
    seen.clear()
    unsample.reconstruct(oracle, inversion, callback_on_step_end=look)
    assert seen == [(0, 750), (1, 500), (2, 250), (3, 0)]
    still = lambda model, step, timestep, given: {"latents": torch.zeros_like(given["latents"])}  # noqa: E731
    changed = unsample.invert(oracle, images, num_inference_steps=4, callback_on_step_end=still, keep_trajectory=True)
    assert changed.noise.abs().max() == 0
    assert changed.trajectory[1:].abs().max() == 0
    for verb in (unsample.reconstruct, lambda m, i, **k: unsample.interpolate(m, i, i, **k)):
        assert verb(oracle, inversion, callback_on_step_end=still).latents.abs().max() == 0
    assert unsample.sample(oracle, num_inference_steps=2, callback_on_step_end=still).latents.abs().max() == 0


def test_trajectories_hold_every_point_from_start_to_end(oracle: Any) -> None:
    inversion = unsample.invert(oracle, pictures(oracle, 2), num_inference_steps=4, keep_trajectory=True)
    assert inversion.trajectory.shape == (5, 2, *SHAPE)
    assert torch.equal(inversion.trajectory[0], inversion.latents)  # clean first
    assert torch.equal(inversion.trajectory[-1], inversion.noise)
    made = unsample.reconstruct(oracle, inversion, keep_trajectory=True)
    assert made.trajectory.shape == (5, 2, *SHAPE)
    assert torch.equal(made.trajectory[0], inversion.noise)  # noisiest first
    assert torch.equal(made.trajectory[-1], made.latents)
    assert unsample.invert(oracle, pictures(oracle, 1), num_inference_steps=2).trajectory is None


@pytest.mark.parametrize("method", ["ddim", fixed_point(3), fixed_point(3, 1e-9)])
def test_memory_does_not_grow_with_the_number_of_steps_unless_the_trajectory_is_kept(method: Any) -> None:
    """Every state of the walk, and all that the network made, is followed: how many of them live at once."""
    followed: list[weakref.ref[Tensor]] = []
    most = 0

    def network(x: Tensor, t: Tensor) -> Tensor:
        nonlocal most
        output = smooth_network(x, t)
        followed.append(weakref.ref(output))
        most = max(most, sum(r() is not None for r in followed))
        return output

    def seen(model: Any, k: int, t: int, given: dict[str, Tensor]) -> None:
        followed.append(weakref.ref(given["latents"]))

    def at_once(steps: int, **more: Any) -> int:
        nonlocal most
        followed.clear()
        most = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge
            given = {"method": method, "num_inference_steps": steps, "callback_on_step_end": seen}
            unsample.invert(wrapped(network), latents=x, **given, **more)
        return most

    x = 0.1 * normal(2, *SHAPE, dtype=torch.float32)
    assert at_once(40) == at_once(5) < 10
    assert at_once(40, keep_trajectory=True) >= at_once(5, keep_trajectory=True) + 35


# ---------------------------------------------------------------- when pictures stop being finite


def bright(x: Tensor) -> Tensor:
    """The pictures of the batch whose first pixel is above 5: the test marks them so."""
    return x[:, 0, 0, 0] > 5


def marked(count: int, mark: int | None) -> Tensor:
    x = 0.3 * normal(count, *SHAPE, dtype=torch.float32)
    if mark is not None:
        x[mark, 0, 0, 0] = 50
    return x


def wrapped(network: Any) -> Any:
    return unsample.wrap(network, DDIMScheduler(clip_sample=False), sample_shape=SHAPE)


@pytest.mark.parametrize("method", ["ddim", fixed_point(4), fixed_point(4, 1e-6), ddim(eps_at="source")])
def test_a_picture_that_diverges_leaves_the_others_alone_bit_for_bit(method: Any) -> None:
    x = marked(3, 1)
    good = unsample.invert(wrapped(broken_from(2000)), latents=x, method=method, num_inference_steps=10)
    model = wrapped(broken_from(500, bright))
    with pytest.warns(UserWarning, match=r"invert: picture 1 diverged at step \d of 10 \(timestep \d00\)") as lost:
        inversion = unsample.invert(model, latents=x, method=method, num_inference_steps=10)
    assert [s == "diverged" for s in inversion.status] == [False, True, False]
    assert not inversion.noise[1].isfinite().all()
    assert inversion.health[1]["std"] is None
    for k in (0, 2):  # the network works elementwise, so there is nothing to round differently
        assert torch.equal(inversion.noise[k], good.noise[k])
        assert inversion.nfe[k] == good.nfe[k]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = unsample.reconstruct(model, inversion)
    assert made.status == ["ok", "diverged", "ok"]
    assert made.pil()[1] is None
    assert inversion.lost_at[::2] == made.lost_at[::2] == [None, None]
    assert inversion[1].lost_at == [inversion.lost_at[1]]
    assert f"picture 1 diverged at {inversion.lost_at[1]};" in str(lost[0].message)
    assert made.lost_at[1] == LostAt("step", 1, 10, 900)
    assert any("reconstruct: picture 1 diverged at step 1 of 10 (timestep 900)" in str(w.message) for w in said)


@pytest.mark.parametrize("method", ["ddim", fixed_point(3)])
def test_when_every_picture_diverges_the_message_names_the_step(method: Any) -> None:
    model = wrapped(broken_from(120))
    with pytest.raises(Diverged, match=r"step 7 of 50 \(timestep 120\)"):
        unsample.invert(model, latents=marked(2, None), method=method, num_inference_steps=50)


def test_sampling_that_diverges_names_the_step_too() -> None:
    late = wrapped(lambda x, t: x * torch.nan if int(t) < 850 else 0.1 * x)
    with pytest.raises(Diverged, match=r"sample with .* diverged: .* step 8 of 50 \(timestep 840\)"):
        unsample.sample(late, num_inference_steps=50, noise=marked(2, None))


def test_the_step_that_is_named_is_that_of_the_last_picture_to_go() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(((int(t) >= 500) | bright(x))[:, None, None, None], torch.nan, 0.1 * x)

    with pytest.raises(Diverged, match=r"step 6 of 10 \(timestep 500\)") as lost:
        unsample.invert(wrapped(network), latents=marked(2, 0), num_inference_steps=10)
    assert lost.value.lost_at == [LostAt("step", 1, 10, 0), LostAt("step", 6, 10, 500)]


def test_infinite_counts_as_not_finite() -> None:
    with pytest.raises(Diverged):
        unsample.invert(wrapped(lambda x, t: x * 1e38), latents=marked(1, None), num_inference_steps=10)


def test_a_decoder_that_overflows_is_a_diverged_picture(text_model: Any) -> None:
    model = unsample.wrap(text_model.unet, text_model.scheduler, vae=text_model.vae)
    decode = model.decode
    model.decode = lambda latents: decode(latents) * torch.tensor([1.0, torch.nan])[:, None, None, None]
    made = unsample.sample(model, prompt_embeds=torch.zeros(1, 4, 32), num_images_per_prompt=2, num_inference_steps=2)
    assert made.status == ["ok", "diverged"]
    assert made.lost_at == [None, LostAt("decoder")]
    model.decode = lambda latents: decode(latents) * torch.nan
    with pytest.raises(Diverged, match="the decoder's output is not finite for any picture"):
        unsample.sample(model, prompt_embeds=torch.zeros(1, 4, 32), num_inference_steps=2)


def test_a_constant_picture_made_of_one_that_is_not_is_said(oracle: Any) -> None:
    model = wrapped(lambda x, t: 0.1 * x)
    inversion = unsample.invert(model, torch.rand(2, 3, 8, 8, generator=seeded(0)), num_inference_steps=3)
    black = lambda *_: {"latents": torch.full((2, 3, 8, 8), -1.0)}  # noqa: E731
    with pytest.warns(UserWarning, match="came out constant although its source is not"):
        unsample.reconstruct(model, inversion, callback_on_step_end=black)
    flat = unsample.invert(model, torch.full((2, 3, 8, 8), 0.5), num_inference_steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unsample.reconstruct(model, flat, callback_on_step_end=black)


@pytest.mark.filterwarnings("default:.*did not converge")
def test_a_batch_is_warned_of_once_and_every_picture_is_named() -> None:
    """Whatever the warning: lost, not converged, of a strange noise, constant."""

    def said(call: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            call()
        ours = [w.message for w in found if isinstance(w.message, UnsampleWarning) and w.message.pictures]
        assert ["picture" in w.told([f"p{k}" for k in range(9)]) for w in ours] == [False] * len(ours)  # other names
        assert [str(w) for w in ours] == [w.told() for w in ours]
        return [str(w.message) for w in found if "picture" in str(w.message)]

    x = marked(4, 1)
    x[2, 0, 0, 0] = 50
    lost = wrapped(broken_from(500, bright))
    (told,) = said(lambda: unsample.invert(lost, latents=x, num_inference_steps=10))
    at = r"diverged at step \d of 10 \(timestep \d00\)"
    assert re.fullmatch(rf"invert: picture 1 {at}, picture 2 {at}; the others are untouched", told)
    inversion = unsample.invert(wrapped(broken_from(2000)), latents=x, num_inference_steps=10)
    (told,) = said(lambda: unsample.reconstruct(lost, inversion, allow_other_model=True))
    assert "reconstruct: picture 1 diverged at step" in told
    assert ", picture 2 diverged at step" in told
    short = {"method": fixed_point(1, 1e-12), "num_inference_steps": 5}
    (told,) = said(lambda: unsample.invert(wrapped(smooth_network), latents=marked(3, None), **short))
    assert [f"picture {k} (largest" in told for k in range(3)] == [True] * 3
    odd = {"method": "belm", "num_inference_steps": 5}
    (told,) = said(lambda: unsample.invert(wrapped(lambda x, t: 0.1 * x), latents=0 * marked(2, None), **odd))
    assert "for picture 0, 0 for picture 1, not 1" in told
    model = wrapped(lambda x, t: 0.1 * x)
    inversion = unsample.invert(model, torch.rand(2, 3, 8, 8, generator=seeded(0)), num_inference_steps=3)
    black = lambda *_: {"latents": torch.full((2, 3, 8, 8), -1.0)}  # noqa: E731
    (told,) = said(lambda: unsample.reconstruct(model, inversion, callback_on_step_end=black))
    assert told == "reconstruct: picture 0, picture 1 came out constant although its source is not"


def test_prompts_that_are_too_long_are_warned_of_together(text_model: Any) -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        unsample.sample(text_model, ["abcdefghijklmnopqrst", "ABCDEFGHIJKLMNOPqrstu"], num_inference_steps=2)
    (told,) = [str(w.message) for w in found if "dropped" in str(w.message)]
    assert "dropped: 'opqrst'; the prompt has 21 tokens" in told


# ---------------------------------------------------------------- records, and what is left alone


def test_meta_says_how_it_was_made(text_model: Any) -> None:
    inversion = unsample.invert(
        text_model, pictures(text_model, 1), "left", method=fixed_point(2, 0.5), num_inference_steps=3, clip="config"
    )
    meta = inversion.meta
    assert meta["model"] == {
        "id": text_model.id,
        "family": "latent",
        "sha256": text_model.weights_sha256(),
        "dtype": "torch.float32",
    }
    assert meta["method"] == {"name": "fixed_point", "settings": {"num_iters": 2, "tol": 0.5, "start": "source"}}
    assert meta["grid"]["meta"]["clip"] == "config"
    assert meta["grid"]["meta"]["scheduler"] == "PNDMScheduler"
    assert meta["stored"] == {"what": "noise", "size_over_noise": 1.0, "fitted_to_picture": False}
    assert set(meta["versions"]) == {"unsample", "torch", "diffusers", "transformers"}
    assert (meta["prompt"], meta["num_inference_steps"], meta["strength"]) == (["left"], 3, 1.0)
    assert len(meta["residual"]) == 1
    assert meta["residual"][0] > 0
    assert unsample.invert(text_model, pictures(text_model, 1), num_inference_steps=3).meta["residual"] is None


def verbs(model: Any) -> None:
    images, prompt = pictures(model, 2), "left" if model.takes_prompt else None
    inversion = unsample.invert(model, images, prompt, method=fixed_point(2), num_inference_steps=2)
    unsample.reconstruct(model, inversion)
    unsample.interpolate(model, inversion, inversion, num_frames=2)
    unsample.sample(model, prompt, num_inference_steps=2)
    if prompt:
        unsample.edit(model, inversion, "right", guidance_scale=2)


@pytest.mark.usefixtures("global_rng_unchanged")
def test_no_verb_changes_anything_global(model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verbs(model)


def test_no_verb_changes_its_arguments(oracle: Any) -> None:
    images, latents = pictures(oracle, 1), normal(1, *SHAPE)
    kept = images.clone(), latents.clone()
    unsample.invert(oracle, images, num_inference_steps=2)
    inversion = unsample.invert(oracle, latents=latents, num_inference_steps=2)
    noise = inversion.noise.clone()
    unsample.reconstruct(oracle, inversion)
    unsample.sample(oracle, noise=inversion.noise, num_inference_steps=2)
    assert torch.equal(images, kept[0])
    assert torch.equal(latents, kept[1])
    assert torch.equal(inversion.noise, noise)


def test_no_gradient_is_kept_whatever_the_models_parameters_want() -> None:
    pipeline = sd14()
    assert next(pipeline.unet.parameters()).requires_grad  # as diffusers leaves it
    inversion = unsample.invert(pipeline, pictures(unsample.load(pipeline), 1), "left", num_inference_steps=2)
    made = unsample.reconstruct(pipeline, inversion)
    frames = unsample.interpolate(pipeline, inversion, inversion, num_frames=2)
    for tensor in (inversion.noise, inversion.latents, made.images, made.latents, frames.latents):
        assert not tensor.requires_grad


def test_options_are_checked_before_the_network_is_asked() -> None:
    def never(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    model, images = wrapped(never), torch.rand(1, 3, 8, 8)
    wrong: list[dict[str, Any]] = [
        {"method": "ddmi"},
        {"method": 5},
        {"num_inference_steps": 0},
        {"num_inference_steps": 1001},
        {"guidance_scale": float("nan")},
        {"strength": 2},
        {"clip": "on"},
        {"prompt": "a"},
        {"generator": "5"},
        {"class_labels": [1]},
    ]
    for given in wrong:
        with pytest.raises(BadOption):
            unsample.invert(model, images, **given)
    with pytest.raises(BadOption, match="did you mean 'ddim'"):
        unsample.invert(model, images, method="ddmi")


# ---------------------------------------------------------------- Stable Diffusion's layouts against diffusers


@pytest.mark.parametrize("make", [sd14, sd21])
@pytest.mark.parametrize("w", [1.0, 5.0])
def test_sampling_equals_diffusers_own_pipeline(make: Any, w: float) -> None:
    pipeline = make()
    ours = unsample.load(pipeline)
    noise = normal(2, *ours.sample_shape, dtype=torch.float32)
    made = unsample.sample(ours, list(PROMPTS), num_inference_steps=10, guidance_scale=w, noise=noise)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        list(PROMPTS), latents=noise, num_inference_steps=10, guidance_scale=w, eta=0.0, output_type="pt"
    ).images
    assert made.images.shape == theirs.shape
    # float32 throughout; diffusers rounds alphas to float32 and takes its steps in float32: 1e-7 a step, times w
    assert (made.images - theirs).abs().max() < 1e-4


def test_a_pixel_model_samples_what_diffusers_ddim_pipeline_samples(pixel_model: Any) -> None:
    from diffusers import DDIMPipeline

    scheduler = DDIMScheduler.from_config(pixel_model.scheduler.config, clip_sample=False)
    pipeline = DDIMPipeline(unet=pixel_model.unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(batch_size=1, generator=seeded(3), num_inference_steps=10, eta=0.0, output_type="np").images
    ours = unsample.sample(pixel_model, num_inference_steps=10, generator=seeded(3))
    assert np.abs(ours.images.permute(0, 2, 3, 1).numpy() - theirs).max() < 1e-4  # float32, as above


# ---------------------------------------------------------------- what people give that does not fit


@pytest.mark.parametrize("method", ["edict", "bdia", "belm", fixed_point(2)])
def test_guidance_that_differs_both_ways_is_warned_of_where_the_method_needs_it_to_be_the_same(
    method: Any, oracle: Any
) -> None:
    given = {"method": method, "num_inference_steps": 4}
    with pytest.warns(UserWarning, match=r"accounts for guidance only if it is the same both ways \(inverting 1"):
        unsample.invert(oracle, pictures(oracle, 1), "left", sampling_guidance_scale=3, **given)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        inversion = unsample.invert(oracle, pictures(oracle, 1), "left", guidance_scale=3, **given)
        unsample.reconstruct(oracle, inversion)
        unsample.edit(oracle, inversion, "right", guidance_scale=5)
    assert not [w for w in told if "both ways" in str(w.message)]
    with pytest.warns(UserWarning, match=r"same both ways \(inverting 3, sampling up to 5"):
        unsample.reconstruct(oracle, inversion, guidance_scale=5)


def test_a_reconstruction_under_other_guidance_than_was_announced_is_warned_of(oracle: Any) -> None:
    inversion = unsample.invert(oracle, pictures(oracle, 1), "left", num_inference_steps=4)
    with pytest.warns(UserWarning, match="ddim does not account for guidance above 1"):
        unsample.reconstruct(oracle, inversion, guidance_scale=3)


def in_place(x: Tensor, t: Tensor) -> Tensor:
    return x.mul_(0.5)


def test_a_network_that_writes_into_its_input_changes_nothing_of_ours() -> None:
    x, noise = normal(1, *SHAPE, dtype=torch.float32), normal(1, *SHAPE, dtype=torch.float32)
    kept, drawn = x.clone(), noise.clone()
    spoilt, clean = wrapped(in_place), wrapped(lambda x, t: x * 0.5)
    found = unsample.invert(spoilt, latents=x, num_inference_steps=4)
    assert torch.equal(found.noise, unsample.invert(clean, latents=x, num_inference_steps=4).noise)
    unsample.sample(spoilt, noise=noise, num_inference_steps=4)
    assert torch.equal(x, kept)
    assert torch.equal(noise, drawn)
    assert found.latents.data_ptr() != x.data_ptr()


def test_a_model_of_classes_without_labels_is_refused_by_name() -> None:
    model = unsample.load(ddpm(num_class_embeds=3))
    for verb in (lambda **g: unsample.invert(model, pictures(model, 1), **g), lambda **g: unsample.sample(model, **g)):
        with pytest.raises(BadOption, match="draws classes; give class_labels, 0 to 2"):
            verb(num_inference_steps=2)
        for labels in ("cat", 1.7, [], [0.5]):
            with pytest.raises(BadOption, match="class_labels must be whole numbers"):
                verb(num_inference_steps=2, class_labels=labels)


def test_an_inversion_of_another_prediction_type_or_vae_is_refused() -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return x * 0.1

    def made(**more: Any) -> Any:
        return unsample.wrap(network, DDIMScheduler(clip_sample=False, **more), sample_shape=SHAPE)

    inversion = unsample.invert(made(), latents=normal(1, *SHAPE), num_inference_steps=3)
    with pytest.raises(BadInput, match="predicts epsilon, and .* predicts v_prediction"):
        unsample.reconstruct(made(prediction_type="v_prediction"), inversion)
    unsample.reconstruct(made(prediction_type="v_prediction"), inversion, allow_other_model=True)
    unet, first, second = ddpm().unet, sd14().vae, sd14().vae
    first.decoder.conv_in.weight.data += 1
    hashes = {unsample.wrap(unet, DDIMScheduler(), vae).weights_sha256() for vae in (None, first, second)}
    assert len(hashes) == 3


def test_an_edit_is_negative_as_the_inversion_was_unless_it_says_otherwise(text_model: Any) -> None:
    given = {"num_inference_steps": 2}
    plain, negative = (
        unsample.invert(text_model, pictures(text_model, 1), "a", negative_prompt=n, **given) for n in (None, "q")
    )
    inherited = unsample.edit(text_model, negative, "z", guidance_scale=3)
    told = unsample.edit(text_model, plain, "z", guidance_scale=3, negative_prompt="q")
    assert torch.equal(inherited.images, told.images)
    assert inherited.meta["negative_prompt"] == ["q"]
    assert inherited.meta["nfe"] == inherited.nfe == [4]
    assert not torch.equal(
        unsample.edit(text_model, negative, "z", guidance_scale=3, negative_prompt="").images, told.images
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: unsample.sample(m, height=16), "knows samples of .* only"),
        (lambda m: unsample.sample(m, noise=torch.randn(1, 3, 16, 16)), "knows samples of .* only"),
        (lambda m: unsample.sample(m, height=8.0), "height must be a multiple"),
        (lambda m: unsample.sample(m, generator=[]), "list of 1"),
        (lambda m: unsample.invert(m, torch.rand(1, 3, 0, 0)), "a tensor of pictures is"),
        (lambda m: unsample.invert(m, pictures(m, 1), callback_on_step_end=lambda *a: 7), "must return nothing or"),
        (
            lambda m: unsample.invert(m, pictures(m, 1), callback_on_step_end=lambda *a: {"latents": torch.zeros(1)}),
            "must return nothing or",
        ),
        (lambda m: unsample.wrap(smooth_network, DDIMScheduler(), sample_shape=(16, 16)), "sample_shape must be"),
        (lambda m: unsample.wrap(smooth_network, None, sample_shape=SHAPE), "wrap needs a diffusers scheduler"),
        (lambda m: unsample.invert(wrapped(lambda x, t: None), latents=torch.rand(1, *SHAPE)), "answered NoneType"),
        (
            lambda m: unsample.invert(
                unsample.wrap(smooth_network, DDIMScheduler(), sample_shape=(5, 8, 8)), torch.rand(1, 3, 8, 8)
            ),
            "takes 5 channels, no pictures",
        ),
        (
            lambda m: unsample.sample(
                wrapped(smooth_network), prompt_embeds=np.zeros((1, 2, 3)), num_inference_steps=2
            ),
            "prompt_embeds must be a tensor",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_our_words(call: Any, says: str, oracle: Any) -> None:
    with pytest.raises((BadOption, BadInput), match=says):
        call(oracle)


def test_a_prompt_that_is_no_text_is_refused(text_model: Any) -> None:
    with pytest.raises(BadOption, match="is not text"):
        unsample.sample(text_model, "\ud800abc", num_inference_steps=2)


@pytest.mark.parametrize("w", [1, 3])
def test_at_most_seven_frames_of_ours_stand_between_the_verb_and_the_network(w: float) -> None:
    home, depths = str(Path(unsample.__file__).parent), set()

    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        frames = traceback.walk_stack(sys._getframe())
        depths.add(sum(frame.f_code.co_filename.startswith(home) for frame, _ in frames))
        return 0.1 * x

    embeds = {"prompt_embeds": torch.ones(1, 2, 4), "negative_prompt_embeds": torch.zeros(1, 2, 4)}
    given: dict[str, Any] = {"latents": marked(1, None), "num_inference_steps": 2, "guidance_scale": w, **embeds}
    unsample.invert(wrapped(network), **given)
    assert depths == {7}
