"""`pie_bench`: both editions, masks against an independent decoder, and rows that are broken in every way."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.datasets.sets import SIDE, damaged, flat, independent_mask, pie_folder, pie_row, saved, write_parquet
from unsample.datasets import open_dataset
from unsample.datasets.pie_bench import CATEGORIES, check_mask, decode_mask
from unsample.errors import BadInput


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [0, SIDE * SIDE],
        [SIDE * 100 + 50, 30, SIDE * 101 + 50, 30],
        [SIDE * 3 + 500, 40],  # over the end of a row
        [SIDE * 200, SIDE * 20, 5, 1, SIDE * 205, SIDE],  # unsorted, overlapping
        [SIDE * SIDE - 3, 1000],  # over the end of the picture: cut, as the authors do
        [700, 0],
    ],
)
def test_a_mask_is_decoded_as_another_implementation_does(runs: list[int]) -> None:
    mask = decode_mask(check_mask(runs))
    cut = [n if k % 2 == 0 else min(n, SIDE * SIDE - runs[k - 1]) for k, n in enumerate(runs)]
    assert mask.shape == (1, SIDE, SIDE)
    assert np.array_equal(mask[0].numpy(), independent_mask(cut))


def test_all_four_borders_of_a_mask_are_to_be_edited() -> None:
    mask = decode_mask(())[0]
    assert mask.sum() == 4 * SIDE - 4
    for border in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert border.min() == 1


def test_a_mask_of_a_square_picture_of_another_size_is_taken_by_nearest_neighbour() -> None:
    square = tuple(n for y in range(128, 256) for n in (SIDE * y + 128, 128))
    for side in (64, 1024):
        mask = decode_mask(square, (side, side))[0]
        quarter = side // 4
        assert mask.shape == (side, side)
        assert mask[1:-1, 1:-1].sum() == quarter**2
        assert mask[quarter : 2 * quarter, quarter : 2 * quarter].min() == 1
        assert mask[0].min() == mask[:, -1].min() == 1
    with pytest.raises(BadInput, match="its picture is 640x480"):
        decode_mask(square, (640, 480))


def test_the_authors_edition_is_read(tmp_path: Path) -> None:
    rows = {f"{k:012d}": pie_row(k, category=k % 10) for k in range(11)}
    dataset = open_dataset(f"pie_bench:{pie_folder(tmp_path, rows)}")
    assert list(dataset.ids) == list(rows)
    assert list(dataset.broken) == []
    item = dataset[3]
    assert (item.prompt, item.target_prompt) == ("a dog on a wooden chair", "a cat on a wooden chair")
    assert item.category == "delete_object"
    assert item.image.size == (SIDE, SIDE)
    assert np.array_equal(item.mask[0].numpy(), independent_mask(rows["000000000003"]["mask"]))
    assert item.extra["source_prompt"] == "a [dog] on a wooden chair"
    assert item.extra["instruction"] == "Change the animal from a dog to a cat"
    assert item.extra["blended_words"] == "dog cat"
    assert pickle.loads(pickle.dumps(dataset))[3].digest() == item.digest()


def test_the_ten_categories_can_be_chosen_by_number_or_by_name(tmp_path: Path) -> None:
    folder = pie_folder(tmp_path, {f"{k:012d}": pie_row(k, category=k % 10) for k in range(20)})
    assert len(CATEGORIES) == 10
    for chosen in ("0+3", "random+delete_object", "delete_object+0"):
        dataset = open_dataset(f"pie_bench:{folder},category={chosen}")
        assert [int(id) for id in dataset.ids] == [0, 3, 10, 13]
        assert {item.category for item in dataset} == {"random", "delete_object"}
    dataset = open_dataset(f"pie_bench:{folder},category=9,limit=1")
    assert [item.category for item in dataset] == ["change_style"]
    assert dataset.spec == f"pie_bench:{folder},category=9,limit=1"


BROKEN: dict[str, tuple[Any, str]] = {
    "gone": (pie_row(1, image_path="gone.png"), "there is no file 'gone.png'"),
    "climbs": (pie_row(1, image_path="../mapping_file.json"), "leads out of the data set's folder"),
    "absolute": (pie_row(1, image_path="/etc/hostname"), "leads out of the data set's folder"),
    "no-path": (pie_row(1, image_path=None), "it names no file"),
    "no-prompt": (pie_row(1, original_prompt=None), "it has no original_prompt"),
    "empty-prompt": (pie_row(1, editing_prompt="  "), "it has no editing_prompt"),
    "number-prompt": (pie_row(1, editing_prompt=4), "editing_prompt is a int"),
    "no-mask": (pie_row(1, mask=None), "it has no mask"),
    "odd-mask": (pie_row(1, mask=[1, 2, 3]), "its mask has 3 numbers"),
    "negative-mask": (pie_row(1, mask=[-1, 2]), "no list of whole numbers"),
    "text-mask": (pie_row(1, mask="one two"), "no list of numbers"),
    "float-mask": (pie_row(1, mask=[1.5, 2]), "no list of whole numbers"),
    "pixels-mask": (pie_row(1, mask=[0, 1] * (SIDE * SIDE // 2)), "as many as pixels; runs of start and length"),
    "long-mask": (pie_row(1, mask="1234567890123 4"), "starts at 123456789012"),
    "far-mask": (pie_row(1, mask=[SIDE * SIDE, 2]), "starts at 262144"),
    "type": (pie_row(1, editing_type_id="10"), "its editing_type_id is '10'"),
    "no-type": (pie_row(1, editing_type_id=None), "its editing_type_id is None"),
    "list": ([1, 2], "it is no JSON object, but a list"),
}


def test_a_broken_row_of_each_kind_is_named_with_its_reason_and_skipped(tmp_path: Path) -> None:
    rows = {"good": pie_row(0), **{id: row for id, (row, _) in BROKEN.items()}, "last": pie_row(2)}
    dataset = open_dataset(f"pie_bench:{pie_folder(tmp_path, rows)}")
    assert list(dataset.ids) == ["good", "last"]
    assert [id for id, _ in dataset.broken] == list(BROKEN)
    for id, found in dataset.broken:
        assert BROKEN[id][1] in found, (id, found)
    assert [item.id for item in dataset] == ["good", "last"]


def test_an_id_that_stands_there_twice_counts_once(tmp_path: Path) -> None:
    rows = {"0": pie_row(0), "1": pie_row(1)}
    text = json.dumps(rows)[:-1] + ', "0": ' + json.dumps(pie_row(1, editing_prompt="another")) + "}"
    dataset = open_dataset(f"pie_bench:{pie_folder(tmp_path, rows, text)}")
    assert list(dataset.ids) == ["0", "1"]
    assert dataset[0].target_prompt == "a cat on a wooden chair"
    assert dataset.broken[0][0] == "0"
    assert "another row has this id" in dataset.broken[0][1]


def test_pictures_that_are_damaged_or_not_square_are_broken_when_they_are_opened(tmp_path: Path) -> None:
    rows = {"damaged": pie_row(0), "wide": pie_row(1), "good": pie_row(2)}
    folder = pie_folder(tmp_path, rows) / "annotation_images"
    damaged(folder / rows["damaged"]["image_path"])
    saved(flat("red").resize((64, 32)), folder / rows["wide"]["image_path"])
    dataset = open_dataset(f"pie_bench:{tmp_path}")
    with pytest.raises(BadInput, match="damaged"):
        dataset[0]
    with pytest.raises(BadInput, match="its picture is 64x32"):
        dataset[1]
    assert dataset[2].id == "good"


def test_a_linked_folder_of_pictures_is_followed_and_a_link_out_of_it_is_not(tmp_path: Path) -> None:
    rows = {"a": pie_row(0), "b": pie_row(1)}
    pie_folder(tmp_path / "real", rows)
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "real" / "mapping_file.json").rename(folder / "mapping_file.json")
    (folder / "annotation_images").symlink_to(tmp_path / "real" / "annotation_images")
    inner = tmp_path / "real" / "annotation_images" / rows["b"]["image_path"]
    inner.rename(tmp_path / "elsewhere.png")
    inner.symlink_to(tmp_path / "elsewhere.png")
    dataset = open_dataset(f"pie_bench:{folder}")
    assert list(dataset.ids) == ["a"]
    assert "leads out" in dict(dataset.broken)["b"]


def test_another_folder_or_index_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds neither mapping_file.json nor .parquet files"):
        open_dataset(f"pie_bench:{tmp_path}")
    for text, said in {"[1]": "no mapping of ids", "{": "is not JSON", "{}": "there are no rows in it"}.items():
        (tmp_path / "mapping_file.json").write_text(text)
        with pytest.raises(BadInput, match=said):
            open_dataset(f"pie_bench:{tmp_path}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("image_path", "original_prompt", "editing_prompt", "editing_type_id", "mask", "editing_instruction")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.text(max_size=12), changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), other=JSON)
def test_whatever_an_index_holds_its_good_rows_are_read(
    tmp_path: Path, key: str, changes: dict[str, Any], other: Any
) -> None:
    rows = {"good": pie_row(0), f"x{key}": {**pie_row(1), **changes}, f"y{key}": other}
    (tmp_path / "annotation_images" / "0_type").mkdir(parents=True, exist_ok=True)
    for k in range(2):
        (tmp_path / "annotation_images" / pie_row(k)["image_path"]).touch()
    (tmp_path / "mapping_file.json").write_text(json.dumps(rows))
    dataset = open_dataset(f"pie_bench:{tmp_path}")
    assert dataset.ids[0] == "good"
    assert len(dataset.ids) + len(dataset.broken) == 3


# ---------------------------------------------------------------- the parquet edition


def parquet_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of PIE-Bench++."""
    return {
        "image": flat(f"rgb({number}, 0, 0)"),
        "id": f"{number:012d}",
        "source_prompt": "a [cat] sitting",
        "target_prompt": "a [dog] sitting",
        "edit_action": "{'dog': {'position': 1, 'edit_type': 1, 'action': 'cat'}}",
        "aspect_mapping": "{}",
        "blended_words": '["cat,dog"]',
        "mask": f"{SIDE * 9} 20 {SIDE * 10} 20",
        **changes,
    }


