"""`list`, `parquet` and `webdataset`: what a collection is read from, with a broken row of each kind."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from unsample.collections.sources import is_collection, open_source
from unsample.datasets import open_dataset
from unsample.errors import BadInput


def png(colour: str = "red", size: tuple[int, int] = (16, 16)) -> bytes:
    """A picture as a file has it."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """A tar of these files."""
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            opened.addfile(about, io.BytesIO(content))
    return path


def test_a_list_has_prompts_a_row_and_names_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "in/b.png"):
        (tmp_path / name).write_bytes(png())
    rows = [
        "file,source_prompt,target_prompt",
        "a.png,one,two",
        "in/b.png,three,",
        "a.png,four,five",
        "gone.png,,",
        ",six,",
    ]
    (tmp_path / "list.csv").write_text("\n".join([*rows, "../out.png,,"]))
    data = open_dataset(f"list:{tmp_path / 'list.csv'}")
    assert data.ids[0] == "a"
    assert [(item.prompt, item.target_prompt) for item in (data[k] for k in range(3))] == [
        ("one", "two"), ("three", None), ("four", "five"),
    ]  # fmt: skip
    reasons = [reason for _, reason in data.broken]
    assert ["no file" in reasons[0], "names no file" in reasons[1], "leads out" in reasons[2]] == [True] * 3
    lines = [json.dumps({"file_name": "b.png", "caption": "a cat"}), "not JSON"]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    other = open_dataset(f"list:{tmp_path / 'list.jsonl'},images={tmp_path / 'in'}")
    assert (other[0].prompt, len(other.broken)) == ("a cat", 1)


def test_members_of_a_tar_that_have_one_name_are_a_sample(tmp_path: Path) -> None:
    mask = png("white")
    members = {
        "0.png": png("red"), "0.txt": b"a cat", "0.target.txt": b"a dog", "0.mask.png": mask,
        "1.JPG": png("blue"), "1.json": json.dumps({"caption": "a bird", "target_prompt": "a fish"}).encode(),
        "2.txt": b"no picture", "3.png": b"damaged", "4.png": png(), "4.json": b"[1]", "5.bin": b"-", "../6.png": png(),
    }  # fmt: skip
    tar(tmp_path / "part-0.tar", members)
    tar(tmp_path / "part-1.tar", {"0.png": png(), "x/7.png": png("lime")})
    for place in (tmp_path, f"{tmp_path}/part-*.tar"):
        data = open_dataset(f"webdataset:{place}")
        assert [id.partition("-")[0] for id in data.ids] == ["0", "1", "3", "6", "x_7"]  # nothing is unpacked
    item = data[0]
    assert (item.prompt, item.target_prompt) == ("a cat", "a dog")
    assert item.mask is not None
    assert item.mask.mean() == 1
    assert (data[1].prompt, data[1].target_prompt, data[1].image.getpixel((0, 0))) == ("a bird", "a fish", (0, 0, 255))
    assert "no picture" in dict(data.broken)["2"]
    assert "no JSON object" in dict(data.broken)["4"]
    assert "another row has this id" in dict(data.broken)["0"]
    with pytest.raises(BadInput):
        data[2]
    part = pickle.loads(pickle.dumps(data.picked([1])))  # type: ignore[attr-defined]
    assert part[0].prompt == "a bird"


def test_a_tar_that_is_compressed_or_cut_short_is_refused(tmp_path: Path) -> None:
    packed = tar(tmp_path / "a.tar", {"0.png": png()}, "w:gz")
    with pytest.raises(BadInput, match="compressed"):
        open_dataset(f"webdataset:{packed}")
    whole = tar(tmp_path / "b.tar", {"0.png": png(size=(64, 64))})
    data = open_dataset(f"webdataset:{whole}")
    whole.write_bytes(whole.read_bytes()[:600])
    with pytest.raises(BadInput, match="ends within"):
        data[0]


def test_a_table_has_pictures_as_bytes_structs_or_paths(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "c.png").write_bytes(png("lime"))
    cells = [{"bytes": png("red"), "path": None}, {"bytes": None, "path": "c.png"}, {"bytes": None, "path": "../d.png"}]
    table = pa.table({"image": cells, "key": ["a", "b", "c"], "text": ["one", None, "three"]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    data = open_dataset(f"parquet:{tmp_path / 't.parquet'}")
    assert data.ids == ("a", "b", "c")
    assert [data[k].image.getpixel((0, 0)) for k in range(2)] == [(255, 0, 0), (0, 255, 0)]
    assert (data[0].prompt, data[1].prompt) == ("one", None)
    with pytest.raises(BadInput, match="leads out"):
        data[2]
    pq.write_table(pa.table({"image": [png()]}), tmp_path / "u.parquet")
    assert open_dataset(f"parquet:{tmp_path / 'u.parquet'}").ids == ("row-0",)
    pq.write_table(pa.table({"words": ["x"]}), tmp_path / "v.parquet")
    with pytest.raises(BadInput, match="no column of pictures"):
        open_dataset(f"parquet:{tmp_path / 'v.parquet'}")


def test_an_item_is_what_it_was_as_long_as_its_file_and_texts_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    table = tmp_path / "prompts.csv"

    def stamp(prompt: str) -> str:
        table.write_text(f"file,source_prompt\na.png,{prompt}\n")
        return open_dataset(f"folder:{tmp_path}").stamp(0)  # type: ignore[attr-defined, no-any-return]

    first = stamp("one")
    assert stamp("one") == first
    assert stamp("two") != first
    os.utime(tmp_path / "a.png", (1, 1))
    assert stamp("one") != first


def test_what_holds_many_is_a_collection_and_files_are_none(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "in/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    for text in (str(tmp_path), "list.csv", "x.JSONL", "t.parquet", "part-*.tar", "scenes:20"):
        assert is_collection([text])
    for texts in (["a.png"], ["*.png"], ["a.png", "b.png"], [str(tmp_path), str(tmp_path)], ["no/such"]):
        assert not is_collection(texts)
    assert open_source([str(tmp_path)]).ids == ("a", "b")
    nested = open_source([f"{tmp_path}/**/*.png"]).ids
    assert [id.partition("-")[0] for id in nested] == ["a", "b", "in_c"]
    files = open_source([str(tmp_path / "a.png"), str(tmp_path / "gone.png")])
    assert (len(files), "not there" in files.broken[0][1]) == (1, True)
    with pytest.raises(BadInput, match="no file matches"):
        open_source([f"{tmp_path}/*.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no pictures"):
        open_source([str(tmp_path / "empty")])
