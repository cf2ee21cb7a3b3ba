"""The plot: every method is named and at its value, whatever it is called; the same in words."""

from __future__ import annotations

import base64
import math
import sys
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes

from tests.report.runs import values_of
from unsample.report.plot import NEEDED, Plot, figure, plot, points_of, spread
from unsample.report.table import Block, blocks

SVG = "{http://www.w3.org/2000/svg}"
INF = math.inf


def one(*rows: list[dict[str, object]]) -> Block:
    return blocks([r for some in rows for r in some])[0]


def drawn(block: Block) -> tuple[Plot, list[str]]:
    """The plot of the first column, and the texts in its picture."""
    found = plot(block, block.columns[0])
    assert found is not None
    assert found.uri is not None
    kind, _, content = found.uri.partition(",")
    assert kind == "data:image/svg+xml;base64"
    root = ElementTree.fromstring(base64.b64decode(content))
    return found, [t.text or "" for t in root.iter(f"{SVG}text")]


def axes_of(block: Block) -> Axes:
    return figure(points_of(block.methods, block.columns[0]), [], block.columns[0]).axes[0]


def test_every_method_is_named_and_at_its_value() -> None:
    block = one(*(values_of(f"m{k}", [20.0 + k], nfe=50 * (k + 1)) for k in range(30)))
    _, texts = drawn(block)
    assert {f"m{k}" for k in range(30)} <= {*texts}
    axes = axes_of(block)
    marks = {str(line.get_label()): line.get_xydata() for line in axes.lines}
    for k in range(30):
        assert marks[f"m{k}"].tolist() == [[50 * (k + 1), pytest.approx(20 + k)]]  # type: ignore[union-attr]
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    assert low < 20
    assert high > 49
    assert left < 50
    assert right > 1500


def test_labels_keep_their_order_and_a_gap() -> None:
    wanted = [0.5, 0.52, 0.51, 0.99, 0.01, 0.0]
    found = spread(wanted, 0.1)
    heights = sorted(found)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(heights))
    assert sorted(range(6), key=lambda k: found[k]) == sorted(range(6), key=lambda k: wanted[k])
    assert heights[0] >= 0
    assert spread([0.1, 0.9], 0.1) == [0.1, 0.9]


def test_only_points_that_nothing_beats_are_filled() -> None:
    block = one(
        values_of("cheap", [20, 21], nfe=50),
        values_of("beaten", [19, 20], nfe=50),
        values_of("dear", [40, 41], nfe=500),
    )
    filled = {line.get_label(): line.get_markerfacecolor() != "white" for line in axes_of(block).lines}
    assert filled == {"cheap": True, "beaten": False, "dear": True}


def test_an_exact_method_stands_above_all_numbers() -> None:
    block = one(values_of("exact", [INF, INF], nfe=100), values_of("b", [30, 32], nfe=50))
    _, texts = drawn(block)
    assert "exact" in texts
    axes = axes_of(block)
    exact, other = (line.get_transform().transform(line.get_xydata())[0, 1] for line in axes.lines)
    assert exact == pytest.approx(axes.transAxes.transform((0, 1))[1])
    assert other < exact
    drawn(one(values_of("a", [INF, INF]), values_of("b", [INF, INF])))  # alone they can be drawn too


def test_errors_of_many_sizes_stand_on_a_logarithmic_axis() -> None:
    key = "recovered.e_latent"
    assert axes_of(one(values_of("a", [1e-6], key), values_of("b", [3e-2], key))).get_yscale() == "log"
    assert axes_of(one(values_of("a", [0.1], key), values_of("b", [0.5], key))).get_yscale() == "linear"
    assert axes_of(one(values_of("a", [1.0]), values_of("b", [50.0]))).get_yscale() == "linear"


def test_gradients_make_a_square_and_a_sentence() -> None:
    block = one(values_of("a", [20, 21], nfe=50), values_of("null_text", [30, 31], nfe=650, backward=500))
    found, _ = drawn(block)
    assert [line.get_marker() for line in axes_of(block).lines] == ["o", "s"]
    assert "Squares take backward passes" in found.caption
    assert "null_text: 30.47 at 650 network evaluations and 500 backward passes" in found.alt


def test_a_baseline_far_off_does_not_flatten_the_plot() -> None:
    near = values_of("vae(source)", [31, 31], "edit.psnr", baseline=True, nfe=0)
    far = values_of("fresh", [3, 3], "edit.psnr", baseline=True, nfe=0)
    methods = [values_of(n, [v, v + 1], "edit.psnr") for n, v in (("a", 25), ("b", 30))]
    found, texts = drawn(one(*methods, near, far))
    assert "Baselines beyond the axis: fresh (3.00)." in found.caption
    assert "vae(source)" in texts
    assert "fresh" not in texts


def test_its_points_stand_in_words_and_one_method_makes_no_plot() -> None:
    found, _ = drawn(one(values_of("a", [20, 21]), values_of("b", [30, 31])))
    assert "a: 20.47 at 50 network evaluations; b: 30.47 at 50 network evaluations" in found.alt
    block = one(values_of("a", [20, 21]), values_of("b", [None, None]))
    assert plot(block, block.columns[0]) is None


def test_a_method_may_be_called_anything() -> None:
    names = ("<script>&\"'", r"$\frac{1}{0}$", "b]]>\x00\u202e", "c\ud800\ufffe", "名前", "_x")
    _, texts = drawn(one(*(values_of(name, [20.0 + k]) for k, name in enumerate(names))))
    assert {"<script>&\"'", r"$\frac{1}{0}$", "b]]>", "c��", "名前", "_x"} <= {*texts}


def test_the_same_picture_has_the_same_bytes_whatever_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    block = one(values_of("a", [20, 21]), values_of("b", [30, 31]))
    first = drawn(block)[0]
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    assert drawn(block)[0] == first
    assert matplotlib.rcParams["axes.facecolor"] == "red"


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    block = one(values_of("a", [20, 21]), values_of("b", [30, 31]))
    with pytest.warns(UserWarning, match="unsample\\[plot\\]"):
        found = plot(block, block.columns[0])
    assert found is not None
    assert found.uri is None
    assert "pip install" in NEEDED
