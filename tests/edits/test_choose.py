"""The kind of an edit, found from its two prompts."""

from __future__ import annotations

import pytest

from unsample.datasets import draw_scene
from unsample.datasets.edits import KINDS, changed
from unsample.edits import get_editor
from unsample.edits.choose import CHOICES, choose, kind_of
from unsample.edits.choose import KINDS as KNOWN
from unsample.errors import BadOption
from unsample.methods import METHODS


@pytest.mark.parametrize("kind", KINDS)
def test_every_edit_of_scenes_is_known_for_what_it_is(kind: str) -> None:
    scenes = [draw_scene(k) for k in range(60)]
    edits = [(scene.caption, changed(scene, k, [kind])[1].caption) for k, scene in enumerate(scenes)]
    assert {kind_of(*pair) for pair in edits} == {kind}
    assert {kind_of(after, before) for before, after in edits} == {kind}


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("a photo of a cat", "a photo of a dog", "swap"),
        ("a cat on a chair", "a tiger on a sofa", "swap"),
        ("a cat", "a cat with a hat", "added"),
        ("a cat, sleeping", "a cat", "removed"),
        ("a cat", "a cat, in the rain", "added"),
        ("A red car", "a blue car", "colour"),
        ("a car on a red background", "a car on a striped blue background", "background"),
        ("a small red star", "a large blue star", "other"),
        ("a red star", "a red ring on the right", "swap"),
        ("a red star", "a star", "removed"),
        ("a red star", "a RED star", "same"),
        ("a red star on a blue background", "a blue star on a red background", "other"),
    ],
)
def test_kinds_of_other_prompts(source: str, target: str, kind: str) -> None:
    assert kind_of(source, target) == kind


def test_what_is_chosen_can_be_had_and_is_told() -> None:
    assert set(CHOICES) == set(KNOWN)
    for choice in CHOICES.values():
        assert choice.method in METHODS
        assert get_editor(choice.editor, dict(choice.settings)).name == choice.editor
        assert choice.editor in choice.told()
    assert "not measured here" in choose("a cat", "a dog").told()
    with pytest.raises(BadOption, match="that of the source is not known"):
        choose(None, "a cat")


def test_the_method_of_auto_is_recorded_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    import unsample
    from unsample.cli.checks import configured_method
    from unsample.datasets import Scenes

    image = Scenes("tune", 1, size=32)[0].image[None]
    found = unsample.invert("scenes-mixture", image, method="auto", num_inference_steps=2)
    assert found.meta.method.name == "ddim"
    assert configured_method("auto", ["eps_at=source"]).settings["eps_at"] == "source"
    assert "method auto: ddim" in capsys.readouterr().err
