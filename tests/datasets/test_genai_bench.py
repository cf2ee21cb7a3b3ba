"""`genai_bench`: parquet files whose columns are found when they are opened, and the package `datasets`."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.datasets.sets import colourful, genai_row, png, write_parquet
from unsample.datasets import open_dataset
from unsample.datasets.genai_bench import find_columns
from unsample.errors import BadInput

FILE = "image_edition/test_v1-00000-of-00001.parquet"


def test_the_image_edition_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / FILE, [genai_row(k) for k in range(5)])
    dataset = open_dataset(f"genai_bench:{tmp_path}")
    assert list(dataset.ids) == [f"{k:06d}" for k in range(5)]
    assert list(dataset.broken) == []
    item = dataset[3]
    assert (item.prompt, item.target_prompt) == ("a photo of 3 dogs", "a photo of 3 cats")
    assert np.array_equal(np.asarray(item.image), np.asarray(colourful(3)))
    assert {k: v for k, v in item.extra.items() if isinstance(v, str)} == {
        "instruct_prompt": "replace the dogs by cats",
        "left_model": "Prompt2prompt",
        "right_model": "CycleDiffusion",
        "vote_type": "leftvote",
    }
    assert np.array_equal(np.asarray(item.extra["right_output_image"]), np.asarray(colourful(203)))
    assert pickle.loads(pickle.dumps(dataset))[3].digest() == item.digest()
    assert len({item.digest() for item in dataset}) == 5


def test_columns_are_found_by_their_kin_and_bytes_need_no_struct(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    row = {"Input_Image": png(colourful(1)), "instruction": "make it blue", "vote": "bothbad_vote", "uid": 3}
    write_parquet(tmp_path / "data.parquet", [row])
    item = open_dataset(f"genai_bench:{tmp_path}/data.parquet")[0]
    assert (item.prompt, item.target_prompt) == (None, None)
    assert item.extra == {"instruct_prompt": "make it blue", "vote_type": "bothbad_vote"}
    assert item.image.size == (24, 16)


def test_other_columns_are_refused_with_those_that_were_found(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    row = {"prompt": "a dog", "left_image": colourful(1), "right_image": colourful(2), "vote_type": "x"}
    write_parquet(tmp_path / "image_generation" / "test-00000-of-00001.parquet", [row])
    with pytest.raises(BadInput, match="not the image edition.*found prompt, left_image, right_image, vote_type"):
        open_dataset(f"genai_bench:{tmp_path}")
    with pytest.raises(BadInput, match="needs a column source_image"):
        find_columns(["source_prompt", "target_prompt"])
    with pytest.raises(BadInput, match="columns 'SOURCE_IMAGE' and 'source_image', which are one"):
        find_columns(["image", "SOURCE_IMAGE", "source_image", "target_prompt"])
    assert find_columns(["image", "Source_Image ", "target_prompt"])["source_image"] == "Source_Image "


def test_of_several_editions_and_splits_one_is_taken_and_never_guessed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "image_edition/test-00000-of-00002.parquet", [genai_row(0), genai_row(1)])
    write_parquet(tmp_path / "image_edition/test-00001-of-00002.parquet", [genai_row(2)])
    write_parquet(tmp_path / "image_generation/test-00000-of-00001.parquet", [{"prompt": "a dog"}])
    dataset = open_dataset(f"genai_bench:{tmp_path}")
    assert [item.prompt for item in dataset] == [f"a photo of {k} dogs" for k in range(3)]
    write_parquet(tmp_path / FILE, [genai_row(7)])
    with pytest.raises(BadInput, match="holds the splits test, test_v1; choose with split=test_v1"):
        open_dataset(f"genai_bench:{tmp_path}")
    assert [item.prompt for item in open_dataset(f"genai_bench:{tmp_path},split=test_v1")] == ["a photo of 7 dogs"]
    with pytest.raises(BadInput, match="holds the splits test, test_v1"):
        open_dataset(f"genai_bench:{tmp_path},split=train")
    with pytest.raises(BadInput, match="no folder 'edition'"):
        open_dataset(f"genai_bench:{tmp_path},config=edition")


def test_the_layout_that_the_hub_converts_to_is_read_too(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for split in ("test", "test_v1"):
        write_parquet(tmp_path / "image_edition" / split / "0000.parquet", [genai_row(len(split))])
    assert open_dataset(f"genai_bench:{tmp_path},split=test_v1")[0].prompt == "a photo of 7 dogs"


def test_broken_rows_are_named_and_skipped(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [
        genai_row(0),
        genai_row(1, target_prompt=None),
        genai_row(2, source_prompt="  "),
        genai_row(3, source_image=None),
        genai_row(4, source_image={"bytes": png(colourful(4))[:200], "path": None}),
        genai_row(5, left_output_image=None, vote_type=None),
        genai_row(6, source_image={"bytes": None, "path": "/etc/hostname"}),
    ]
    write_parquet(tmp_path / FILE, rows, group=3)
    dataset = open_dataset(f"genai_bench:{tmp_path}")
    assert dict(dataset.broken) == {"000001": "it has no target_prompt", "000002": "it has no source_prompt"}
    good, bad = [], {}
    for k, id in enumerate(dataset.ids):
        try:
            good.append(dataset[k])
        except BadInput as error:
            bad[id] = str(error)
    assert [item.id for item in good] == ["000000", "000005"]
    assert set(bad) == {"000003", "000004", "000006"}
    assert "its source_image is missing" in bad["000003"]
    assert "damaged or cut short" in bad["000004"]
    assert "leads out" in bad["000006"]
    assert "left_output_image" not in good[1].extra
    assert "vote_type" not in good[1].extra


def test_a_folder_without_parquet_and_a_damaged_file_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no \.parquet file"):
        open_dataset(f"genai_bench:{tmp_path}")
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(BadInput, match="is no parquet file, or damaged"):
        open_dataset(f"genai_bench:{tmp_path}")


@pytest.mark.parametrize("name", ["genai_bench", "pie_bench"])
def test_without_pyarrow_the_extra_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsample.datasets import parquet

    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"needs pyarrow: pip install 'unsample\[parquet\]'"):
        open_dataset(f"{name}:{tmp_path}")


def test_only_one_row_group_is_read_for_an_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    from unsample.datasets import parquet

    write_parquet(tmp_path / FILE, [genai_row(k) for k in range(6)], group=2)
    dataset = open_dataset(f"genai_bench:{tmp_path}")
    read: list[int] = []
    original = parquet._table
    monkeypatch.setattr(
        parquet, "_table", lambda file, group, columns: (read.append(group), original(file, group, columns))[1]
    )
    for k in (4, 5, 4):
        dataset[k]
    assert read == [2]


# ---------------------------------------------------------------- the package `datasets`, which is not installed here


class Table(list[dict[str, Any]]):
    """What `datasets` gives, as far as it is used."""

    cast: tuple[str, ...] = ()

    @property
    def column_names(self) -> list[str]:
        return list(self[0])

    def cast_column(self, name: str, kind: Any) -> Table:
        assert kind == "not decoded"
        table = Table(self)
        table.cast = (*self.cast, name)
        return table

    def select_columns(self, names: list[str]) -> list[dict[str, Any]]:
        return [{name: row[name] for name in names} for row in self]


def stand_in(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    from unsample.datasets import genai_bench

    module = ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    module.Image = lambda decode: "not decoded" if not decode else "decoded"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(genai_bench, "find_spec", lambda name: object())


def test_a_hub_id_is_loaded_by_the_package_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(value: Any) -> Any:
        return value if isinstance(value, str) else {"bytes": png(value), "path": None}

    table = Table({key: cell(value) for key, value in genai_row(k).items()} for k in range(3))
    asked: list[Any] = []

    def load(name: str, config: str | None, split: str | None) -> Any:
        asked.append((name, config, split))
        return {"test": table, "test_v1": table} if split is None else table

    stand_in(monkeypatch, load)
    dataset = open_dataset("genai_bench:TIGER-Lab/GenAI-Bench,split=test_v1,limit=2")
    assert asked == [("TIGER-Lab/GenAI-Bench", "image_edition", "test_v1")]
    assert [item.prompt for item in dataset] == ["a photo of 0 dogs", "a photo of 1 dogs"]
    assert np.array_equal(np.asarray(dataset[1].image), np.asarray(colourful(1)))
    with pytest.raises(BadInput, match="holds the splits test, test_v1; choose with split="):
        open_dataset("genai_bench:someone/copy")
    assert asked[-1] == ("someone/copy", None, None)


def test_a_hub_id_that_cannot_be_loaded_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, config: str | None, split: str | None) -> Any:
        raise ConnectionError("Couldn't reach the hub\nand more")

    stand_in(monkeypatch, load)
    with pytest.raises(BadInput, match="cannot load 'someone/copy': Couldn't reach the hub; see config= and split="):
        open_dataset("genai_bench:someone/copy")


def test_without_datasets_a_hub_id_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from unsample.datasets import genai_bench

    monkeypatch.setattr(genai_bench, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"no folder 'someone/copy'.*pip install 'unsample\[datasets\]'"):
        open_dataset("genai_bench:someone/copy")
