"""Tables of prompts as they come: other headers, separators and layouts, cells of any kind, and too large files."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.datasets.sets import colourful, genai_row, pie_folder, pie_row, saved, write_parquet
from unsample.datasets import index, limits, open_dataset
from unsample.errors import BadInput

WORDS = ("a dog, sitting", "a cat")


def folder_with(folder: Path, table: str, content: str | bytes, *names: str) -> str:
    for name in names or ("a.png",):
        saved(colourful(1), folder / name)
    (folder / table).write_bytes(content.encode() if isinstance(content, str) else content)
    return f"folder:{folder}"


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("prompts.csv", 'file,source_prompt ,target_prompt\na.png,"a dog, sitting",a cat\n'),
        ("prompts.csv", '"File", Source_Prompt,TARGET_PROMPT\na.png , "a dog, sitting", a cat \n'),
        ("prompts.csv", "\ufeff\ufefffile;Source Prompt;target-prompt\r\na.png;a dog, sitting;a cat\r\n;;\r\n"),
        ("prompts.csv", "sep=;\nfile;source_prompt;target_prompt\na.png;a dog, sitting;a cat\n"),
        ("prompts.csv", "file\tsource_prompt\ttarget_prompt\na.png\ta dog, sitting\ta cat\n"),
        ("prompts.tsv", "\n\nfile\tsource_prompt\ttarget_prompt\na.png\ta dog, sitting\ta cat\n"),
        ("prompts.csv", "target_prompt,file,,source_prompt,\na cat,.\\a.png,1,\"a dog, sitting\",\n"),
        ("metadata.csv", 'file_name,text,Target_Prompt\na.png,"a dog, sitting",a cat\n'),
        ("metadata.jsonl", '{"file_name": "a.png", "Caption ": "a dog, sitting", "target_prompt": "a cat", "": 1}\n'),
    ],
)  # fmt: skip
def test_a_table_is_read_whatever_its_header_and_separator(tmp_path: Path, table: str, content: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = open_dataset(folder_with(tmp_path, table, content))
    assert list(dataset.broken) == []
    assert [(item.id, item.prompt, item.target_prompt) for item in dataset] == [("a", *WORDS)]


def test_a_table_in_parquet_is_read_without_its_other_columns(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    saved(colourful(1), tmp_path / "a.png")
    write_parquet(tmp_path / "metadata.parquet", [{"File_Name": "a.png", "text": WORDS[0], "big": colourful(2)}])
    assert open_dataset(f"folder:{tmp_path}")[0].prompt == WORDS[0]


def test_a_folder_with_its_own_table_needs_no_other(tmp_path: Path) -> None:
    spec = folder_with(tmp_path, "prompts.csv", "file,source_prompt\na.png,a dog\n")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat\n")
    assert open_dataset(spec)[0].prompt == "a dog"


def test_text_over_several_lines_is_one_cell(tmp_path: Path) -> None:
    spec = folder_with(tmp_path, "prompts.csv", 'file,source_prompt\na.png,"a dog\nand a\u2028cat"\n')
    assert open_dataset(spec)[0].prompt == "a dog\nand a\u2028cat"


def test_several_edits_of_one_picture_are_items_of_their_own(tmp_path: Path) -> None:
    rows = ["a.png,a cat", "./a.png,a cow", "a-2.png,a pig", "a.png,a cat", "below\\c.png,a hen", "a.png,a fox"]
    names = ("a.png", "a-2.png", "below/c.png")
    spec = folder_with(tmp_path, "prompts.csv", "\n".join(["file,target_prompt", *rows]), *names)
    dataset = open_dataset(spec)
    told = {item.id: item.target_prompt for item in dataset}
    below = next(id for id in told if id.startswith("below_c-"))
    assert told == {"a-2": "a pig", "a": "a cat", "a-3": "a cow", "a-5": "a fox", below: "a hen"}
    assert list(dataset.broken) == [("a-4", "another row says the same; the first one counts")]


def test_columns_that_are_one_but_for_blanks_and_capitals_are_refused_by_name(tmp_path: Path) -> None:
    spec = folder_with(tmp_path, "prompts.csv", "file,source_prompt,Source_Prompt \na.png,x,y\n")
    with pytest.raises(BadInput, match="columns 'source_prompt' and 'Source_Prompt ', which are one"):
        open_dataset(spec)
    lines = '{"file": "a.png", "mask": "x", "Mask": "y"}\n{"file": "a.png", "file": "b.png"}\n{"file": "a.png"}\n'
    (tmp_path / "prompts.csv").rename(tmp_path / "old")
    dataset = open_dataset(folder_with(tmp_path, "prompts.jsonl", lines))
    assert [reason.partition(" has")[0] for _, reason in dataset.broken] == ["line 1", "line 2"]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("file,original,edited", "only 'file' is known, not original, edited; known are file, source_prompt"),
        ("file,source_prompt,traget_prompt", "'traget_prompt' is not known; did you mean 'target_prompt'"),
        ("file,text,caption", "'caption' is left alone, 'text' is taken for source_prompt"),
    ],
)
def test_it_is_warned_of_columns_that_may_have_been_meant(tmp_path: Path, header: str, said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        open_dataset(folder_with(tmp_path, "prompts.csv", f"{header}\na.png,x,y\n"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("file\tsource_prompt\na.png\ta dog".encode("utf-16"), "is text in UTF-16, as Excel's"),
        ("file,source_prompt\na.png,a dog".encode("utf-16-le"), "is text in UTF-16"),
        (b"PK\3\4" + bytes(60), "is a spreadsheet or an archive"),
        ("name,prompt\n", "has no column 'file'; found name, prompt; known are file, source_prompt"),
        ("file,source_prompt\na.png," + "x" * 200_000, "is not CSV: field larger than field limit"),
    ],
)
def test_what_is_no_table_is_said_in_words(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        open_dataset(folder_with(tmp_path, "prompts.csv", content))


CELL = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**400) | st.floats()
    | st.text(st.characters(), max_size=6) | st.sampled_from(["a.png", "\ud800", "b\udc80.png", "\0", "x" * 300]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)  # fmt: skip
KEY = st.sampled_from(["file", "source_prompt", "target_prompt", "mask", "", "File", "\ud800", "text"])
ANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANY
@given(rows=st.lists(st.dictionaries(KEY, CELL, max_size=4), max_size=3))
def test_whatever_the_cells_of_a_folder_hold_the_good_row_is_an_item(tmp_path: Path, rows: list[Any]) -> None:
    lines = [json.dumps(row) for row in [{"file": "good.png", "source_prompt": "x"}, *rows]]
    more = ["[" * 5000 + "]" * 5000, '{"file": ' + "9" * 5000 + "}", '{"": 1}', '{"file": "a.png", "": 1}']
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = open_dataset(folder_with(tmp_path, "prompts.jsonl", "\n".join(lines + more), "good.png", "a.png"))
    assert "good" in dataset.ids
    assert len({*dataset.ids}) == len(dataset)
    for item in dataset:
        assert item.prompt is None or item.prompt.encode()


@ANY
@given(cell=CELL, other=CELL)
def test_whatever_a_row_of_an_index_holds_the_others_are_read(tmp_path: Path, cell: Any, other: Any) -> None:
    wrong = [pie_row(1, **{key: cell}) for key in ("image_path", "original_prompt", "mask", "editing_type_id")]
    pie_folder(tmp_path / "pie", {"good": pie_row(0)})
    rows = {"good": pie_row(0)} | {f"{k}\ud800": row for k, row in enumerate([*wrong, other])}
    (tmp_path / "pie" / "mapping_file.json").write_text(json.dumps(rows))
    assert open_dataset(f"pie_bench:{tmp_path / 'pie'}").ids[0] == "good"
    saved(colourful(1), tmp_path / "coco" / "1.jpg")
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": cell, "file_name": "1.jpg"}, {"id": 2, "file_name": cell}, other]
    captions = [{"id": 1, "image_id": 1, "caption": "x"}, {"id": cell, "image_id": 2, "caption": other}, other]
    captions.append({"id": 2, "image_id": cell, "caption": "\ud800"})
    (tmp_path / "coco.json").write_text(json.dumps({"": cell, "annotations": captions, "images": images}))
    dataset = open_dataset(f"coco:{tmp_path}/coco.json,images={tmp_path}/coco")
    assert (dataset.ids[0], dataset[0].prompt) == ("1", "x")


def test_one_text_that_is_no_unicode_is_one_broken_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    saved(colourful(1), tmp_path / "coco" / "1.jpg")
    saved(colourful(2), tmp_path / "coco" / "2.jpg")
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}]
    captions = [{"id": k, "image_id": k, "caption": word} for k, word in ((1, "\ud83d"), (2, "a bus"))]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": captions}))
    dataset = open_dataset(f"coco:{tmp_path}/c.json,images={tmp_path}/coco")
    assert (list(dataset.ids), dict(dataset.broken)["1"]) == (
        ["2"], "caption holds half a letter (an unpaired surrogate); save it as UTF-8",
    )  # fmt: skip
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a dog", b"a \xff"], pa.binary()).buffers())
    pictures = pa.array([genai_row(0)["source_image"].tobytes()] * 2)
    pa.parquet.write_table(pa.table({"source_image": pictures, "target_prompt": texts}), tmp_path / "g.parquet")
    dataset = open_dataset(f"genai_bench:{tmp_path}/g.parquet")
    assert list(dataset.broken) == [("000001", "target_prompt is no text in UTF-8")]


# ---------------------------------------------------------------- memory


def peak(spec: str) -> int:
    """The most bytes that Python held while a set was opened."""
    tracemalloc.start()
    try:
        open_dataset(spec)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_text_that_stands_in_many_rows_of_parquet_is_held_once(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow as pa

    rows, long = 3000, "a dog " * 2000
    table = {"source_image": [b"x"] * rows, "source_prompt": [long] * rows, "target_prompt": [long + "!"] * rows}
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "test.parquet"
    pa.parquet.write_table(pa.table(table), path)
    assert path.stat().st_size < 100_000
    assert peak(f"genai_bench:{tmp_path}") < 10_000_000  # 72 MB where each row has its own


def test_a_row_group_that_would_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    from unsample.datasets import parquet

    write_parquet(tmp_path / "test.parquet", [genai_row(k) for k in range(4)], group=4)
    monkeypatch.setattr(parquet, "MAX_GROUP", 1000)
    dataset = open_dataset(f"genai_bench:{tmp_path}")
    with pytest.raises(BadInput, match="has a row group of .* GB and 4 rows, the limits are .* smaller row groups"):
        dataset[0]
    monkeypatch.setattr(parquet, "MAX_BYTES", 10)
    with pytest.raises(BadInput, match="has a row group"):
        open_dataset(f"genai_bench:{tmp_path}")


def test_a_picture_that_stands_in_many_rows_of_parquet_is_held_once(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from tests.datasets.sets import png
    from unsample.datasets import parquet

    once = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array([png(colourful(1, (200, 200)))]))
    table = pa.table({"source_image": once, "target_prompt": ["x"] * 2000})
    pa.parquet.write_table(table, tmp_path / "test.parquet", row_group_size=2000, store_schema=False)
    dataset = open_dataset(f"genai_bench:{tmp_path}")
    assert dataset[1999].image.size == (200, 200)
    assert parquet._table(tmp_path / "test.parquet", 0, ("source_image",)).nbytes < 1_000_000  # 240 MB unfolded


def test_an_index_with_too_many_rows_is_refused_and_its_first_ones_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ROWS", 5)
    folder = pie_folder(tmp_path / "pie", {f"{k}": pie_row(k) for k in range(6)})
    with pytest.raises(BadInput, match="has over 5 rows; split it, or take the first ones with limit="):
        open_dataset(f"pie_bench:{folder}")
    assert len(open_dataset(f"pie_bench:{folder},limit=4")) == 4
    lines = "\n".join(json.dumps({"file": "a.png", "source_prompt": str(k)}) for k in range(6))
    with pytest.raises(BadInput, match="has over 5 rows; split it"):
        open_dataset(folder_with(tmp_path, "prompts.jsonl", lines))
    monkeypatch.setattr(index, "MAX_JSON", 50)
    with pytest.raises(BadInput, match="the limit is 0 MB; split it"):
        open_dataset(f"pie_bench:{folder}")


def test_the_rows_of_a_mapping_are_read_one_by_one(tmp_path: Path) -> None:
    row = json.dumps({"image_path": "gone.png", "blended_word": list(range(300, 600))})
    (tmp_path / "mapping_file.json").write_text("{" + ", ".join(f'"{k}": {row}' for k in range(1500)) + "}")
    with pytest.raises(BadInput, match="none of its 1500 rows"):
        open_dataset(f"pie_bench:{tmp_path}")
    tracemalloc.start()
    with pytest.raises(BadInput):
        open_dataset(f"pie_bench:{tmp_path}")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 12_000_000  # the text is 2.3 MB, twice while it is decoded; more than 20 MB where all rows are held
