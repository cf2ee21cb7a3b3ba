"""The text that names a data set: what it may be, how it is normalised, and that every mistake is told clearly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets.sets import colourful, saved
from unsample.datasets import DATASETS, open_dataset
from unsample.datasets.spec import read_spec
from unsample.errors import BadInput, BadOption, UnknownName


@pytest.mark.parametrize(
    ("spec", "normalised"),
    [
        ("scenes", "scenes:64,split=report"),
        ("scenes:200", "scenes:200,split=report"),
        ("scenes,split=tune", "scenes:64,split=tune"),
        ("scenes:split=tune", "scenes:64,split=tune"),
        (" scenes:200 , grain=8.0, split = tune,start=100", "scenes:200,split=tune,start=100,grain=8"),
        ("scenes:200,start=0,grain=0", "scenes:200,split=report"),
        ("scenes:ood", "scenes:64,split=report,ood"),
        ("scenes:5,ood", "scenes:5,split=report,ood"),
        ("scenes:200,limit=3", "scenes:3,split=report"),
        ("scenes:2,limit=3", "scenes:2,split=report"),
        ("scenes:3,edit=size", "scenes:3,split=report,edit=size"),
        ("scenes:3,grain=8,edit=size + place", "scenes:3,split=report,edit=size+place,grain=8"),
        ("scenes:3,edit=colour+shape+background", "scenes:3,split=report"),
        ("generated:128,split=tune", "generated:128,split=tune"),
        ("generated:8,start=4", "generated:8,split=report,start=4"),
    ],
)
def test_a_spec_is_normalised_and_its_normal_form_opens_the_same(spec: str, normalised: str) -> None:
    opened = open_dataset(spec)
    assert opened.spec == normalised
    again = open_dataset(normalised)
    assert again.spec == normalised
    assert list(again.ids) == list(opened.ids)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("scense:3", "did you mean 'scenes'"),
        ("", "known: celeba"),
        ("scenes:3,splitt=tune", "did you mean 'split'"),
        ("scenes:3,split=tun", "did you mean 'tune'"),
        ("scenes:many", "whole number of at least 1; got 'many'"),
        ("scenes:0", "whole number of at least 1; got '0'"),
        ("scenes:-3", "whole number of at least 1; got '-3'"),
        ("scenes:3,start=-1", "start= takes a whole number of at least 0"),
        ("scenes:3,start=99999999", "split report has seeds 0 to 99999999"),
        ("scenes:3,limit=0", "limit= takes a whole number of at least 1"),
        ("scenes:3,limit=", "limit takes N: the first N items only, and got nothing"),
        ("scenes:3,grain=-1", "grain= takes a number of at least 0; got '-1'"),
        ("scenes:3,grain=nan", "grain= takes a number"),
        ("scenes:3,grain=loud", "got 'loud'"),
        ("scenes:3,limit=2,limit=2", "given twice"),
        ("scenes:3,ood,ood", "given twice"),
        ("scenes:3,ood=1", "ood stands alone"),
        ("scenes:3,edit=sise", "unknown edit of scenes 'sise'; did you mean 'size'"),
        ("scenes:3,edit=size+", "unknown edit of scenes ''"),
        ("scenes:3,edit=size+place+size", "edit= names size twice"),
        ("scenes:3,4", "'4' is not key=value"),
        ("scenes:3,", "'' is not key=value"),
        ("generated:3,grain=8", "unknown option of generated 'grain'"),
        ("generated:3,ood", "'ood' is not key=value"),
        ("folder", "folder needs a folder"),
        ("folder:", "folder needs a folder"),
        ("folder:limit=3", "folder needs a folder"),
        ("folder:/pics,limits=3", "did you mean 'limit'"),
        ("folder:/pics,limit=3,more", "'more' is not key=value"),
        ("coco:/captions.json", "coco needs images="),
        ("pie_bench:.,category=11", "unknown category of pie_bench '11'"),
        ("pie_bench:.,category=0+change_objects", "did you mean 'change_object'"),
        ("pie_bench:.,category=0+", "unknown category of pie_bench ''"),
    ],
)
def test_a_malformed_spec_is_a_bad_option_that_says_what_could_be_meant(spec: str, said: str) -> None:
    with pytest.raises(BadOption) as raised:
        open_dataset(spec)
    assert said in str(raised.value)


@pytest.mark.parametrize("name", [n for n, facts in DATASETS.items() if facts.takes_path])
def test_a_missing_path_is_bad_input(name: str, tmp_path: Path) -> None:
    more = f",images={tmp_path}" if name == "coco" else ""
    for path in ("gone", "nul\0", "x" * 300):
        with pytest.raises(BadInput, match="is not there|cannot be opened"):
            open_dataset(f"{name}:{tmp_path}/{path}{more}")


@pytest.mark.parametrize("name", ["folder", "celeba", "lsun"])
def test_a_file_in_place_of_a_folder_and_a_folder_without_pictures_are_bad_input(name: str, tmp_path: Path) -> None:
    file = saved(colourful(0), tmp_path / "a" / "a.png")
    with pytest.raises(BadInput, match="is a file, a folder is wanted"):
        open_dataset(f"{name}:{file}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none")
    with pytest.raises(BadInput, match="there are no rows in it"):
        open_dataset(f"{name}:{tmp_path}/empty")


def test_a_path_may_hold_commas_colons_and_equals_signs(tmp_path: Path) -> None:
    folder = tmp_path / "a=b, c:d,e"
    for k in range(3):
        saved(colourful(k), folder / f"{k}.png")
    opened = open_dataset(f"folder:{folder},limit=2")
    assert opened.spec == f"folder:{folder},limit=2"
    assert list(opened.ids) == ["0", "1"]


def test_every_row_of_the_table_is_whole_and_its_example_is_a_spec() -> None:
    from dataclasses import fields

    from unsample.datasets import Item

    for name, facts in DATASETS.items():
        assert facts.name == name
        assert facts.example.startswith(f"{name}:")
        assert read_spec(facts.example, DATASETS).written() == facts.example
        assert set(facts.has) <= {f.name for f in fields(Item)}
        assert set(facts.flags) <= set(facts.options)
        assert "limit" in facts.options
        assert all((facts.summary, facts.layout, facts.reference, facts.licence, facts.first))


def test_the_page_of_the_docs_has_every_data_set_with_its_example_and_options() -> None:
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    for name, facts in DATASETS.items():
        assert facts.example in page
        assert name in page
        assert all(f"`{key}" in page or f"{key}=" in page for key in facts.options)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from([*DATASETS, ""]), rest=st.text(alphabet=",:=+ adlimtspood0123456789-/\0é", max_size=20))
def test_whatever_a_spec_holds_it_is_opened_or_refused_in_words(name: str, rest: str) -> None:
    try:
        found = read_spec(f"{name}:{rest}", DATASETS)
        if not found.facts.takes_path:  # no walk through the folders of this machine
            found.facts.opens(found, 64)
    except BadOption as error:
        assert str(error)


def test_a_name_in_a_spec_that_is_no_name_is_an_unknown_name() -> None:
    with pytest.raises(UnknownName):
        open_dataset("/data/pictures")


def test_tables_specs_and_ids_need_no_torch(tmp_path: Path) -> None:
    saved(colourful(0), tmp_path / "a.png")
    code = (
        "import sys\n"
        "from unsample.datasets import DATASETS, open_dataset\n"
        f"for spec in ('scenes:1000000', 'scenes:ood', 'generated:3', 'folder:{tmp_path}', 'celeba:{tmp_path}'):\n"
        "    opened = open_dataset(spec); opened.ids[len(opened) - 1]\n"
        "try: open_dataset('scenes:3,split=tun')\n"
        "except Exception as error: assert 'tune' in str(error)\n"
        "print(*[m for m in ('torch', 'numpy', 'PIL', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
