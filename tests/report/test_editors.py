"""Rows of several editors: told apart, each with its mask and its cost, and PIE-Bench's figures beside a run's own."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.report.runs import plan, row, value
from unsample.bench.ledger import RunData
from unsample.metrics.table import METRICS
from unsample.report.about import about
from unsample.report.layout import differences, sheets
from unsample.report.markdown import markdown
from unsample.report.page import page
from unsample.report.published import beside, tables
from unsample.report.spreadsheet import spreadsheet
from unsample.report.table import Block, blocks

EDITORS: dict[str, tuple[dict[str, Any], float, int]] = {  # how it edits, its gain, its cost
    "swap": ({}, 0.5, 50),
    "p2p": ({"editor": "p2p", "editor_name": "p2p", "edit_guidance": 3.0}, 0.7, 150),
    "masked": ({"editor": "p2p", "editor_name": "p2p", "mask": "given", "edit_guidance": 3.0}, 0.9, 150),
}


def rows(dataset: str = "scenes:4", **more: Any) -> list[dict[str, Any]]:
    """A method by three editors; what does not depend on the editor is with the first."""
    made = []
    for how, gain, cost in EDITORS.values():
        for k, item in enumerate("abcd"):
            values = {"edit.edit_gain": value(gain + 0.01 * k), "edit.pie_psnr": value(20 + 10 * gain + k)}
            if not how:
                values["noise.psnr"] = value(30.0 + k)
            if item == "d":
                values["edit.pie_psnr"] = value(None, reason="the mask covers the whole picture: nothing is to be kept")
            made.append(row(item, "ddim", dataset=dataset, values=values, edit_nfe=cost, **how, **more))
    return made


def block(made: list[dict[str, Any]]) -> Block:
    (found,) = blocks(made, ("psnr", "edit_gain", "pie_psnr"))
    return found


def test_editors_of_a_method_are_rows_of_their_own_and_rank_against_each_other() -> None:
    found = block(rows())
    assert [m.label for m in found.methods] == ["ddim", "ddim + p2p, w 3", "ddim + p2p, mask given, w 3"]
    assert [m.cells["edit.edit_gain"].best for m in found.methods] == [False, False, True]
    by_name = {sheet.name: sheet for sheet in sheets(found)}
    edit = by_name["edit"]
    assert [head.text for head in edit.heads][:3] == ["Editor", "Mask", "Edit w"]
    assert [[text.main for text in line.cells[:3]] for line in edit.lines] == [
        ["p2p", "given", "3"],
        ["p2p", "none", "3"],
        ["none", "none", "1"],
    ]
    assert {line.label for line in edit.lines} == {"ddim"}
    assert len(by_name["reconstruction"].lines) == 1
    heads = [head.text for head in by_name["outcomes"].heads]
    costs = [line.cells[heads.index("Edit evaluations")].main for line in by_name["outcomes"].lines]
    assert costs == ["50", "150", "150"]
    apart = differences(found)
    assert apart is not None
    assert [line.cells[1].main for line in apart.lines] == ["none", "none", "given"]


def test_the_csv_has_a_column_each() -> None:
    lines = list(csv.DictReader(io.StringIO(spreadsheet([block(rows())]))))
    found = {(line["editor"], line["mask"], line["edit_guidance"], line["edit_nfe"]) for line in lines}
    assert found == {("none", "none", "1", "50"), ("p2p", "none", "3", "150"), ("p2p", "given", "3", "150")}
    assert {line["method"] for line in lines} == {"ddim"}


def test_an_edit_table_says_of_masks_also_where_there_are_no_editors() -> None:
    plain = [{k: v for k, v in r.items() if not k.startswith(("editor", "mask", "edit_"))} for r in rows()[:4]]
    sheet = next(sheet for sheet in sheets(block(plain)) if sheet.name == "edit")
    assert [text.main for text in sheet.lines[0].cells[:2]] == ["none", "none"]


def test_published_figures_stand_beside_those_of_a_run_on_that_data_set(tmp_path: Path) -> None:
    made = rows("pie_bench:pie")
    (sheet,) = beside(block(made))
    ours = [line for line in sheet.lines if any("n = " in m for t in line.cells for m in t.more)]
    assert [[t.main for t in line.cells] for line in ours] == [["p2p", "none", "28.00"], ["p2p", "given", "30.00"]]
    assert ours[0].cells[2].more == ["published 17.87", "n = 3"]  # a mean of decibels, as the authors took it
    assert ours[1].cells[2].more == ["n = 3"]  # nothing was published of edits within a given mask
    assert len(sheet.lines) == len(ours) + 9  # published, and not run here
    assert "1 picture whose mask covers everything" in " ".join(sheet.notes)
    assert beside(block(rows())) == []
    run = RunData(plan={"plan": plan(dataset="pie_bench:pie")}, rows=made, folder=tmp_path)
    found = blocks(made, ("psnr", "edit_gain", "pie_psnr"))
    around = about(run, found)
    assert "published 17.87" in page(found, around, tmp_path)
    assert "published 17.87" in markdown(found, around)


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.dataset)
def test_a_published_table_is_of_our_metrics_methods_and_editors(table: Any) -> None:
    from unsample.edits import BUILT_IN as EDITORS
    from unsample.methods import BUILT_IN as METHODS

    assert {method for method, _ in table.rows} <= METHODS.keys()
    assert {editor for _, editor in table.rows} <= EDITORS.keys()
    for values in table.rows.values():
        assert len(values) == len(table.metrics)
        for metric, found in zip(table.metrics, values, strict=True):
            facts = METRICS[metric]
            assert (facts.low or 0) <= found <= (float("inf") if facts.high is None else facts.high)
    assert "arXiv:" in table.source
