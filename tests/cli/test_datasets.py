"""`unsample datasets`: the table, a page, a data set opened; its broken rows, its sheet, its ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.datasets.sets import colourful, damaged, pie_folder, pie_row, saved
from unsample.datasets import DATASETS


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures, one of them damaged, and a row that names none."""
    folder = tmp_path / "pictures"
    for k in (0, 2, 3):
        saved(colourful(k), folder / f"{k}.png")
    damaged(folder / "1.png")
    (folder / "prompts.csv").write_text("file,source_prompt\ngone.png,nothing\n0.png,\x1b[31ma dog\n")
    return folder


def test_the_table_names_every_data_set(run: Run) -> None:
    ended = run("datasets")
    assert ended.code == 0
    assert {line.split()[0] for line in ended.out.splitlines() if line} >= set(DATASETS)
    rows = run("datasets", "--json").json["datasets"]
    assert [row["name"] for row in rows] == list(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_a_name_shows_its_layout_its_options_and_its_licence(run: Run, name: str) -> None:
    ended = run("datasets", name)
    facts = DATASETS[name]
    assert ended.code == 0
    for text in (facts.example, facts.licence, facts.reference, *facts.options, *facts.layout.split()):
        assert text in ended.out
    assert run("datasets", name, "--json").json["datasets"][0]["options"] == dict(facts.options)


def test_scenes_are_opened_and_shown_and_their_sheet_is_written(run: Run) -> None:
    ended = run("datasets", "scenes:20,split=tune", "-n", 3, "-o", "out")
    assert ended.code == 0
    assert "scenes:20,split=tune: 20 items, 0 broken rows (3 were opened; --check opens all)" in ended.out
    assert "tune-2" in ended.out
    assert "tune-3" not in ended.out
    with Image.open("out/scenes.png") as sheet:
        assert sheet.width > 3 * 192  # source, mask, truth
        assert sheet.height > 3 * 192
    assert "wrote out/scenes.png" in ended.err
    again = run("datasets", "scenes:20", "-o", "out")
    assert again.code == 4
    assert "give --overwrite" in again.err
    assert run("datasets", "scenes:20", "-n", 1, "-o", "out", "--overwrite").code == 0


def test_json_says_what_every_item_is(run: Run) -> None:
    found = run("datasets", "scenes:2", "--size", 32, "--json").json
    assert (found["dataset"], found["count"], found["broken"], found["sheet"]) == ("scenes:2,split=report", 2, [], None)
    item = found["items"][0]
    assert (item["id"], item["size"], item["changed"], item["truth"]) == ("report-0", [32, 32], "colour", True)
    assert 0 < item["mask_share"] < 1
    assert len(item["digest"]) == 64


def test_broken_rows_are_named_counted_and_left_out(run: Run, pictures: Path) -> None:
    ended = run("datasets", f"folder:{pictures}", "--check")
    assert ended.code == 0
    assert f"folder:{pictures}: 3 items, 2 broken rows (every item was opened)" in ended.out
    assert "gone: there is no file 'gone.png'" in ended.out
    assert "damaged or cut short" in ended.out
    assert "\x1b" not in ended.out
    found = run("datasets", f"folder:{pictures}", "--check", "--json").json
    assert [row["id"] for row in found["broken"]] == ["gone", "1"]
    assert [item["id"] for item in found["items"]] == ["0", "2", "3"]


def test_only_what_is_shown_is_opened(run: Run, pictures: Path) -> None:
    found = run("datasets", f"folder:{pictures}", "-n", 1, "--json").json
    assert (found["opened"], found["checked"], found["count"], len(found["broken"])) == (1, False, 4, 1)
    found = run("datasets", f"folder:{pictures}", "-n", 2, "--json").json
    assert (found["opened"], [item["id"] for item in found["items"]]) == (3, ["0", "2"])


def test_a_set_of_which_nothing_can_be_opened_ends_with_4(run: Run, tmp_path: Path) -> None:
    damaged(tmp_path / "all" / "a.png")
    ended = run("datasets", "folder:all", "--json")
    assert ended.code == 4
    assert "none of the 1 items that were opened can be read: a: " in ended.json["error"]["message"]


def test_pie_bench_is_shown_with_its_masks(run: Run, tmp_path: Path) -> None:
    rows = {"0": pie_row(0), "1": pie_row(1, category=8), "2": pie_row(2, mask=[3])}
    pie_folder(tmp_path / "pie", rows)
    ended = run("datasets", "pie_bench:pie", "-o", "out", "--json")
    assert ended.code == 0, ended.err
    assert [item["category"] for item in ended.json["items"]] == ["random", "change_background"]
    assert ended.json["broken"] == [
        {"id": "2", "reason": "its mask has 1 numbers; pairs of start and length are wanted"}
    ]
    assert ended.json["sheet"] == "out/pie_bench.png"
    with Image.open("out/pie_bench.png") as sheet:
        assert sheet.width < 3 * 256 + 60  # two panels of at most 256


def test_a_data_set_is_exported_as_pie_bench_and_opened_again(run: Run) -> None:
    ended = run("datasets", "export", "scenes:2", "--as", "pie_bench", "-o", "pie")
    assert (ended.code, ended.out) == (0, "")
    assert "true edits and scenes have no place" in ended.err
    assert "open it as pie_bench:pie" in ended.err
    assert run("datasets", "pie_bench:pie", "--check", "--json").json["count"] == 2
    again = run("datasets", "export", "pie_bench:pie", "--as", "pie_bench", "-o", "pie", "--overwrite")
    assert again.code == 4
    assert "holds pictures of pie_bench:pie" in again.err
    found = run("datasets", "export", "pie_bench:pie", "--as", "pie_bench", "-o", "copy", "--json").json
    assert (found["count"], found["broken"], found["notes"]) == (2, [], [])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("export",), 2, "an export needs a data set"),
        (("export", "scenes:2", "-o", "out"), 2, "an export needs --as pie_bench"),
        (("export", "scenes:2", "--as", "pie_bench"), 2, "an export needs --output DIR"),
        (("export", "scenes:2", "--as", "pie_bench", "-o", "out", "-n", 3), 2, "leave them out of an export"),
        (("scenes:2", "--as", "pie_bench", "-o", "out"), 2, "--as is of an export"),
        (("scenes:2", "scenes:3"), 2, "'scenes:3' is of an export"),
        (("scense:3",), 2, "did you mean 'scenes'"),
        (("scenes:x",), 2, "whole number"),
        (("scenes:2", "-n", 0), 2, "--num-items must be at least 1"),
        (("scenes:2", "-n", 65, "-o", "out"), 2, "at most 64 items"),
        (("scenes:2", "--size", 4), 2, "8 pixels a side or more"),
        (("generated:2", "-o", "out"), 2, "no pictures until a model makes them"),
        (("folder:gone",), 4, "is not there"),
        (("genai_bench:.",), 4, "holds no .parquet file"),
        (("pie_bench:.",), 4, "holds neither"),
    ],
)
def test_a_mistake_ends_with_its_code_and_a_sentence(
    run: Run, arguments: tuple[object, ...], code: int, said: str
) -> None:
    ended = run("datasets", *arguments, "--json")
    assert ended.code == code
    assert said in ended.json["error"]["message"]
    assert not Path("out").exists()
