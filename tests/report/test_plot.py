"""The plot: no label on another, everything inside, exact points shown, the same in words."""

from __future__ import annotations

import math
import random
import re
from xml.etree import ElementTree

import pytest

from tests.report.runs import values_of
from unsample.report.axes import cost_axis, round_ticks, value_axis
from unsample.report.labels import Box, placed, stacked
from unsample.report.plot import FRAME, HEIGHT, LEFT, RIGHT, WIDTH, plot
from unsample.report.table import Block, blocks

SVG = "{http://www.w3.org/2000/svg}"
INF = math.inf


def drawn(block: Block) -> ElementTree.Element:
    """The plot of the first column, parsed."""
    found = plot(block, block.columns[0])
    assert found is not None
    return ElementTree.fromstring(str(found.drawing))


def one(*rows: list[dict[str, object]]) -> Block:
    return blocks([r for some in rows for r in some])[0]


@pytest.mark.parametrize("seed", range(20))
def test_labels_stand_on_nothing_and_inside(seed: int) -> None:
    u = random.Random(seed)
    marks = [Box(u.uniform(LEFT + 5, RIGHT - 30), u.uniform(20, 340), 10, 10) for _ in range(12)]
    if seed % 2:  # crowded
        marks = [Box(200 + 12 * (k % 3), 150 + 8 * (k // 3), 10, 10) for k in range(12)]
    taken = list(marks)
    boxes = []
    for k, mark in enumerate(marks):
        label = placed("fixed_point[n=5]"[: 4 + k], mark, taken, FRAME)
        assert FRAME.holds(label.box)
        assert not any(label.box.meets(other) for other in taken)
        taken.append(label.box)
        boxes.append(label.box)
    assert len(boxes) == 12


def test_names_of_levels_at_one_height_do_not_meet() -> None:
    boxes = stacked(["identity", "vae(source)", "vae(truth)", "fresh"], [100, 101, 99, 350], RIGHT, FRAME)
    assert not any(a.meets(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_ticks_are_round_and_within() -> None:
    assert round_ticks(17.2, 33.9) == [20, 25, 30]
    assert [round(t, 9) for t in round_ticks(-0.13, 0.98)] == [0, 0.5]
    axis = value_axis([1e-6, 3e-2], 364, 20, error=True)
    assert axis.logarithmic
    assert list(axis.ticks) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    assert not value_axis([0.1, 0.5], 364, 20, error=True).logarithmic
    assert value_axis([5.0], 364, 20, error=False).at(5.0) == pytest.approx(192)
    assert all(LEFT <= cost_axis([50, 50], LEFT, RIGHT).at(c) <= RIGHT for c in (50.0,))
    assert list(cost_axis([10, 100_000], LEFT, RIGHT).ticks) == [10, 100, 1000, 10_000, 100_000]


def test_a_better_value_stands_higher_and_a_dearer_one_further_right() -> None:
    svg = drawn(one(values_of("a", [20, 21], nfe=50), values_of("b", [30, 31], nfe=500)))
    a, b = ((float(c.get("cx", 0)), float(c.get("cy", 0))) for c in svg.iter(f"{SVG}circle"))
    assert a[0] < b[0]
    assert a[1] > b[1]


def test_only_points_that_nothing_beats_are_filled() -> None:
    rows = [
        values_of("cheap", [20, 21], nfe=50),
        values_of("beaten", [19, 20], nfe=50),
        values_of("dear", [40, 41], nfe=500),
    ]
    kinds = {c.find(f"{SVG}title").text.split(":")[0]: c.get("class") for c in drawn(one(*rows)).iter(f"{SVG}circle")}  # type: ignore[union-attr]
    assert kinds == {"cheap": "lead", "beaten": "other", "dear": "lead"}


def test_an_exact_method_stands_on_a_line_of_its_own() -> None:
    block = one(values_of("exact", [INF, INF], nfe=100), values_of("b", [30, 32], nfe=50))
    svg = drawn(block)
    heights = [float(c.get("cy", 0)) for c in svg.iter(f"{SVG}circle")]
    assert heights[0] < 40 < heights[1]
    assert "exact" in [t.text for t in svg.iter(f"{SVG}text")]
    assert "nan" not in ElementTree.tostring(svg, "unicode")
    assert "inf" not in re.sub("[a-z]*inf[a-z]+", "", ElementTree.tostring(svg, "unicode"))


def test_two_exact_methods_alone_can_be_drawn() -> None:
    svg = drawn(one(values_of("a", [INF, INF]), values_of("b", [INF, INF])))
    assert len(list(svg.iter(f"{SVG}circle"))) == 2


def test_gradients_make_a_square_and_a_sentence() -> None:
    block = one(values_of("a", [20, 21], nfe=50), values_of("null_text", [30, 31], nfe=650, backward=500))
    found = plot(block, block.columns[0])
    assert found
    assert str(found.drawing).count("<rect") == 1
    assert "Squares take backward passes" in found.caption
    assert "null_text: 30.47 at 650 network evaluations and 500 backward passes" in str(found.drawing)


def test_a_baseline_far_off_does_not_flatten_the_plot() -> None:
    near = values_of("vae(source)", [31, 31], "edit.psnr", baseline=True, nfe=0)
    far = values_of("fresh", [3, 3], "edit.psnr", baseline=True, nfe=0)
    methods = [values_of(n, [v, v + 1], "edit.psnr") for n, v in (("a", 25), ("b", 30))]
    found = plot(block := one(*methods, near, far), block.columns[0])
    assert found
    assert "Baselines beyond the axis: fresh (3.00)." in found.caption
    assert str(found.drawing).count('class="level"') == 1


def test_the_picture_has_a_name_and_its_points_in_words() -> None:
    svg = drawn(one(values_of("a", [20, 21]), values_of("b", [30, 31])))
    assert svg.get("role") == "img"
    assert svg.find(f"{SVG}title") is not None
    words = svg.find(f"{SVG}desc")
    assert words is not None
    assert words.text
    assert "a: 20.47 at 50 network evaluations; b: 30.47 at 50 network evaluations" in words.text
    assert svg.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"


def test_one_method_makes_no_plot() -> None:
    block = one(values_of("a", [20, 21]), values_of("b", [None, None]))
    assert plot(block, block.columns[0]) is None


def test_a_method_may_be_called_anything() -> None:
    svg = drawn(one(values_of("<script>&\"'", [20, 21]), values_of("b]]>\x00\u202e", [30, 31])))
    labels = [t.text for t in svg.iter(f"{SVG}text") if t.get("class") == "label"]
    assert labels == ["<script>&\"'", "b]]>"]
