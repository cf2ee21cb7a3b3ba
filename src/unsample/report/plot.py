"""Quality against cost, drawn by matplotlib as one SVG: network evaluations on a logarithmic axis, a point a method.

Filled points are those that no method of at most their cost beats; the others are hollow. Whiskers are the intervals of
the table. The page shows it as a picture, so nothing in it can run or load anything; its text says the same in words.
"""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unsample.report import words
from unsample.report.columns import Column
from unsample.report.table import Block, MethodRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED = "the figures of a report need matplotlib: pip install 'unsample[plot]', then make the report again"
LONGEST = 34  # letters of a label
REACH = 0.6  # of the methods' span: a baseline further off would leave them no room
SPAN = 20  # a ratio of errors from which on a logarithmic axis shows more
LINE = 0.2  # inches that a label takes
INK, QUIET, ACCENT = "#1b1e23", "#565e6b", "#0a5cbf"  # as in page.css, on white
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Point:
    """A method in the plane; `value` is finite or, where every picture is exact, infinite."""

    label: str
    cost: float
    value: float
    low: float | None
    high: float | None
    backward: float
    leads: bool = False


@dataclass(frozen=True)
class Plot:
    """A drawing as a data URI (None without matplotlib), the same in words, and what is said under it."""

    uri: str | None
    alt: str
    caption: str


def plot(block: Block, column: Column) -> Plot | None:
    """The picture of a column, or None where fewer than two methods have a value and a cost."""
    points = points_of(block.methods, column)
    if len(points) < 2:
        return None
    levels = [(_label(m.label), c.centre.value) for m in block.baselines if (c := m.cells.get(column.key)) and c.centre]
    near = [(name, v) for name, v in levels if _near(v, points)]
    beyond = [f"{name} ({words.number(v, column.unit)})" for name, v in levels if not _near(v, points)]
    said = ["Filled: no method that costs as much or less is better.", "Whiskers: 95 % intervals."]
    if any(p.backward for p in points):
        said.append("Squares take backward passes too, which are not on the axis.")
    if near:
        said.append("Dashed: baselines.")
    if beyond:
        said.append(f"Baselines beyond the axis: {', '.join(beyond)}.")
    return Plot(_drawn(points, near, column), described(points, column), " ".join(said))


def described(points: Sequence[Point], column: Column) -> str:
    """The same in words, for who cannot see it."""
    listed = "; ".join(f"{p.label}: {_told(p, column)}" for p in sorted(points, key=lambda p: p.cost))
    return f"{column.metric} ({column.title}) against network evaluations per picture. {listed}."


def points_of(methods: Sequence[MethodRow], column: Column) -> list[Point]:
    """Every method that has a value and a cost."""
    found = []
    for method in methods:
        cell, cost = method.cells.get(column.key), method.mean("nfe")
        more = [method.mean(name) or 0 for name in ("edit_nfe", "edit_backward")] if column.stage == "edit" else [0, 0]
        cost = None if cost is None else cost + more[0]
        if cell and cell.centre and cost and cost > 0:
            c, lost = cell.centre, len(cell.values.diverged)
            label = _label(method.label) + (f", {lost:,} diverged" if lost else "")
            found.append(Point(label, cost, c.value, c.low, c.high, (method.mean("backward") or 0) + more[1]))
    return [replace(p, leads=not any(_beats(other, p, column.higher) for other in found)) for p in found]


def figure(points: Sequence[Point], levels: Sequence[tuple[str, float]], column: Column) -> Figure:
    """The picture: points on the left, their labels in a column of their own on the right, led to by lines."""
    from matplotlib.figure import Figure

    height = max(4.2, 0.8 + LINE * (len(points) + len(levels)))
    drawn = Figure(figsize=(8, height))
    axes = drawn.add_axes((0.12, 0.55 / height, 0.54, 1 - 0.8 / height))
    _scale(axes, [*_ends(points), *(v for _, v in levels)], [p.cost for p in points], column)
    for p in points:
        where = axes.get_xaxis_transform() if math.isinf(p.value) else axes.transData  # exact: above all numbers
        at = (p.cost, 1.0) if math.isinf(p.value) else (p.cost, p.value)
        if p.low is not None and p.high is not None and not math.isinf(p.value):
            axes.vlines(p.cost, p.low, p.high, color=ACCENT, alpha=0.6, linewidth=1.5)
        axes.plot(
            *at, "s" if p.backward else "o", transform=where, markersize=8, markeredgewidth=1.6, color=ACCENT,
            markerfacecolor=ACCENT if p.leads else "white", clip_on=False, zorder=3, label=p.label,
        )  # fmt: skip
    for _, value in levels:
        axes.axhline(value, color=QUIET, linewidth=0.8, linestyle=(0, (5, 4)))
    _write_labels(axes, points, levels, LINE / (height - 0.8))
    return drawn


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights near the wanted ones with a gap between any two, in the same order; none under 0."""
    order = sorted(range(len(wanted)), key=lambda k: -wanted[k])
    tops: list[float] = []
    for k in order:
        tops.append(min(wanted[k], tops[-1] - gap) if tops else wanted[k])
    floor = 0.0
    for n in reversed(range(len(tops))):
        tops[n] = max(tops[n], floor)
        floor = tops[n] + gap
    return [tops[order.index(k)] for k in range(len(wanted))]


def _label(text: object, longest: int = LONGEST) -> str:
    """Others' text on one line, of letters that XML takes."""
    return _NO_XML.sub("�", words.line(text, longest))


