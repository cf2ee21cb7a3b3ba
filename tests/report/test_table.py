"""Which items a mean is over, who is best, who is bold, and that nobody who failed is forgotten."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest

from tests.report.runs import row, value, values_of
from unsample.report.columns import columns, leading
from unsample.report.layout import sheets
from unsample.report.spreadsheet import spreadsheet
from unsample.report.table import Block, Cell, blocks

INF = math.inf
PSNR = "noise.psnr"


def block(*rows: list[dict[str, Any]]) -> Block:
    """The one table of such rows."""
    found = blocks([r for some in rows for r in some])
    assert len(found) == 1
    return found[0]


def cell(of: Block, method: str, key: str = PSNR) -> Cell:
    """A method's figures."""
    return next(m for m in of.everyone if m.label == method).cells[key]


def centre(of: Block, method: str, key: str = PSNR) -> float:
    """A method's mean."""
    found = cell(of, method, key).centre
    assert found is not None
    return found.value


def test_means_are_over_the_items_that_all_methods_finished() -> None:
    of = block(values_of("a", [20, 30, 40, 10]), values_of("b", [21, 31, None, 11]))
    assert of.shared[PSNR] == 3
    assert centre(of, "a") == pytest.approx(-10 * math.log10((1e-2 + 1e-3 + 1e-1) / 3))
    assert len(cell(of, "a").values.found) == 4
    assert cell(of, "a").median == 25  # over its own four


def test_a_method_that_finished_nothing_does_not_empty_the_means_of_the_others() -> None:
    of = block(values_of("a", [20, 30]), values_of("b", [None, None]))
    assert of.shared[PSNR] == 2
    assert cell(of, "b").centre is None
    assert cell(of, "b").median == -INF
    assert not cell(of, "b").bold
    assert [m.label for m in of.ordered(of.columns[0])] == ["a", "b"]


def test_a_diverged_item_counts_as_worse_than_any_value_in_the_median() -> None:
    higher = block(values_of("a", [20, 30, 40]), values_of("b", [20, 30, None]))
    assert cell(higher, "b").median == 20
    lower = block(values_of("a", [1, 2, 3], "noise.mse"), values_of("b", [1, 2, None], "noise.mse"))
    assert cell(lower, "b", "noise.mse").median == 2
    assert cell(lower, "a", "noise.mse").median == 2


def test_exact_pictures_are_neither_dropped_nor_capped() -> None:
    of = block(values_of("a", [INF, 20, INF]), values_of("b", [30, 30, 30]))
    assert cell(of, "a").median == INF
    assert cell(of, "a").exact == 2
    assert centre(of, "a") == pytest.approx(20 + 10 * math.log10(3))
    assert of.shared[PSNR] == 3


def test_bold_is_the_best_and_whoever_the_paired_interval_cannot_tell_from_it() -> None:
    best = [30 + k % 5 for k in range(20)]
    near = [v + (0.3 if k % 2 else -0.3) for k, v in enumerate(best)]
    worse = [v - 0.5 - 0.01 * (k % 3) for k, v in enumerate(best)]
    of = block(values_of("worse", worse), values_of("near", near), values_of("best", [v + 0.02 for v in best]))
    assert [cell(of, m).bold for m in ("best", "near", "worse")] == [True, True, False]
    assert [cell(of, m).best for m in ("best", "near", "worse")] == [True, False, False]
    gap = cell(of, "worse").gap
    assert gap
    assert gap.clearly_below(0)
    assert cell(of, "worse").pairs == 20


def test_lower_is_better_where_the_metric_says_so() -> None:
    of = block(values_of("a", [0.1, 0.2, 0.3], "noise.mse"), values_of("b", [0.2, 0.3, 0.5], "noise.mse"))
    assert cell(of, "a", "noise.mse").best
    assert not cell(of, "b", "noise.mse").bold
    assert [m.label for m in of.ordered(of.columns[0])] == ["a", "b"]


def test_paired_differences_are_over_the_items_that_both_finished() -> None:
    of = block(
        values_of("best", [30, 31, 32, 33]), values_of("b", [20, 21, 22, 23]), values_of("c", [25, None, 25, 25])
    )
    assert of.shared[PSNR] == 3
    assert cell(of, "b").pairs == 4
    assert cell(of, "c").pairs == 3


def test_a_method_that_diverges_often_is_neither_best_nor_bold() -> None:
    often = [40.0] * 6 + [None] * 4
    of = block(values_of("often", often), values_of("steady", [30.0 + k for k in range(10)]))
    assert centre(of, "often") > centre(of, "steady")
    assert cell(of, "steady").best
    assert not cell(of, "often").bold
    assert [m.label for m in of.ordered(of.columns[0])] == ["steady", "often"]


def test_one_diverged_item_of_many_costs_no_place() -> None:
    of = block(values_of("once", [40.0] * 19 + [None]), values_of("steady", [30.0 + k % 3 for k in range(20)]))
    assert cell(of, "once").best
    assert not cell(of, "steady").bold


def test_nothing_is_ranked_by_what_a_record_plays_back_or_by_a_metric_without_a_better_side() -> None:
    of = block(values_of("a", [20, 30], "record.psnr"), values_of("b", [40, 50], "record.psnr"))
    assert not any(m.cells["record.psnr"].bold for m in of.methods)
    noise = block(
        values_of("a", [0.1, 0.2], "recovered.noise_mean"), values_of("b", [0.3, 0.4], "recovered.noise_mean")
    )
    assert not any(m.cells["recovered.noise_mean"].bold for m in noise.methods)