def test_the_parquet_edition_is_read_with_categories_from_its_folders(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "0_random_140" / "V1-00000-of-00001.parquet", [parquet_row(k) for k in range(3)])
    write_parquet(
        tmp_path / "9_change_style_80" / "V1-00000-of-00001.parquet", [parquet_row(k + 900) for k in range(2)]
    )
    dataset = open_dataset(f"pie_bench:{tmp_path}")
    assert [int(id) for id in dataset.ids] == [0, 1, 2, 900, 901]
    items = list(dataset)
    assert [item.category for item in items] == ["random"] * 3 + ["change_style"] * 2
    assert [item.image.getpixel((0, 0))[0] for item in items] == [0, 1, 2, 255, 255]
    assert (items[1].prompt, items[1].target_prompt) == ("a cat sitting", "a dog sitting")
    assert np.array_equal(items[1].mask[0].numpy(), independent_mask([SIDE * 9, 20, SIDE * 10, 20]))
    assert items[1].extra["blended_words"] == '["cat,dog"]'
    assert list(open_dataset(f"pie_bench:{tmp_path},category=9").ids) == list(dataset.ids)[3:]
    assert pickle.loads(pickle.dumps(dataset))[2].digest() == items[2].digest()


def test_broken_rows_of_the_parquet_edition_are_named_and_skipped(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [
        parquet_row(0),
        parquet_row(1, mask="1 2 3"),
        parquet_row(2, source_prompt=None),
        parquet_row(0),
        parquet_row(4, image={"bytes": b"no picture", "path": None}),
        parquet_row(5, image=None),
        parquet_row(6, mask=None),
        parquet_row(7, id=None),
        parquet_row(8, image={"bytes": None, "path": "../../outside.png"}),
    ]
    write_parquet(tmp_path / "1_change_object_80" / "V1.parquet", rows)
    dataset = open_dataset(f"pie_bench:{tmp_path}")
    assert [id for id, _ in dataset.broken] == [f"{k:012d}" for k in (1, 2, 0)]
    bad = {}
    for k, id in enumerate(dataset.ids):
        try:
            dataset[k]
        except BadInput as error:
            bad[int(id)] = str(error)
    assert set(bad) == {4, 5, 8}
    assert "text, not a picture" in bad[4]
    assert "its image is missing" in bad[5]
    assert "leads out" in bad[8]
    assert dataset[dataset.ids.index("000000000006")].mask is None
    assert "row-7" in dataset.ids


def test_a_parquet_file_of_another_set_or_damaged_is_bad_input(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "a.parquet", [{"text": "x", "image": flat("red", 8)}])
    with pytest.raises(BadInput, match="has no column id and no source_prompt and no target_prompt; found text, image"):
        open_dataset(f"pie_bench:{tmp_path}")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(BadInput, match="is no parquet file, or damaged"):
        open_dataset(f"pie_bench:{tmp_path}/a.parquet")
