"""The picture world: what a scene promises to those who measure with it."""

from __future__ import annotations

import itertools

import pytest
import torch

from unsample.datasets import Scenes, draw_scene, render
from unsample.datasets.scenes import ATTRIBUTES, COLOURS, PLACES, SEED_RANGES, SHAPES, held_out
from unsample.errors import BadInput, UnknownName

COUNT = 200


@pytest.fixture(scope="module")
def scenes():
    """Scenes of the report split."""
    return [Scenes("report", COUNT).scene(k) for k in range(COUNT)]


def test_a_scene_does_not_depend_on_its_batch(scenes):
    together = render(scenes[:8])
    alone = render(scenes[5:6])
    assert torch.equal(together.images[5], alone.images[0])
    assert torch.equal(together.object_mask[5], alone.object_mask[0])


def test_the_same_seed_draws_the_same_scene_and_another_seed_another():
    assert draw_scene(7) == draw_scene(7)
    assert draw_scene(7) != draw_scene(8)


def test_pictures_are_in_range_and_not_constant(scenes):
    images = render(scenes).images
    assert images.shape == (COUNT, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.flatten(1).std(1) > 0.01).all()


def test_replacing_the_colour_changes_the_object_and_nothing_else(scenes):
    for scene in scenes[:40]:
        colour = next(c for c in COLOURS if c not in (scene.colour, scene.background))
        before, after = render([scene]), render([scene.replace(colour=colour)])
        changed = (before.images - after.images).abs().amax(1, keepdim=True)
        assert torch.equal(before.object_mask, after.object_mask)
        assert changed[before.object_mask == 0].max() == 0
        assert changed[before.object_mask == 1].mean() > 0.05


def test_replacing_the_background_leaves_the_object_alone(scenes):
    for scene in scenes[:40]:
        colour = next(c for c in COLOURS if c not in (scene.colour, scene.background))
        before, after = render([scene]), render([scene.replace(background=colour)])
        inside = (before.object_mask == 1).expand_as(before.images)
        assert torch.allclose(before.images[inside], after.images[inside], atol=1e-6)  # p + (o - p), rounded


def test_every_attribute_changes_the_picture(scenes):
    for attribute, values in ATTRIBUTES.items():
        scene = scenes[0]
        drawn = render([scene.replace(**{attribute: v}) for v in values]).images
        distance = torch.cdist(drawn.flatten(1), drawn.flatten(1))
        assert (distance + torch.eye(len(values)) * 99 > 0.5).all(), attribute
    faint, strong = (render([scenes[2].replace(texture="striped", contrast=c)]).images for c in (0.15, 0.45))
    assert not torch.equal(faint, strong)


def test_captions_name_all_attributes_but_the_plain_texture(scenes):
    for scene in scenes:
        words = scene.caption.replace(" background", "").split()
        for name in ("size", "colour", "shape", "place", "background"):
            assert getattr(scene, name) in words
        textures = [t for t in (scene.texture, scene.background_texture) if t != "plain"]
        assert all(t in words for t in textures)
        assert "plain" not in words


def test_the_plain_mask_covers_flat_pixels_only(scenes):
    drawn = render(scenes[:60])
    contrast = torch.zeros_like(drawn.plain_mask)
    contrast[..., :-1] = (drawn.images[..., 1:] - drawn.images[..., :-1]).abs().amax(1, keepdim=True)
    inner = drawn.plain_mask[..., :-1] * drawn.plain_mask[..., 1:]
    assert contrast[..., :-1][inner == 1].max() < 0.02  # the light's gradient over one pixel
    textured = [k for k, s in enumerate(scenes[:60]) if s.background_texture == "striped"]
    assert drawn.plain_mask[textured].mean() < 0.3


def test_a_scene_looks_the_same_at_another_size(scenes):
    small = render(scenes[:16], 32).images
    halved = torch.nn.functional.avg_pool2d(render(scenes[:16], 64).images, 2)
    assert (small - halved).abs().mean() < 0.03  # edges and fine textures differ, the scene does not


def test_splits_do_not_share_seeds():
    ranges = sorted(SEED_RANGES.values())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))
    assert all(high <= 2**32 for _, high in ranges), "torch's CPU generator reads 32 bits of a seed"


def test_attributes_are_drawn_evenly_and_pairs_are_held_out(scenes):
    drawn = [draw_scene(SEED_RANGES["train"][0] + k) for k in range(2000)]
    assert not any(held_out(s.shape, s.colour) for s in drawn)
    assert sum(held_out(s, c) for s in SHAPES for c in COLOURS) == len(SHAPES)
    for name, values in {"shape": SHAPES, "place": PLACES, "background": COLOURS}.items():
        share = [sum(getattr(s, name) == v for s in drawn) / len(drawn) * len(values) for v in values]
        assert min(share) > 0.7, (name, share)  # five standard errors of the rarest (1 in 12 of 2,000)
        assert max(share) < 1.3, (name, share)
    plain = sum(s.texture == "plain" for s in drawn) / len(drawn)
    assert abs(plain - 0.5) < 0.06
    neighbours = sum(a.shape == b.shape for a, b in itertools.pairwise(drawn)) / len(drawn)
    assert abs(neighbours - 1 / 8) < 0.04, "neighbouring seeds must not be alike"


def test_grain_is_noise_of_the_stated_size():
    clean, grainy = Scenes("tune", 4)[2].image, Scenes("tune", 4, grain=8)[2].image
    inside = (clean > 0.2) & (clean < 0.8)
    assert 255 * (grainy - clean)[inside].std() == pytest.approx(8, rel=0.1)


def test_ood_scenes_lie_outside_the_training_world():
    items = [Scenes("report", 30, ood=True).scene(k) for k in range(30)]
    kinds = [s.companion is not None or s.shape == "hexagon" or held_out(s.shape, s.colour) for s in items]
    assert all(kinds)
    assert {s.shape == "hexagon" for s in items} == {True, False}
    two = next(s for s in items if s.companion)
    assert render([two]).object_mask.sum() > render([two.companion]).object_mask.sum()


def test_items_carry_what_was_drawn():
    item = Scenes("report", 3)[1]
    assert item.prompt == item.scene.caption
    assert item.id == "report-1"
    assert item.image.shape == (3, 64, 64)
    assert item.object_mask.shape == item.plain_mask.shape == (1, 64, 64)
    assert len(list(Scenes("report", 3))) == 3


@pytest.mark.parametrize("wrong", [{"split": "test"}, {"count": 0}, {"start": -1}, {"grain": -1}, {"start": 10**8}])
def test_wrong_data_sets_are_refused(wrong):
    with pytest.raises((UnknownName, BadInput)):
        Scenes(**wrong)


def test_wrong_attributes_are_refused_with_a_suggestion():
    with pytest.raises(UnknownName, match="did you mean 'circle'"):
        draw_scene(0).replace(shape="circel")
    with pytest.raises(UnknownName, match="unknown attribute"):
        draw_scene(0).replace(jitter=(0, 0, 1, 0))
    with pytest.raises(BadInput):
        render([], 64)
