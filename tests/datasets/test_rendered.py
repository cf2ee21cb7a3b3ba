"""`scenes` and `generated` as items: the same at every start, edits with their truth, digests."""

from __future__ import annotations

import pickle

import pytest
import torch

from unsample.datasets import Item, Scenes, changed, draw_scene, open_dataset, render
from unsample.datasets.edits import KINDS
from unsample.datasets.scenes import SEED_RANGES
from unsample.errors import UnknownName


def test_an_item_of_scenes_is_the_scene_its_edit_and_the_truth() -> None:
    dataset = open_dataset("scenes:6,split=tune", size=32)
    for k in range(6):
        item = dataset[k]
        scene = Scenes("tune", 6, size=32)[k]
        assert item.id == dataset.ids[k] == scene.id == f"tune-{k}"
        assert torch.equal(item.image, scene.image)
        assert (item.scene, item.prompt) == (scene.scene, scene.prompt)
        assert (item.changed, item.target) == changed(scene.scene, k)
        assert item.target_prompt == item.target.caption
        assert torch.equal(item.truth, render([item.target], 32).images[0])
        assert item.mask.shape == (1, 32, 32)


def test_the_mask_is_where_the_true_edit_can_be_seen() -> None:
    dataset = open_dataset("scenes:12")
    for k in range(12):
        item = dataset[k]
        outside = (item.mask == 0).expand_as(item.image)
        assert set(item.mask.unique().tolist()) == {0.0, 1.0}
        assert (item.image - item.truth)[outside].abs().max() < 1 / 255
        levels = (item.image * 255).round() != (item.truth * 255).round()
        assert (levels.any(0, keepdim=True) & (item.mask == 0)).float().mean() < 0.01  # rounding may tip a level


def test_the_rule_of_edits_is_the_one_that_the_published_tables_used() -> None:
    rows = [(draw_scene(10**8 + k), k) for k in range(6)]
    found = [(name, getattr(target, name)) for name, target in (changed(*row) for row in rows)]
    assert found == EDITS


EDITS = [
    ("colour", "white"),
    ("shape", "triangle"),
    ("background", "red"),
    ("colour", "purple"),
    ("shape", "square"),
    ("background", "pink"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_one_kind_changes_it_alone_and_its_mask_is_where_it_was_and_went(kind: str) -> None:
    dataset, plain = open_dataset(f"scenes:12,edit={kind}"), open_dataset("scenes:12")
    values = set()
    for k in range(12):
        item = dataset[k]
        assert item.id == plain[k].id
        assert torch.equal(item.image, plain[k].image)
        assert (item.digest() == plain[k].digest()) == (plain[k].changed == kind)
        values.add(getattr(item.target, kind))
        assert getattr(item.target, kind) != getattr(item.scene, kind)
        assert item.scene.replace(**{kind: getattr(item.target, kind)}) == item.target
        whole = (render([item.scene, item.target]).object_mask == 1).float()
        for own, other in (whole, whole.flip(0)) if kind == "place" else ():
            assert item.mask[own > other].mean() > 0.9
    assert len(values) > 1


def test_kinds_that_are_asked_for_come_in_turn() -> None:
    dataset = open_dataset("scenes:4,start=1,edit=size+place")
    assert [dataset[k].changed for k in range(4)] == ["place", "size", "place", "size"]


@pytest.mark.parametrize(("kind", "by_clip"), [("size", 8), ("place", 8), ("texture", 4)])  # of 64 textures it names 42
def test_both_judges_know_every_kind_of_edit(kind: str, by_clip: int) -> None:
    import unsample

    items = list(open_dataset(f"scenes:8,split=tune,edit={kind}"))
    subject = unsample.metrics.Subject(
        images=torch.stack([item.truth for item in items]),
        targets=[item.target for item in items],
        changed=[item.changed for item in items],
    )
    found = unsample.measure(["attribute_render_fit", "attribute_clip"], subject)
    assert sum(found["attribute_render_fit"].values) == 8
    assert sum(found["attribute_clip"].values) >= by_clip


def test_an_item_does_not_depend_on_where_its_data_set_starts() -> None:
    whole, part = open_dataset("scenes:8"), open_dataset("scenes:3,start=5")
    assert list(part.ids) == list(whole.ids)[5:]
    for k in range(3):
        assert part[k].digest() == whole[5 + k].digest()
        assert torch.equal(part[k].image, whole[5 + k].image)


def test_grain_is_the_same_on_the_source_and_on_the_truth() -> None:
    clean, grainy = open_dataset("scenes:3")[2], open_dataset("scenes:3,grain=8")[2]
    assert torch.equal(grainy.image, Scenes("report", 3, grain=8)[2].image)
    assert torch.equal(grainy.mask, clean.mask)
    outside = (grainy.mask == 0).expand_as(grainy.image)
    assert (grainy.image - grainy.truth)[outside].abs().max() < 1 / 255
    assert (grainy.truth - clean.truth).std() == pytest.approx(8 / 255, rel=0.3)  # less where it is clamped


def test_grain_is_normal_noise_of_the_seed_after_the_scenes() -> None:
    clean, grainy = Scenes("tune", 3)[2].image, Scenes("tune", 3, grain=8)[2].image
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED_RANGES["tune"][0] + 2 + 1))
    assert torch.equal(grainy, (clean + 8 / 255 * noise).clamp(0, 1))


