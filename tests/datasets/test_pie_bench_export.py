"""A data set written in PIE-Bench's layout: what comes back of it, and what is in the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from tests.datasets.sets import colourful, independent_mask, saved
from unsample.datasets import open_dataset
from unsample.datasets.pie_bench import SIDE
from unsample.datasets.pie_bench_export import bracketed, export_pie_bench, runs_of
from unsample.errors import BadInput
from unsample.media.pictures import fit_picture, from_pil
from unsample.models.domain import reasons_of_picture


def test_scenes_come_back_with_prompts_masks_types_and_the_very_pixels(tmp_path: Path) -> None:
    scenes = open_dataset("scenes:6,split=tune,edit=colour+shape+texture+background+size+place")
    done = export_pie_bench(scenes, tmp_path / "pie")
    again = open_dataset(f"pie_bench:{tmp_path / 'pie'}")
    assert (list(again.ids), done.count, list(done.broken)) == (list(scenes.ids), 6, [])
    assert "true edits" in done.notes[0]
    kinds = ["color", "object", "material", "background", "content", "pose"]
    for item, source, kind in zip(again, scenes, kinds, strict=True):
        assert (item.prompt, item.target_prompt) == (source.prompt, source.target_prompt)
        assert item.category is not None
        assert item.category.endswith(kind)
        assert source.mask is not None
        assert item.mask is not None
        wanted = interpolate(source.mask[None], size=(SIDE, SIDE), mode="nearest")[0]
        assert torch.equal(item.mask[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1])  # PIE-Bench's own borders are 1
        fitted, note = fit_picture(from_pil(item.image), (64, 64), 16, "crop")
        assert "resized from 512x512 to 64x64" in note
        assert torch.equal(torch.from_numpy(np.array(fitted)), (source.image * 255).round().byte().permute(1, 2, 0))
        assert reasons_of_picture("scenes-sd", item.image, "crop") == []


def test_a_photograph_of_that_size_is_still_outside_of_what_the_scenes_models_know() -> None:
    drawn = open_dataset("scenes:1", size=SIDE)[0].image
    picture = Image.fromarray((drawn * 255).round().byte().permute(1, 2, 0).numpy())
    assert "scaled down by 8.0" in reasons_of_picture("scenes-sd", picture, "crop")[0]


@pytest.mark.parametrize(
    ("source", "target", "wanted", "pairs"),
    [
        ("a red star", "a blue star", ("a [red] star", "a [blue] star"), [("red", "blue")]),
        ("a red star", "a big red star", ("a red star", "a [big] red star"), [("", "big")]),
        ("a star, red", "a star", ("a star[, red]", "a star"), [(", red", "")]),
        ("red  on red", "red  on a cyan", ("red  on [red]", "red  on [a cyan]"), [("red", "a cyan")]),
        ("a cat", "a cat", ("a cat", "a cat"), []),
        ("", "a cat", ("", "[a cat]"), [("", "a cat")]),
    ],
)
def test_words_that_change_stand_in_brackets(
    source: str, target: str, wanted: tuple[str, str], pairs: list[tuple[str, str]]
) -> None:
    assert bracketed(source, target) == (*wanted, pairs)


def test_runs_are_those_of_another_implementation() -> None:
    mask = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).round()
    mask[0, 0], mask[0, -1], mask[0, :, 0], mask[0, :, -1] = 1, 1, 1, 1
    assert np.array_equal(independent_mask(runs_of(mask)), mask[0].numpy())
    assert runs_of(torch.zeros(1, SIDE, SIDE)) == []


def test_pictures_of_a_folder_are_cropped_with_their_masks_and_what_lacks_something_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for k in range(3):
        saved(colourful(k).resize((96, 64)), folder / f"{k}.png")
    mask = np.zeros((64, 96), np.uint8)
    mask[8:24, 16:32] = 255
    saved(Image.fromarray(mask), folder / "masks" / "0.png")
    saved(Image.fromarray(mask), folder / "masks" / "2.png")
    (folder / "prompts.csv").write_text(
        "file,source_prompt,target_prompt,mask\n"
        "0.png,a dog,a cat,masks/0.png\n1.png,a dog,a cat,\n2.png,a [dog],a cat,masks/2.png\n"
    )
    done = export_pie_bench(open_dataset(f"folder:{folder}"), tmp_path / "pie")
    assert [id for id, _ in done.broken] == ["1", "2"]
    assert "no mask" in done.broken[0][1]
    assert "brackets" in done.broken[1][1]
    assert "central square" in done.notes[0]
    (item,) = open_dataset(f"pie_bench:{tmp_path / 'pie'}")
    assert item.mask is not None
    assert item.mask[0, 1:-1, 1:-1].sum() == 128 * 127  # 16 x 16 at the left border, which is 1 whole
    assert item.image.size == (SIDE, SIDE)
    assert (item.category, item.extra["blended_words"]) == ("random", "dog cat")


def test_a_folder_in_the_way_is_left_alone_and_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    scenes, folder = open_dataset("scenes:1"), tmp_path / "pie"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds other things"):
        export_pie_bench(scenes, folder, overwrite=True)
    (folder / "mine.txt").unlink()
    export_pie_bench(scenes, folder)
    with pytest.raises(BadInput, match="--overwrite"):
        export_pie_bench(scenes, folder)
    with pytest.raises(BadInput, match="no picture until"):
        export_pie_bench(open_dataset("generated:1"), folder, overwrite=True)
    assert len(json.loads((folder / "mapping_file.json").read_text())) == 1
    export_pie_bench(open_dataset("scenes:2"), folder, overwrite=True)
    assert len(open_dataset(f"pie_bench:{folder}")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["pie"]
