"""Tables of a document: filled between their markers, kept where a run does not hold a row, refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.report.runs import row, value
from unsample.bench.docs import read_docs
from unsample.bench.ledger import PLAN, Ledger
from unsample.bench.plan import FORMAT, make_plan, plain
from unsample.errors import BadInput, BadOption, UnknownName
from unsample.report.docs import write_docs, write_section
from unsample.report.words import NOTHING

INF = math.inf
FIGURE = {"title": "dB", "value": "noise.psnr", "show": "median"}
DOCS: dict[str, Any] = {
    "table": "t",
    "note": "`unsample bench run t.toml`: medians.",
    "columns": ["method", "w", "inverting w", FIGURE, "NFE", "n", "made"],
}
HEAD = "| method | w | inverting w | dB | NFE | n | made |\n|---|---|---|---|---|---|---|"
PLAN_OF = {
    "dataset": "scenes:2,split=tune",
    "models": ["scenes-mixture"],
    "methods": ["ddim", "edict[inversion_guidance=same,guidance=[1,3]]"],
    "metrics": ["psnr", "edit_gain", "edit_size"],
    "steps": 3,
}
AROUND = "# A title\n\n<!-- table t -->\n{}\n<!-- end t -->\n\nProse | with a bar.\n"
Cells = dict[tuple[str, float], list[Any]]  # label and guidance to a value an item


def run(folder: Path, cells: Cells, docs: Any = DOCS, key: str = "noise.psnr", **more: Any) -> Path:
    """The folder of a run in which these cells have ended."""
    plan = make_plan({**PLAN_OF, **({"docs": docs} if docs else {}), **more})
    rows, dataset = [], PLAN_OF["dataset"]
    for (label, w), values in cells.items():
        for k, v in enumerate(values):
            given = {"dataset": dataset, "model": "scenes-mixture", "steps": 3, "guidance": w, "order": len(rows)}
            entry = {key: v} if isinstance(v, dict) else {key: value(None if v == INF else v, exact=v == INF)}
            given |= {"inversion_guidance": w, "values": entry, "finished": f"2026-0{k + 1}-02T00:00:00+00:00"}
            rows.append(row(f"tune-{k}", label, **given))
    folder.mkdir()
    with Ledger(folder) as ledger:
        ledger.note({str(dataset): ["tune-0", "tune-1"]}, {}, [])
        ledger.add(rows)
    kept = {"format": FORMAT, "fingerprint": plan.fingerprint(), "plan": plain(plan), "versions": {}, "command": []}
    (folder / PLAN).write_text(json.dumps(kept))
    return folder


EDICT = "edict[inversion_guidance=same]"
DDIM_ROW = "| ddim | 1 | 1 | 22 | 50 | 2 | 2026-02-02 |"
EDICT_ROWS = ["| edict | 1 | 1 | 30 | 50 | 2 | 2026-02-02 |", "| edict | 3 | 3 | inf | 50 | 2 | 2026-02-02 |"]


def document(tmp_path: Path, inside: str = "") -> Path:
    path = tmp_path / "docs.md"
    path.write_text(AROUND.format(inside))
    return path


def test_a_table_is_filled_and_the_rest_of_the_document_stays(tmp_path: Path) -> None:
    cells: Cells = {("ddim", 1.0): [20.0, 24.0], (EDICT, 1.0): [30.0, 30.0], (EDICT, 3.0): [INF, INF]}
    path = document(tmp_path)
    (filled,) = write_docs([run(tmp_path / "r", cells)], path)
    assert path.read_text() == AROUND.format("\n".join([f"{DOCS['note']}\n", HEAD, DDIM_ROW, *EDICT_ROWS]))
    assert (len(filled.made), filled.kept, filled.dropped, filled.lacking) == (3, [], [], [])
    before = path.read_bytes()
    write_docs([tmp_path / "r"], path)
    assert path.read_bytes() == before


def test_a_document_that_is_a_link_stays_one_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "link.md"
    link.symlink_to(Path("..") / document(tmp_path).name)
    write_docs([run(tmp_path / "r", {("ddim", 1.0): [20.0, 24.0]})], link)
    assert link.is_symlink()
    assert DDIM_ROW in (tmp_path / "docs.md").read_text()
    assert [file.name for file in (tmp_path / "here").iterdir()] == ["link.md"]


@pytest.mark.parametrize("inside", ["", "old note\n\n| method | w |\n|---|---|\n| edict | 3 |"])
def test_a_document_whose_lines_end_as_on_windows_keeps_these_ends(tmp_path: Path, inside: str) -> None:
    path, other = document(tmp_path, inside), tmp_path / "crlf.md"
    other.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    folder = run(tmp_path / "r", {("ddim", 1.0): [20.0, 24.0]})
    for _ in range(2):
        assert write_docs([folder], path) == write_docs([folder], other)
        assert other.read_bytes() == path.read_bytes().replace(b"\n", b"\r\n")
    write_section(other, "t", "a\nb")
    assert other.read_bytes() == AROUND.format("a\nb").replace("\n", "\r\n").encode()


def test_rows_that_the_run_does_not_hold_whole_stay_and_those_that_the_plan_does_not_list_go(tmp_path: Path) -> None:
    old = ["| edict | 3 | 3 | 12.3 | 7 | 2 | 2025-01-01 on H100 |", "| bdia | 1 | 1 | 5 | 6 | 2 | 2025-01-01 |"]
    path = document(tmp_path, "\n".join(["old note", "", HEAD, *old]))
    cells: Cells = {("ddim", 1.0): [20.0, 24.0], (EDICT, 3.0): [40.0]}  # one of two items only
    (filled,) = write_docs([run(tmp_path / "r", cells)], path)
    assert path.read_text() == AROUND.format("\n".join([f"{DOCS['note']}\n", HEAD, DDIM_ROW, old[0]]))
    assert filled.kept == ["edict 3 3"]
    assert filled.dropped == ["bdia 1 1"]
    assert filled.lacking == ["edict 1 1"]


def test_rows_with_other_columns_are_dropped_and_named(tmp_path: Path) -> None:
    path = document(tmp_path, "| method | w |\n|---|---|\n| edict | 3 |")
    (filled,) = write_docs([run(tmp_path / "r", {("ddim", 1.0): [20.0, 24.0]})], path)
    assert filled.dropped == ["edict 3"]
    assert "| edict | 3 |" not in path.read_text()


def test_shards_fill_a_table_together_and_runs_of_two_plans_or_that_disagree_do_not(tmp_path: Path) -> None:
    one = run(tmp_path / "one", {("ddim", 1.0): [20.0, 24.0]})
    two = run(tmp_path / "two", {(EDICT, 1.0): [30.0, 30.0], (EDICT, 3.0): [INF, INF]})
    path = document(tmp_path)
    write_docs([one, two], path)
    assert [line in path.read_text() for line in (DDIM_ROW, *EDICT_ROWS)] == [True] * 3
    before = path.read_text()
    with pytest.raises(BadInput, match="two plans"):
        write_docs([one, run(tmp_path / "seeded", {}, seed=1)], path)
    with pytest.raises(BadInput, match="disagree"):
        write_docs([one, run(tmp_path / "other", {("ddim", 1.0): [20.0, 25.0]})], path)
    assert path.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "no markers\n",
        "<!-- table t -->\n",
        "<!-- end t -->\n<!-- table t -->\n",
        AROUND.format("") * 2,
        "<!-- table u -->\n<!-- end u -->\n",
    ],
)
def test_a_document_without_the_markers_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "docs.md"
    path.write_text(text)
    folder = run(tmp_path / "r", {("ddim", 1.0): [20.0, 24.0]})
    with pytest.raises(BadInput, match="<!-- table t -->"):
        write_docs([folder], path)
    with pytest.raises(BadInput, match="<!-- table t -->"):
        write_section(path, "t", "x")
    assert path.read_text() == text


def test_a_run_without_docs_is_refused_and_no_table_is_written(tmp_path: Path) -> None:
    path, good = document(tmp_path), run(tmp_path / "r", {("ddim", 1.0): [20.0, 24.0]})
    with pytest.raises(BadInput, match=r"\[docs\]"):
        write_docs([good, run(tmp_path / "none", {}, docs=None)], path)
    assert path.read_text() == AROUND.format("")


def test_docs_of_a_run_that_somebody_has_altered_are_refused_as_its_fault(tmp_path: Path) -> None:
    folder, path = run(tmp_path / "r", {("ddim", 1.0): [20.0, 24.0]}), document(tmp_path)
    whole = json.loads((folder / PLAN).read_text())
    for bad in ("x", {**DOCS, "note": "<script>"}, {**DOCS, "columns": ["method", "made", 3]}):
        whole["plan"]["docs"] = bad
        (folder / PLAN).write_text(json.dumps(whole))
        with pytest.raises(BadInput):
            write_docs([folder], path)
    assert path.read_text() == AROUND.format("")


def shown(tmp_path: Path, values: list[Any], **column: Any) -> str:
    """The figure of one row."""
    docs = {**DOCS, "columns": ["method", {"title": "x", "value": "noise.psnr", **column}, "made"]}
    path = document(tmp_path)
    key = str(docs["columns"][1]["value"])
    write_docs([run(tmp_path / "r", {("ddim", 1.0): values}, docs=docs, key=key)], path)
    return path.read_text().split("| ddim | ")[1].split(" |")[0]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ({"show": "median"}, [20.0, INF], "20"),
        ({"show": "mean"}, [20.0, 24.0], "22 ± 4"),  # 1.96 sqrt(8 / 2)
        ({"show": "mean"}, [20.0, INF], "inf"),
        ({"show": "mean", "most": 200.0}, [INF, INF], "200 ± 0"),
        ({"show": "share"}, [1.0, 0.0], "0.5"),
    ],
)
def test_what_a_column_shows(tmp_path: Path, column: dict[str, Any], values: list[float], expected: str) -> None:
    assert shown(tmp_path, values, **column) == expected


def test_a_pooled_column_is_weighted_and_what_diverged_stands_beside_it(tmp_path: Path) -> None:
    gain = {"title": "g", "value": "edit.edit_gain", "show": "pooled", "weight": "edit.edit_size"}
    docs = {**DOCS, "columns": ["method", "made", gain]}
    folder = run(tmp_path / "r", {}, docs=docs, edit=True)
    rows = [("tune-0", 1.0, 0.3, "ok"), ("tune-1", 0.0, 0.1, "ok")]
    given = {"dataset": PLAN_OF["dataset"], "model": "scenes-mixture", "steps": 3}
    made = [
        row(id, "ddim", **given, status=status, values={"edit.edit_gain": value(g), "edit.edit_size": value(size)})
        for id, g, size, status in rows
    ]
    with Ledger(folder) as ledger:
        ledger.add(made)
    write_docs([folder], path := document(tmp_path))
    assert "| ddim | 2026-01-01 | 0.75 |" in path.read_text()
    with Ledger(folder) as ledger:
        ledger.add([made[0] | {"status": "diverged", "values": {}}])
    write_docs([folder], path)
    assert "| ddim | 2026-01-01 | 0, 1 diverged |" in path.read_text()


def test_a_column_may_be_of_one_kind_of_edit_and_a_pooled_one_says_its_interval(tmp_path: Path) -> None:
    gain = {"title": "g", "value": "edit.edit_gain", "show": "pooled", "weight": "edit.edit_size", "of": "place"}
    docs = {**DOCS, "columns": ["method", "made", gain | {"interval": True}, gain | {"title": "c", "of": "colour"}]}
    folder = run(tmp_path / "r", {}, docs=docs, edit=True)
    given = {"dataset": PLAN_OF["dataset"], "model": "scenes-mixture", "steps": 3}
    cells = [("tune-0", 1.0, 0.3, "place"), ("tune-1", 0.0, 0.1, "place"), ("tune-2", 0.5, 0.1, "colour")]
    with Ledger(folder) as ledger:
        ledger.add([
            row(id, "ddim", **given, changed=kind, values={"edit.edit_gain": value(g), "edit.edit_size": value(size)})
            for id, g, size, kind in cells
        ])  # fmt: skip
    write_docs([folder], path := document(tmp_path))
    # residuals 0.3 (1 - .75) and 0.1 (0 - .75): 1.96 sqrt(2 (0.075^2 + 0.075^2)) / 0.4
    assert "| ddim | 2026-01-01 | 0.75 ± 0.7 | 0.5 |" in path.read_text()


def test_a_ratio_is_of_the_items_that_both_methods_have(tmp_path: Path) -> None:
    ratio = {"title": "r", "value": "noise.psnr", "show": "ratio", "against": "ddim"}
    docs = {**DOCS, "columns": ["method", "w", ratio, "made"]}
    folder = run(tmp_path / "r", {("ddim", 1.0): [20.0, 10.0], (EDICT, 1.0): [10.0, 5.0]}, docs=docs)
    write_docs([folder], path := document(tmp_path))
    assert "| ddim | 1 | 1 (1 to 1) |" in path.read_text()
    assert f"| {EDICT} | 1 | 0.5 (0.5 to 0.5) |" in path.read_text()
    folder = run(tmp_path / "s", {("ddim", 1.0): [20.0, 10.0], (EDICT, 1.0): [10.0, 20.0]}, docs=docs)
    write_docs([folder], path)
    assert f"| {EDICT} | 1 | 1 (0.5 to 2) |" in path.read_text()  # 10 / 20 and 20 / 10, drawn with their items
    folder = run(tmp_path / "t", {(EDICT, 1.0): [10.0, 20.0]}, docs=docs)
    write_docs([folder], path)
    assert f"| {EDICT} | 1 | {NOTHING} |" in path.read_text()


def test_a_ratio_is_to_the_method_of_that_name_that_the_model_has(tmp_path: Path) -> None:
    ratio = {"title": "r", "value": "noise.psnr", "show": "ratio", "against": "edict"}
    docs = {**DOCS, "columns": ["model", "method", ratio, "made"]}
    methods = ["ddim", "edict[p=0.9,models=scenes-mixture]", "edict[p=0.95,models=scenes-ddpm]"]
    more = {"models": ["scenes-mixture", "scenes-ddpm"], "methods": methods}
    folder = run(tmp_path / "r", {("ddim", 1.0): [20.0, 10.0], ("edict[p=0.9]", 1.0): [10.0, 5.0]}, docs, **more)
    with Ledger(folder) as ledger:
        given = {"dataset": PLAN_OF["dataset"], "model": "scenes-ddpm", "steps": 3, "guidance": 1.0}
        cells = [("ddim", 3.0), ("ddim", 4.0), ("edict[p=0.95]", 30.0), ("edict[p=0.95]", 40.0)]
        ledger.add([
            row(f"tune-{n % 2}", label, **given, order=10 + n, values={"noise.psnr": value(number)})
            for n, (label, number) in enumerate(cells)
        ])  # fmt: skip
    write_docs([folder], path := document(tmp_path))
    lines = path.read_text()
    assert "| scenes-mixture | ddim | 2 (2 to 2) |" in lines
    assert "| scenes-ddpm | ddim | 0.1 (0.1 to 0.1) |" in lines
    assert "| scenes-ddpm | edict[p=0.95] | 1 (1 to 1) |" in lines
    with pytest.raises(BadOption, match=r"edict in against.*edict\[p=0.9\] and edict\[p=0.99\] on scenes-mixture"):
        make_plan({**PLAN_OF, **more, "docs": docs, "methods": [*methods, "edict[p=0.99,models=scenes-mixture]"]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": ["method", "made", FIGURE | {"show": "ratio"}]}, "against"),
        ({"columns": ["metod", "made"]}, "did you mean 'method'"),
        ({"columns": ["method"]}, "'made'"),
        ({"columns": ["method", "made", FIGURE | {"show": "men"}]}, "'dB'.*show"),
        ({"columns": ["method", "made", FIGURE | {"value": "noise.psrn"}]}, "did you mean 'psnr'"),
        ({"columns": ["method", "made", FIGURE | {"value": "nose.psnr"}]}, "did you mean 'noise'"),
        ({"columns": ["method", "made", FIGURE | {"show": "pooled"}]}, "weight"),
        ({"columns": ["method", "made", FIGURE | {"titel": "x"}]}, "titel"),
        ({"columns": ["method", "made", FIGURE | {"interval": True}]}, "interval"),
        ({"note": "a <!-- end t -->"}, "note"),
        ({"table": "a b"}, "table"),
    ],
)
def test_a_bad_column_is_named_when_the_plan_is_read(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        read_docs({**DOCS, **change}, ["psnr"], ["noise"])
    with pytest.raises(BadOption, match=said):
        make_plan({**PLAN_OF, "docs": {**DOCS, **change}})


def test_a_ratio_to_a_method_that_the_plan_has_not_is_refused_when_it_is_read() -> None:
    ratio = {"title": "r", "value": "noise.psnr", "show": "ratio", "against": "ddmi"}
    with pytest.raises(UnknownName, match="did you mean 'ddim'"):
        make_plan({**PLAN_OF, "docs": {**DOCS, "columns": ["method", "w", ratio, "made"]}})


def test_an_error_of_docs_quotes_what_the_plan_says() -> None:
    columns = ["method", "made", FIGURE]
    for docs in ({"table": "t", "columns": columns}, {**DOCS, "columns": ["method", "made", 3]}):
        with pytest.raises(BadOption) as caught:
            read_docs(docs, ["psnr"], ["noise"])
        assert "Shown" not in str(caught.value)
        assert str(caught.value).endswith(f"got {docs}" if "note" not in docs else "got 3")


def test_a_label_says_the_guidance_of_inversion_where_no_column_does(tmp_path: Path) -> None:
    docs = {**DOCS, "columns": ["method", "w", "made"]}
    write_docs([run(tmp_path / "r", {(EDICT, 3.0): [1.0, 2.0]}, docs=docs)], path := document(tmp_path))
    assert f"| {EDICT} | 3 | 2026-02-02 |" in path.read_text()