def test_baselines_stand_apart_rank_nothing_and_decide_on_no_items() -> None:
    of = block(values_of("a", [20, 30]), values_of("b", [10, 12]), values_of("identity", [50, None], baseline=True))
    assert [m.label for m in of.baselines] == ["identity"]
    assert of.shared[PSNR] == 2
    assert cell(of, "a").best
    assert not cell(of, "identity").bold
    assert centre(of, "identity") == 50


def test_a_baseline_without_a_guidance_stands_in_the_table_of_each() -> None:
    rows = [*values_of("a", [20.0], guidance=1.0), *values_of("a", [19.0], guidance=5.0)]
    rows += values_of("identity", [9.0], baseline=True, guidance=None)
    found = blocks(rows)
    assert [b.guidance for b in found] == [1.0, 5.0]
    assert [[m.label for m in b.baselines] for b in found] == [["identity"], ["identity"]]


def test_what_could_not_be_measured_has_its_reason_and_is_no_zero() -> None:
    rows = [row("x", "a", values={PSNR: value(None, reason="no weights")}), *values_of("b", [20.0])]
    of = block(rows)
    assert cell(of, "a").centre is None
    assert dict(cell(of, "a").values.reasons) == {"x": "no weights"}
    assert centre(of, "b") == 20


def test_outcomes_are_counted_and_cost_is_of_what_finished() -> None:
    rows = [
        row("a", "m", status="ok", nfe=10, peak_memory_mb=5.0),
        row("b", "m", status="not_converged", nfe=30, peak_memory_mb=9.0),
        row("c", "m", status="diverged", nfe=999),
        row("d", "m", status="failed", nfe=None),
        row("e", "n"),
    ]
    m = next(m for m in block(rows).methods if m.label == "m")
    assert m.success == 0.5
    assert (m.mean("nfe"), m.most("peak_memory_mb"), m.missing) == (20, 9, 1)
    assert (m.count("diverged"), m.count("failed"), m.count("not_converged")) == (1, 1, 1)


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = [*values_of("a", [20, 25, INF, 31]), *values_of("b", [21, 22, 30, None])]
    assert [m.cells for m in block(rows).methods] == [
        m.cells for m in sorted(block(rows[::-1]).methods, key=lambda m: m.label)
    ]


def test_columns_stand_by_stage_then_as_the_plan_has_them() -> None:
    keys = ("edit.psnr", "noise.ssim", "record.psnr", "noise.psnr", "edit.edit_gain", "recovered.e_latent")
    found = columns([row("a", "m", values={k: value(1.0) for k in keys})], ["psnr", "ssim"])
    expected = ["record.psnr", "noise.psnr", "noise.ssim", "recovered.e_latent", "edit.psnr", "edit.edit_gain"]
    assert [c.key for c in found] == expected
    edit, noise = leading(found, "edit"), leading(found, "noise")
    assert edit
    assert noise
    assert (edit.metric, noise.metric) == ("edit_gain", "psnr")
    assert leading(found, "record") is None


def test_a_metric_that_no_table_knows_is_shown_and_ranks_nothing() -> None:
    (found,) = columns([row("a", "m", values={"noise.mine": value(1.0)})])
    assert (found.metric, found.ranks) == ("mine", False)
    (named,) = columns([row("a", "m", values={"noise.fd[scenes-clip]": value(1.0)})])
    assert (named.metric, named.better) == ("fd[scenes-clip]", "lower")


def test_a_metric_of_whole_sets_is_a_figure_of_the_method_and_ranks_nothing() -> None:
    rows = [*values_of("a", [20, 21]), *values_of("b", [30, 31])]
    sets = [
        {**r, "values": {"noise.fd[scenes-clip]": value(v) | {"n": 2}}} for r, v in ((rows[0], 0.5), (rows[2], 0.1))
    ]
    sets[1]["values"]["noise.precision"] = value(None, reason="too few") | {"n": 2}
    (of,) = blocks(rows, sets=sets)
    key = "noise.fd[scenes-clip]"
    assert [centre(of, m, key) for m in "ab"] == [0.5, 0.1]
    assert not any(cell(of, m, key).bold or cell(of, m, key).best for m in "ab")
    assert of.shared[key] == 2
    assert cell(of, "b", "noise.precision").values.reasons == {"all": "too few"}
    lines = [line for line in csv.DictReader(io.StringIO(spreadsheet([of]))) if line["metric"] == "fd[scenes-clip]"]
    assert [(line["value"], line["statistic"], line["n"], line["low"]) for line in lines] == [
        ("0.5", "set", "2", ""),
        ("0.1", "set", "2", ""),
    ]
    (sheet,) = [s for s in sheets(of) if s.name == "reconstruction"]
    assert "of all pictures" in {more for head in sheet.heads for more in head.more}
    assert any("too few" in note for note in sheet.notes)


def test_data_sets_and_steps_have_tables_of_their_own() -> None:
    rows = [*values_of("a", [20.0]), *values_of("a", [30.0], steps=20), *values_of("a", [40.0], dataset="generated:4")]
    found = blocks(rows)
    titles = ["50 steps, on generated:4", "20 steps, on scenes:8,split=report", "50 steps, on scenes:8,split=report"]
    assert [b.title for b in found] == [f"scenes-sd, guidance 1, {more}" for more in titles]
    assert [centre(b, "a") for b in found] == [40, 30, 20]
    assert [b.title for b in blocks(values_of("a", [20.0]))] == ["scenes-sd, guidance 1"]
