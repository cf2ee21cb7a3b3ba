"""The judges: what they must see, and what must not fool them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unsample.datasets.scenes import ATTRIBUTES, SEED_RANGES, Scene, draw_scene, render
from unsample.errors import BadInput, UnknownName, WeightsMissing
from unsample.metrics.judges import (
    _blur,
    agreement,
    clip_attribute,
    explained_threshold,
    fit_attribute,
    fit_scene,
    load_clip,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scenes(count: int, first: int = 0) -> list[Scene]:
    return [draw_scene(SEED_RANGES["report"][0] + first + k) for k in range(count)]


def soft(images: Tensor, noise: float = 0.03) -> Tensor:
    """As a VAE gives them back: blurred and a little noisy."""
    grain = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (_blur(images, 0.7) + noise * grain).clamp(0, 1)


def other(scene: Scene, attribute: str, k: int) -> str:
    """Some value of an attribute that the scene does not have."""
    taken = {scene.colour, scene.background} if attribute in ("colour", "background") else {getattr(scene, attribute)}
    free = [v for v in ATTRIBUTES[attribute] if v not in taken]
    return free[k % len(free)]


# ---------------------------------------------------------------- fit_attribute


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_fit_attribute_names_what_an_edit_changed(attribute: str) -> None:
    known = scenes(8)
    truth = [other(scene, attribute, k) for k, scene in enumerate(known)]
    edited = render([s.replace(**{attribute: v}) for s, v in zip(known, truth, strict=True)]).images
    assert fit_attribute(edited, known, attribute) == truth
    assert fit_attribute(soft(edited), known, attribute) == truth


@pytest.mark.parametrize("attribute", ["colour", "shape", "background_texture"])
def test_fit_attribute_says_what_the_picture_shows_and_not_what_the_scene_says(attribute: str) -> None:
    scene = replace(scenes(1)[0], colour="red", background="blue")
    values = list(ATTRIBUTES[attribute])
    pictures = render([scene.replace(**{attribute: v}) for v in values]).images
    assert fit_attribute(pictures, [scene] * len(values), attribute) == values


@pytest.mark.parametrize("texture", ATTRIBUTES["texture"])
def test_a_texture_counts_with_another_contrast_and_phase(texture: str) -> None:
    scene = replace(scenes(1)[0], size="large", shape="square", place="center", colour="orange", background="blue")
    shown = replace(scene, texture=texture, contrast=0.35, phase=(0.7, 0.3, 0.9, 0.1, 0.2, 0.3), noise_seed=99)
    assert fit_attribute(render([shown]).images, [scene], "texture") == [texture]


def test_fit_attribute_works_at_another_size() -> None:
    known = scenes(6)
    pictures = render([s.replace(colour=other(s, "colour", 3)) for s in known]).images
    truth = [other(s, "colour", 3) for s in known]
    assert fit_attribute(pictures, known, "colour", size=32) == truth


# ---------------------------------------------------------------- fit_scene


def test_fit_scene_reads_the_caption_off_a_render() -> None:
    known = scenes(5, 2000)
    fits = fit_scene(render(known).images)
    assert [f.scene.caption for f in fits] == [s.caption for s in known]


def test_fit_scene_reads_small_soft_noisy_pictures() -> None:
    known = scenes(8, 2100)
    fits = fit_scene(soft(render(known, 32).images))
    for attribute in ("colour", "shape", "background"):
        told = [getattr(f.scene, attribute) for f in fits]
        assert agreement(told, [getattr(s, attribute) for s in known]) == 1, attribute


def test_fit_scene_finds_the_numbers_too() -> None:
    scene = replace(scenes(1)[0], shape="star", texture="striped", colour="yellow", background="purple", size="large")
    fit = fit_scene(render([scene]).images)[0]
    # far finer than a pixel (0.031) and than the steps of the search (0.055, 0.13)
    assert max(abs(a - b) for a, b in zip(fit.scene.jitter, scene.jitter, strict=True)) < 0.01
    assert abs(fit.scene.contrast - scene.contrast) < 0.02
    slopes = [[s.light[1] * f(s.light[0]) for f in (math.cos, math.sin)] for s in (fit.scene, scene)]
    assert math.dist(*slopes) < 0.01


def test_the_scene_that_was_found_draws_the_picture_again() -> None:
    scene = replace(scenes(1)[0], texture="dotted", background_texture="checkered", size="large")
    picture = render([scene]).images
    fit = fit_scene(picture)[0]
    again = float(((render([fit.scene]).images - picture) ** 2).mean())
    assert again < 2e-4  # 37 dB: only a fraction of a pixel at the edges is left
    assert fit.mse < 2e-4
    assert fit.explained > 0.99


def test_black_roughened_to_gray_does_not_explain_a_gray_background() -> None:
    known = [scenes(1, 1149)[0], scenes(1, 1118)[0]]  # a rough and a plain gray one that were taken for rough black
    assert [s.background for s in known] == ["gray", "gray"]
    assert [f.scene.background for f in fit_scene(render(known).images)] == ["gray", "gray"]


def test_one_changed_attribute_changes_that_answer_and_no_other() -> None:
    scene = replace(scenes(1)[0], shape="heart", colour="red", background="green", background_texture="plain")
    changes = {"shape": "cross", "colour": "cyan", "background": "pink", "size": "small", "place": "left"}
    pictures = render([scene, *(scene.replace(**{a: v}) for a, v in changes.items())], 32).images
    base, *fits = (f.scene for f in fit_scene(pictures))
    for (attribute, value), found in zip(changes.items(), fits, strict=True):
        changed = {a for a in ATTRIBUTES if getattr(found, a) != getattr(base, a)}
        assert changed == {attribute}
        assert getattr(found, attribute) == value


def test_the_score_tells_renders_from_shuffled_pixels_and_noise() -> None:
    pictures = soft(render(scenes(3), 32).images, noise=0.01)
    order = torch.randperm(32 * 32, generator=torch.Generator().manual_seed(1))
    shuffled = pictures.flatten(2)[:, :, order].view_as(pictures)
    noise = torch.rand(pictures.shape, generator=torch.Generator().manual_seed(2))
    lowest = min(f.explained for f in fit_scene(pictures))
    assert lowest > 0.85
    assert max(f.explained for f in fit_scene(torch.cat([shuffled, noise]))) < 0.5


def test_the_threshold_lets_renders_pass_and_nothing_else() -> None:
    found = explained_threshold(24, 10, share=0.1)
    assert 0.5 < found.value < 1
    assert found.renders >= 0.8
    assert found.chimeras == pytest.approx(0.1)
    assert found.shuffled == 0
    assert found.noise == 0


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_a_flat_picture_is_explained_by_nothing(level: float) -> None:
    fit = fit_scene(torch.full((1, 3, 16, 16), level))[0]
    assert fit.explained == 0
    assert math.isfinite(fit.mse)


# ---------------------------------------------------------------- CLIP


class Oracle:
    """A CLIP that reads perfectly: a picture's mean names its caption; a text's embedding is a code of its words."""

    def __init__(self, captions: list[str], wrapped: bool) -> None:
        vision = SimpleNamespace(image_size=64)
        self.config = SimpleNamespace(vision_config=vision, text_config=SimpleNamespace(max_position_embeddings=24))
        self.captions, self.wrapped, self.words = captions, wrapped, {}
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def code(self, text: str) -> Tensor:
        seeds = [self.words.setdefault(f"{n}{w}", len(self.words)) for n, w in enumerate(reversed(text.split()))]
        return torch.stack([torch.randn(1024, generator=torch.Generator().manual_seed(s)) for s in seeds]).sum(0)

    def __call__(self, texts: list[str], **_: Any) -> dict[str, Tensor]:
        self.said = texts
        return {"input_ids": torch.zeros(len(texts), 24), "attention_mask": torch.ones(len(texts), 24)}

    def get_text_features(self, **_: Any) -> Any:
        return self.out(torch.stack([self.code(t) for t in self.said]))

    def get_image_features(self, pixel_values: Tensor) -> Any:
        assert pixel_values.shape[-1] == 64
        which = ((pixel_values.mean((1, 2, 3)) + 1) / 2 * 20).round().int()
        return self.out(torch.stack([self.code(self.captions[k]) for k in which.tolist()]))

    def out(self, embeds: Tensor) -> Any:
        return SimpleNamespace(pooler_output=embeds) if self.wrapped else embeds


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("attribute", ["colour", "shape", "background"])
def test_clip_attribute_takes_the_prompt_that_fits_best(attribute: str, wrapped: bool) -> None:
    known = scenes(8)
    truth = [other(scene, attribute, k) for k, scene in enumerate(known)]
    captions = [s.replace(**{attribute: v}).caption for s, v in zip(known, truth, strict=True)]
    oracle = Oracle(captions, wrapped)
    pictures = torch.stack([torch.full((3, 32, 32), k / 20) for k in range(8)])
    assert clip_attribute((oracle, oracle), pictures, known, attribute) == truth
    if attribute == "background":  # the last word but one: the same place in every caption, so generic prompts do
        assert clip_attribute((oracle, oracle), pictures, None, attribute) == truth


def test_a_saved_clip_is_loaded_and_answers_the_same(tmp_path: Path) -> None:
    from transformers import CLIPModel

    from training.clip import config
    from training.tokenizer import build

    tokenizer = build()
    torch.manual_seed(0)
    model = CLIPModel(config(len(tokenizer))).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    known = scenes(4)
    pictures = render(known, 32).images
    kept = load_clip(tmp_path)
    for given in (known, None):
        answers = clip_attribute(kept, pictures, given, "place")
        assert set(answers) <= set(ATTRIBUTES["place"])
        assert answers == clip_attribute((model, tokenizer), pictures, given, "place")


def test_a_missing_clip_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="nowhere"):
        load_clip(tmp_path / "nowhere")


# ---------------------------------------------------------------- what cannot be


def test_agreement_is_the_share_of_equal_answers() -> None:
    assert agreement(["a", "b", "c", "d"], ["a", "x", "c", "y"]) == 0.5
    with pytest.raises(BadInput, match="same length"):
        agreement(["a"], ["a", "b"])


def test_judges_refuse_what_they_cannot_judge() -> None:
    picture, scene = torch.rand(1, 3, 16, 16), draw_scene(0)
    with pytest.raises(UnknownName, match="did you mean 'colour'"):
        fit_attribute(picture, [scene], "color")
    with pytest.raises(BadInput, match="1 pictures but 2 scenes"):
        fit_attribute(picture, [scene] * 2, "colour")
    with pytest.raises(BadInput, match="square"):
        fit_scene(torch.rand(1, 3, 16, 20))
    with pytest.raises(BadInput, match="16 pixels"):
        fit_scene(picture, size=8)
    with pytest.raises(BadInput, match="finite"):
        fit_scene(torch.full((1, 3, 16, 16), math.nan))
