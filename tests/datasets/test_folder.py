"""`folder`, `celeba` and `lsun`: pictures in folders, the table of prompts, and rows that are broken in every way."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.sets import colourful, damaged, saved
from unsample.datasets import open_dataset
from unsample.errors import BadInput


def pictures(folder: Path, *names: str) -> Path:
    for k, name in enumerate(names):
        saved(colourful(k), folder / name)
    return folder


def reason(dataset: object, id: str) -> str:
    """Why a row is broken."""
    return dict(dataset.broken)[id]  # type: ignore[attr-defined]


def test_pictures_come_in_the_order_of_their_names_without_prompts(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "b.png", "a.png", "C.PNG", "below/d.png", ".hidden.png")
    (folder / "notes.txt").write_text("not a picture")
    dataset = open_dataset(f"folder:{folder}")
    assert dataset.spec == f"folder:{folder}"
    assert list(dataset.ids) == ["C", "a", "b"]
    assert list(dataset.broken) == []
    item = dataset[2]
    assert item.image.mode == "RGB"
    assert np.array_equal(np.asarray(item.image), np.asarray(colourful(0)))
    assert (item.prompt, item.target_prompt, item.mask, item.truth) == (None, None, None, None)


def test_ids_are_unique_and_safe_as_file_names(tmp_path: Path) -> None:
    names = ("cat.png", "cat.bmp", "a b.png", "a_b.png", "-x.png", "é.png", "long" * 40 + ".png")
    ids = list(open_dataset(f"folder:{pictures(tmp_path, *names)}").ids)
    assert len(set(ids)) == len(names)
    assert {"cat.png", "cat.bmp", "a_b"} <= set(ids)
    for id in ids:
        assert set(id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert id[0] not in ".-"
        assert len(id) <= 100


def test_a_table_gives_prompts_and_masks(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "a.png", "b.png", "below/c.png")
    grey = np.zeros((16, 24), dtype=np.uint8)
    grey[:8] = 1
    saved(Image.fromarray(grey), folder / "mask.png")
    (folder / "prompts.csv").write_text(
        "file,source_prompt,target_prompt,mask,other\n"
        'a.png,"a dog, sitting",a cat,mask.png,1\n'
        "below/c.png,,a horse,,2\n",
        encoding="utf-8-sig",
    )
    dataset = open_dataset(f"folder:{folder}")
    assert list(dataset.ids) == ["a", "b", dataset.ids[2]]  # the mask is none of the pictures
    assert dataset.ids[2].startswith("below_c-")
    assert list(dataset.broken) == []
    first, second, third = dataset
    assert (first.prompt, first.target_prompt) == ("a dog, sitting", "a cat")
    assert torch.equal(first.mask[0], torch.from_numpy(grey).float())
    assert first.extra["notes"] == ["mask: 1, on 0, is to be edited: 50.0% of the picture"]
    assert first.mask.shape == (1, 16, 24)
    assert (second.prompt, second.mask) == (None, None)
    assert (third.prompt, third.target_prompt) == (None, "a horse")


def test_json_lines_say_the_same_as_csv(tmp_path: Path) -> None:
    row = {"file": "a.png", "source_prompt": "a dög", "target_prompt": "a\u2028cat"}
    as_csv, as_lines = pictures(tmp_path / "csv", "a.png"), pictures(tmp_path / "lines", "a.png")
    (as_csv / "prompts.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n", encoding="utf-8")
    (as_lines / "prompts.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n\n", encoding="utf-8")
    found = [open_dataset(f"folder:{folder}")[0] for folder in (as_csv, as_lines)]
    assert found[0].prompt == "a dög"
    assert found[0].digest() == found[1].digest()


def test_a_broken_row_is_named_with_its_reason_and_skipped(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set", "a.png", "b.png", "c.png")
    saved(colourful(9), tmp_path / "outside.png")
    os.symlink(tmp_path / "outside.png", folder / "link.png")
    rows = [
        {"file": "a.png", "source_prompt": "a dog"},
        {"file": "a.png", "source_prompt": "a dog"},
        {"file": "gone.png"},
        {"file": "../outside.png"},
        {"file": "below/../../outside.png"},
        {"file": str(tmp_path / "outside.png")},
        {"file": "C:\\outside.png"},
        {"file": "link.png"},
        {"file": "nul\0.png"},
        {"file": "b.png", "mask": "../outside.png"},
        {"file": "c.png", "target_prompt": 7},
        {"source_prompt": "of nothing"},
        [1],
    ]
    lines = [json.dumps(row) for row in rows]
    (folder / "prompts.jsonl").write_text("\n".join([*lines, "{not json"]) + "\n")
    dataset = open_dataset(f"folder:{folder}")
    assert list(dataset.ids) == ["a"]
    assert dataset[0].prompt == "a dog"
    reasons = sorted(reason for _, reason in dataset.broken)
    assert len(reasons) == 13
    for said, times in {
        "leads out of the data set's folder": 6,
        "there is no file 'gone.png'": 1,
        "is no file name": 1,
        "another row says the same": 1,
        "target_prompt is a int, not a text": 1,
        "it names no file": 1,
        "line 13 is no JSON object": 1,
        "line 14 is not JSON": 1,
    }.items():
        assert sum(said in r for r in reasons) == times, (said, reasons)
    assert reason(dataset, "row-12") == "it names no file"


def test_what_turns_out_to_be_broken_is_bad_input_when_it_is_opened(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "a.png", "c.png", "d.png", "e.png")
    damaged(folder / "b.png")
    saved(Image.new("L", (10, 10), 255), folder / "small-mask.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    damaged(folder / "masks" / "d.png")
    table = "file,mask\nc.png,small-mask.png\nd.png,masks/d.png\n"
    (folder / "prompts.csv").write_text(table)
    dataset = open_dataset(f"folder:{folder}")
    good, bad = [], {}
    for k, id in enumerate(dataset.ids):
        try:
            good.append(dataset[k].id)
        except BadInput as error:
            bad[id] = str(error)
    assert good == ["a", "e"]
    assert set(bad) == {"b", "c", "d", "empty", "text"}
    assert "damaged or cut short" in bad["b"]
    assert "its mask is 10x10 and its picture 24x16" in bad["c"]
    assert "damaged" in bad["d"]


def test_a_table_that_cannot_be_one_is_bad_input(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "a.png")
    (folder / "prompts.csv").write_text("name,prompt\na.png,a dog\n")
    with pytest.raises(BadInput, match="no column 'file'; found name, prompt; known are file, source_prompt"):
        open_dataset(f"folder:{folder}")
    (folder / "prompts.csv").write_text('file,source_prompt\na.png,"a dog\n')
    with pytest.raises(BadInput, match="is not CSV"):
        open_dataset(f"folder:{folder}")
    (folder / "prompts.csv").write_bytes(b"file,source_prompt\na.png,\xff\xfe\n")
    with pytest.raises(BadInput, match="cannot be read as text"):
        open_dataset(f"folder:{folder}")
    (folder / "prompts.csv").write_text("file,source_prompt\na.png,a dog,too,much\n")
    with pytest.raises(BadInput, match="a: its row has 2 cells more than there are columns"):
        open_dataset(f"folder:{folder}")
    (folder / "prompts.jsonl").write_text("")
    with pytest.raises(BadInput, match="holds both prompts.csv and prompts.jsonl"):
        open_dataset(f"folder:{folder}")


def test_a_set_without_a_good_row_says_why(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("file\ngone.png\nlost.png\n")
    with pytest.raises(BadInput, match=r"none of its 2 rows can be used: gone: there is no file 'gone.png'"):
        open_dataset(f"folder:{tmp_path}")


def test_a_limit_counts_good_rows_and_looks_no_further(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "b.png", "c.png", "d.png")
    (folder / "prompts.csv").write_text("file\na.png\ne.png\n")
    dataset = open_dataset(f"folder:{folder},limit=2")
    assert list(dataset.ids) == ["b", "c"]
    assert [id for id, _ in dataset.broken] == ["a"]


def test_a_digest_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "a.png", "b.png")
    saved(colourful(0), folder / "copy.bmp")
    plain = {item.id: item.digest() for item in open_dataset(f"folder:{folder}")}
    assert plain["a"] == plain["copy"] != plain["b"]
    found = {plain["a"]}
    saved(Image.new("L", (24, 16), 255), folder / "white.png")
    saved(Image.new("L", (24, 16), 0), folder / "black.png")
    for row in ("a.png,x,,", "a.png,,x,", "a.png,,,white.png", "a.png,,,black.png", "a.png,x,y,"):
        (folder / "prompts.csv").write_text(f"file,source_prompt,target_prompt,mask\n{row}\n")
        found.add(open_dataset(f"folder:{folder}")[0].digest())
    assert len(found) == 6


def test_pictures_are_opened_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures(tmp_path, *(f"{k}.png" for k in range(5)))
    opened: list[str] = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda file, **more: (opened.append("one"), original(file, **more))[1])
    dataset = open_dataset(f"folder:{folder}")
    assert (len(dataset), opened) == (5, [])
    dataset[3]
    assert opened == ["one"]


def test_a_picture_over_the_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsample.media import pictures as loader

    monkeypatch.setattr(loader, "MAX_PIXELS", 100)
    dataset = open_dataset(f"folder:{pictures(tmp_path, 'a.png')}")
    with pytest.raises(BadInput, match="megapixels"):
        dataset[0]


@pytest.mark.parametrize("name", ["celeba", "lsun"])
def test_a_plain_folder_is_read_at_any_depth_in_order(name: str, tmp_path: Path) -> None:
    folder = pictures(tmp_path, "2.png", "1/b.webp", "1/a/c.jpg", ".hidden/x.png")
    (folder / "list_eval_partition.txt").write_text("2.png 0\n")
    dataset = open_dataset(f"{name}:{folder}")
    assert len(dataset) == 3
    assert [id.rpartition("-")[0] or id for id in dataset.ids] == ["1_a_c", "1_b", "2"]
    assert {item.prompt for item in dataset} == {None}
    assert len(open_dataset(f"{name}:{folder},limit=2")) == 2
    assert pickle.loads(pickle.dumps(dataset))[0].digest() == dataset[0].digest()


def test_an_lmdb_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "church_outdoor_val_lmdb").mkdir()
    (tmp_path / "church_outdoor_val_lmdb" / "data.mdb").write_bytes(b"x")
    with pytest.raises(BadInput, match="holds an LMDB; export it"):
        open_dataset(f"lsun:{tmp_path}")
