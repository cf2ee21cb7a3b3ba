"""Models that draw classes, on the command line: labels, guidance away from the null class, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.problems import ddpm, saved

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def tiny_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(ddpm(num_class_embeds=4), tmp_path_factory.mktemp("models") / "tiny-classes")


def test_labels_go_from_sampling_through_inversion_to_the_edit(run: Run, tiny_classes: Path) -> None:
    from unsample import Inversion

    model, labels = ("-m", tiny_classes, "--steps", 2), ("--negative-class-labels", 3, "--guidance-scale", 2)
    sampled = run("sample", *model, "--num-images", 2, "--class-labels", "0,1", *labels, "-o", "s", "--json")
    assert sampled.code == 0, sampled.err
    assert [row["nfe"] for row in sampled.json["images"]] == [4, 4]
    pictures = ("s/sample-0.png", "s/sample-1.png")
    inverted = run("invert", *pictures, *model, "--class-labels", "0,1", *labels)
    assert inverted.code == 0, inverted.err
    for k in (0, 1):
        kept = Inversion.load(f"out/sample-{k}.safetensors")
        assert (kept.class_labels.tolist(), kept.negative_class_labels.tolist()) == ([k], [3])  # type: ignore[union-attr]
    again = run("reconstruct", "out/sample-1.safetensors", "-m", tiny_classes, "-o", "again", "--json")
    assert again.code == 0, again.err
    assert again.json["images"][0]["nfe"] == 4
    edited = run("edit", "out/sample-1.safetensors", "-m", tiny_classes, "--class-labels", 2, "-o", "e.png", "--json")
    assert edited.code == 0, edited.err
    assert edited.json["images"][0]["guidance_scale"] == 5  # there is something to guide away from
    target = ("--source-class-labels", 1, "--class-labels", 2, "--negative-class-labels", 3, "--guidance-scale", 2)
    anew = run("edit", pictures[1], *model, *target, "-o", "f.png", "--json")
    assert anew.code == 0, anew.err
    assert anew.json["images"][0]["nfe"] == 4


MISTAKES = {
    "no labels": ("sample -m {0}", "draws classes; give --class-labels, 0 to 3"),
    "no labels at inversion": ("invert a.png -m {0}", "draws classes; give --class-labels, 0 to 3"),
    "no labels of the picture": ("edit a.png -m {0} --class-labels 1", "draws classes; give --source-class-labels"),
    "a class that is not there": ("sample -m {0} --class-labels 4", "--class-labels of .* are 0 to 3; got 4"),
    "no number": ("sample -m {0} --class-labels cat", "--class-labels takes whole numbers"),
    "too many": ("sample -m {0} --class-labels 1,2", "holds 2 classes for 1 pictures"),
    "a null class alone": ("sample -m {0} --negative-class-labels 1", "give --class-labels too"),
    "guidance without": ("sample -m {0} --class-labels 1 --guidance-scale 3", "give --negative-class-labels"),
    "classes of a text model": ("sample -m scenes-sd --class-labels 1", "scenes-sd draws no classes"),
    "an edit of nothing": ("edit a.png -m {0}", "--target-prompt, or --class-labels"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_with_labels_are_told_before_any_work(name: str, run: Run, scene: Path, tiny_classes: Path) -> None:
    command, says = MISTAKES[name]
    scene.rename(scene.with_name("a.png"))
    ended = run(*command.format(tiny_classes).split())
    assert ended.code == 2, ended.err
    import re

    assert re.search(says, ended.err), ended.err
