"""The mask of the thing that changes, and an editor that is chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unsample
from unsample.datasets import open_dataset
from unsample.edits.choose import choose, thing
from unsample.edits.within import within
from unsample.edits.words import words_of
from unsample.errors import BadOption

STEPS = 12


@pytest.fixture(scope="module")
def moved() -> tuple[Any, Any, Any]:
    """A model, the inversion of a scene, and its item, whose object moves."""
    model, item = unsample.load("scenes-sd"), open_dataset("scenes:1,start=6,split=tune,edit=place")[0]
    return model, unsample.invert(model, item.image[None], item.prompt, num_inference_steps=STEPS), item


@pytest.mark.parametrize(
    ("source", "target", "phrases"),
    [
        ("a small red star at the left", "a small red star at the right", ("small red star", "small red star")),
        ("a red star on a red mat", "a red star on a blue mat", ("red mat", "blue mat")),
        ("a star on a red background", "a star on a blue background", ("star", "star")),
        ("a red star", "a dotted red star", ("red star", "dotted red star")),
        ("a cat, asleep", "a cat in a hat, asleep", ("", "hat")),
        ("a cat", "a cat", ("", "")),
    ],
)
def test_the_thing_that_changes_is_a_phrase_of_both_prompts(source: str, target: str, phrases: tuple[str, str]) -> None:
    found = thing(source, target)
    words = [words_of(prompt) for prompt in (source, target)]
    assert tuple(" ".join(own[k] for k in at) for own, at in zip(words, found, strict=True)) == phrases


def test_an_edit_stays_within_the_thing_where_it_was_and_where_it_goes(moved: tuple[Any, Any, Any]) -> None:
    model, inversion, item = moved
    free = unsample.edit(model, inversion, item.target_prompt, guidance_scale=2)
    made = unsample.edit(model, inversion, item.target_prompt, guidance_scale=2, mask="thing", paste=True)
    assert made.mask is not None
    assert made.meta["mask_given"] is False
    assert made.meta["editor_notes"]["thing"] == [[item.prompt.split(" at ")[0][2:]] * 2]
    assert 0.05 < made.mask.mean() < 0.6
    assert ((made.mask[0] > 0) & (item.mask > 0)).sum() > 0.8 * item.mask.sum()
    outside = (made.mask == 0).expand_as(made.images)
    assert (made.images - item.image[None])[outside].abs().median() < 1 / 255  # the source's own pixels
    assert not torch.equal(free.latents, made.latents)
    assert all("forward" not in vars(module) for module in model.unet.modules())


def test_another_editor_is_walked_within_it_and_some_are_refused(moved: tuple[Any, Any, Any]) -> None:
    model, inversion, item = moved
    own = unsample.edits.masactrl(start_step=1)
    made = unsample.edit(model, inversion, item.target_prompt, editor=own, guidance_scale=1, mask="thing")
    assert made.mask is not None
    assert made.meta["editor"]["name"] == "masactrl"
    assert {"from_step", "thing"} <= set(made.meta["editor_notes"])
    with pytest.raises(BadOption, match="name no thing that changes"):
        unsample.edit(model, inversion, item.prompt, mask="thing")
    with pytest.raises(BadOption, match="mask of its own"):
        within(unsample.edits.p2p(blend="auto"))
    with pytest.raises(BadOption, match="hard edge"):
        unsample.edit(model, inversion, item.target_prompt, mask="thing", mask_feather=2)


def test_auto_is_the_edit_that_it_says_and_what_is_given_stays(moved: tuple[Any, Any, Any]) -> None:
    model, inversion, item = moved
    choice = choose(item.prompt, item.target_prompt)
    made = unsample.edit(model, inversion, item.target_prompt, editor="auto")
    named = unsample.edit(
        model,
        inversion,
        item.target_prompt,
        editor=unsample.edits.get_editor(choice.editor, dict(choice.settings)),
        guidance_scale=choice.guidance_scale,
        mask=choice.mask,
        paste=choice.paste,
    )
    assert torch.equal(made.images, named.images)
    assert made.meta["auto"] == choice.told()
    assert choice.told().startswith("the place changes")
    other = unsample.edit(model, inversion, item.target_prompt, editor="auto", guidance_scale=1)
    assert "guidance 1, mask thing" in other.meta["auto"]  # what was taken, not what would have been
    assert "not measured" in other.meta["auto"]
    assert other.meta["guidance_scale"] == 1


def test_edits_of_several_kinds_are_each_as_they_are_alone(moved: tuple[Any, Any, Any]) -> None:
    model, inversion, item = moved
    colour = item.prompt.replace("white", "blue")
    prompts = [item.target_prompt, colour, item.target_prompt]
    made = unsample.edit(model, inversion, prompts, editor="auto", guidance_scale=1)
    one = unsample.edit(model, inversion, colour, editor="auto", guidance_scale=1)
    assert (made.latents[1] - one.latents[0]).abs().max() < 1e-4
    assert (made.latents[0] - made.latents[2]).abs().max() < 1e-4
    assert made.meta["prompt"] == prompts
    assert made.meta["auto"].count("changes") == 2
    assert (len(made), len(made.nfe), len(made.reconstruction)) == (3, 3, 3)
    made.settings(1)
    ground = item.prompt.replace("background", "blue background")
    mixed = unsample.edit(model, inversion, [ground, colour], editor="auto", guidance_scale=1)
    assert [mask is None for mask in mixed.meta["mask"]] == [True, False]  # a changed background has no mask
    assert mixed.meta["paste"] is None
    with pytest.raises(BadOption, match="of several kinds"):
        unsample.edit(model, inversion, prompts, editor="auto", mask=[item.mask[0]] * 3)