def test_scenes_outside_the_training_world_have_ids_of_their_own() -> None:
    dataset = open_dataset("scenes:3,ood")
    assert list(dataset.ids) == ["report-ood-0", "report-ood-1", "report-ood-2"]
    assert dataset[1].scene == Scenes("report", 3, ood=True).scene(1)


def test_digests_are_stable_and_tell_everything_apart_that_a_result_can_depend_on() -> None:
    assert open_dataset("scenes:1")[0].digest() == DIGEST
    specs = (
        "scenes:2",
        "scenes:2,grain=8",
        "scenes:2,ood",
        "scenes:2,split=tune",
        "generated:2",
        "generated:2,split=tune",
        "generated:2,mixture",
        "generated:2,saved=png",
        "generated:2,saved=jpeg75",
    )
    digests = [open_dataset(spec)[k].digest() for spec in specs for k in range(2)]
    digests += [open_dataset("scenes:1", size=32)[0].digest()]
    assert len(set(digests)) == len(digests)


DIGEST = "6f7771596bef797a18dade5dc793b0c39b775fd44d6ef88f027c9623a38c2c2c"


def test_generated_items_have_a_seed_and_a_prompt_and_no_picture() -> None:
    dataset = open_dataset("generated:3,split=tune,start=7")
    item = dataset[1]
    assert (item.id, item.seed, item.image) == ("generated-tune-8", SEED_RANGES["tune"][0] + 8, None)
    assert item.prompt == draw_scene(item.seed).caption
    name, target = changed(draw_scene(item.seed), 8)
    assert (item.changed, item.target_prompt) == (name, target.caption)
    assert (item.scene, item.target, item.mask, item.truth) == (None, None, None, None)


def test_generated_pictures_are_saved_as_one_asks() -> None:
    dataset = open_dataset("generated:3,saved=jpeg95")
    assert dataset.spec == "generated:3,split=report,saved=jpeg95"
    assert (dataset.ids[1], dataset[1].saved) == ("generated-report-jpeg95-1", "jpeg95")
    with pytest.raises(UnknownName, match="saved"):
        open_dataset("generated:3,saved=gif")


def test_generated_of_the_mixture_has_captions_that_each_fit_one_component() -> None:
    import unsample

    dataset = open_dataset("generated:16,mixture")
    assert dataset.spec == "generated:16,split=report,mixture"
    assert dataset.ids[3] == "generated-mixture-report-3"
    weights = unsample.load("scenes-mixture").embed([dataset[k].prompt or "" for k in range(16)]).prompt_embeds
    assert (weights == 0).sum(-1).flatten().tolist() == [1] * 16
    assert len({dataset[k].prompt for k in range(16)}) == 16


@pytest.mark.parametrize("spec", ["scenes:3", "generated:3"])
def test_a_data_set_is_a_list_that_can_be_sent_to_another_process(spec: str) -> None:
    dataset = pickle.loads(pickle.dumps(open_dataset(spec)))
    assert len(dataset) == len(dataset.ids) == 3
    items: list[Item] = list(dataset)
    assert [item.id for item in items] == list(dataset.ids)
    assert dataset[-1].digest() == items[2].digest()
    assert dataset.ids[1:] == list(dataset.ids)[1:]
    with pytest.raises(IndexError):
        dataset[3]


def test_a_ground_is_plain_and_of_its_colour_and_leaves_the_object_as_it_is() -> None:
    own, white = open_dataset("scenes:60,edit=shape"), open_dataset("scenes:60,edit=shape,ground=white")
    assert white.ids[3] == "report-white-3"
    assert white.spec == "scenes:60,split=report,edit=shape,ground=white"
    recoloured = 0
    for k in range(60):
        before, after = own[k].scene, white[k].scene
        assert (after.background, after.background_texture) == ("white", "plain")
        kept = before.replace(background="white", background_texture="plain", colour=after.colour)
        assert kept == after
        assert after.colour != "white"
        recoloured += before.colour == "white"
        assert (before.colour == after.colour) == (before.colour != "white")
        outside = white[k].mask == 0
        assert (white[k].image.mean(0, keepdim=True)[outside] > 0.7).float().mean() > 0.5
    assert recoloured  # the case was met