def _beats(other: Point, point: Point, higher: bool) -> bool:
    """Whether another one costs as much or less and is better, or is as good and cheaper."""
    better = other.value > point.value if higher else other.value < point.value
    return (better and other.cost <= point.cost) or (other.cost < point.cost and other.value == point.value)


def _ends(points: Sequence[Point]) -> list[float]:
    """Every finite value and whisker's end."""
    return [v for p in points for v in (p.value, p.low, p.high) if v is not None and math.isfinite(v)]


def _near(level: float, points: Sequence[Point]) -> bool:
    ends = _ends(points)
    if not ends or not math.isfinite(level):
        return False
    reach = REACH * (max(ends) - min(ends))
    return min(ends) - reach <= level <= max(ends) + reach


def _told(p: Point, column: Column) -> str:
    backward = f" and {words.whole(p.backward)} backward passes" if p.backward else ""
    return f"{words.number(p.value, column.unit)} at {words.whole(p.cost)} network evaluations{backward}"


def _drawn(points: Sequence[Point], levels: Sequence[tuple[str, float]], column: Column) -> str | None:
    """The SVG as a data URI: the same bytes each time, and no text taken for a formula."""
    try:
        import matplotlib
    except ImportError:
        warnings.warn(NEEDED, stacklevel=2)
        return None
    kept = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that its font lacks: the browser has others
        matplotlib.rcdefaults()  # not what a user's matplotlibrc says
        matplotlib.rcParams.update({"svg.hashsalt": "unsample", "svg.fonttype": "none", "text.parse_math": False})
        figure(points, levels, column).savefig(kept, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(kept.getvalue()).decode()}"


def _scale(axes: Axes, values: Sequence[float], costs: Sequence[float], column: Column) -> None:
    """Both axes with round ticks; errors that span more than a factor of 20 stand on a logarithmic one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    steep = column.better == "lower" and bool(values) and min(values) > 0 and max(values) / min(values) > SPAN
    axes.set_xscale("log")
    axes.set_yscale("log" if steep else "linear")
    axes.set_xlim(min(costs) / 1.4, max(costs) * 1.4)
    low, high = min(values, default=0.0), max(values, default=1.0)
    spare = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    axes.set_ylim(*((low / 1.5, high * 1.5) if steep else (low - spare, high + spare)))
    wide = max(costs) / min(costs) > 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.yaxis.set_major_locator(
        LogLocator() if steep else MaxNLocator(6, steps=[1, 2, 5, 10]) if values else NullLocator()
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.whole(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.tick(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    unit = f", {column.unit}" if column.unit not in ("", "1") else ""
    axes.set_xlabel("network evaluations per picture (log scale)", color=QUIET)
    axes.set_ylabel(_label(f"{column.metric}{unit} ({column.better} is better)", 60), color=QUIET)
    axes.tick_params(which="both", color=QUIET, labelcolor=QUIET)
    axes.grid(axis="y", color="#d8dce2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _write_labels(axes: Axes, points: Sequence[Point], levels: Sequence[tuple[str, float]], gap: float) -> None:
    data, across = axes.transData, axes.get_xaxis_transform()
    ends = [
        (p.label, (p.cost, 1.0), across) if math.isinf(p.value) else (p.label, (p.cost, p.value), data) for p in points
    ]
    ends += [(name, (axes.get_xlim()[1], value), data) for name, value in levels]
    back = axes.transAxes.inverted()
    heights = [float(back.transform(how.transform(at))[1]) for _, at, how in ends]
    for (text, at, how), height in zip(ends, spread(heights, gap), strict=True):
        axes.annotate(
            text, at, (1.05, height), xycoords=how, textcoords="axes fraction", va="center", color=INK, fontsize=9,
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkB": 5},
        )  # fmt: skip
    if any(math.isinf(p.value) for p in points):
        axes.text(-0.02, 1.0, "exact", transform=axes.transAxes, ha="right", va="center", color=QUIET)
