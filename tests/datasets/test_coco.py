"""`coco`: a captions file and a folder of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.sets import colourful, saved
from unsample.datasets import open_dataset
from unsample.errors import BadInput


def coco(folder: Path, images: Any, annotations: Any) -> str:
    """The files of a set, and its spec."""
    (folder / "val2017").mkdir(parents=True, exist_ok=True)
    for k in (1, 2, 3, 9):
        saved(colourful(k), folder / "val2017" / f"{k:012d}.jpg")
    document = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations}
    (folder / "captions_val2017.json").write_text(json.dumps(document))
    return f"coco:{folder}/captions_val2017.json,images={folder}/val2017"


def image(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:012d}.jpg", "height": 16, "width": 24, **changes}


def caption(number: int, image_id: int, text: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "caption": text}


def test_the_first_caption_by_its_id_is_the_prompt_and_pictures_come_by_their_ids(tmp_path: Path) -> None:
    captions = [caption(30, 9, "third"), caption(10, 9, " first \n"), caption(20, 9, "second"), caption(5, 2, "a bus")]
    spec = coco(tmp_path, [image(9), image(2)], captions)
    dataset = open_dataset(spec)
    assert dataset.spec == spec
    assert list(dataset.ids) == ["000000000002", "000000000009"]
    assert [item.prompt for item in dataset] == ["a bus", "first"]
    assert dataset[1].image.size == (24, 16)
    assert len(open_dataset(f"{spec},limit=1")) == 1


def test_broken_rows_are_named_and_skipped(tmp_path: Path) -> None:
    images = [
        image(1),
        image(1),
        image(2),
        image(3, file_name="../val2017/../captions_val2017.json"),
        image(4),
        {"id": 5},
        "none",
        image(9, id=[9]),
    ]
    captions = [caption(k, k, f"caption {k}") for k in (1, 3, 4, 5)] + [caption(9, 2, ""), caption(10, 2, 3), "none"]
    dataset = open_dataset(coco(tmp_path, images, captions))
    assert list(dataset.ids) == ["000000000001"]
    reasons = " | ".join(reason for _, reason in dataset.broken)
    assert len(dataset.broken) == 7
    for said in (
        "another row has this id",
        "no caption belongs to its id 2",
        "leads out of the data set's folder",
        "there is no file '000000000004.jpg'",
        "it has no file_name",
        "no caption belongs to its id [9]",
    ):
        assert said in reasons


def test_another_file_is_bad_input(tmp_path: Path) -> None:
    spec = coco(tmp_path, [image(1)], [{"id": 1, "image_id": 1, "bbox": []}])
    with pytest.raises(BadInput, match="annotations without captions; give captions_val2017"):
        open_dataset(spec)
    for text, said in {
        "[]": "needs 'images' and 'annotations'; found a list",
        '{"images": {}, "info": 1}': "found images, info",
        "{": "is not JSON",
        "[" * 100_000: "is not JSON",
        "": "is not JSON",
    }.items():
        (tmp_path / "captions_val2017.json").write_text(text)
        with pytest.raises(BadInput, match=said):
            open_dataset(spec)
    with pytest.raises(BadInput, match="is not there"):
        open_dataset(f"coco:{tmp_path}/captions_val2017.json,images={tmp_path}/gone")
    with pytest.raises(BadInput, match="is no file"):
        open_dataset(f"coco:{tmp_path},images={tmp_path}")
