"""`fit_scene`: what it must read off a picture, and what must not fool it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.metrics.test_judges import scenes, soft
from training.scene_fit import explained_threshold, fit_scene
from unsample.datasets.scenes import ATTRIBUTES, render
from unsample.errors import BadInput
from unsample.metrics.judges import agreement


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def test_fit_scene_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(BadInput, match="square"):
        fit_scene(torch.rand(1, 3, 16, 20))
    with pytest.raises(BadInput, match="16 pixels"):
        fit_scene(torch.rand(1, 3, 16, 16), size=8)
    with pytest.raises(BadInput, match="finite"):
        fit_scene(torch.full((1, 3, 16, 16), math.nan))
