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
from unsample.metrics.clip import load_clip
from unsample.metrics.judges import agreement, clip_attribute, fit_attribute
from unsample.metrics.surfaces import blurred


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
    return (blurred(images, 0.7) + noise * grain).clamp(0, 1)


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
        fit_attribute(torch.rand(1, 3, 16, 20), [scene], "colour")
    with pytest.raises(BadInput, match="16 pixels"):
        fit_attribute(picture, [scene], "colour", size=8)
    with pytest.raises(BadInput, match="finite"):
        fit_attribute(torch.full((1, 3, 16, 16), math.nan), [scene], "colour")
