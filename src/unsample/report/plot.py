"""Quality against cost as inline SVG: network evaluations on a logarithmic axis, one labelled point a method.

Filled points are those that no method of at most their cost beats; the others are hollow. Whiskers are the intervals of
the table. Colours are the page's own, so the picture follows dark and light; the points stand in words in `desc`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from unsample.report import words
from unsample.report.axes import Axis, cost_axis, value_axis
from unsample.report.columns import Column
from unsample.report.labels import LINE, LONGEST, Box, Label, placed, stacked
from unsample.report.table import Block, MethodRow

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, FLOOR = 78, 696, 20, 364  # of the plane
RADIUS = 5.0
FRAME = Box(LEFT + 2, 2, WIDTH - LEFT - 6, FLOOR - 4)  # where labels may stand
REACH = 0.6  # of the methods' span: a baseline further off would leave them no room


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
    """A drawing and what is said under it."""

    drawing: Markup
    caption: str


def plot(block: Block, column: Column) -> Plot | None:
    """The picture of a column, or None where fewer than two methods have a value and a cost."""
    points = _points(block.methods, column)
    if len(points) < 2:
        return None
    levels = [(m.label, c.centre.value) for m in block.baselines if (c := m.cells.get(column.key)) and c.centre]
    near = [(words.line(name, LONGEST), v) for name, v in levels if _near(v, points)]
    beyond = [f"{words.line(n, LONGEST)} ({words.number(v, column.unit)})" for n, v in levels if not _near(v, points)]
    said = ["Filled: no method that costs as much or less is better.", "Whiskers: 95 % intervals."]
    if any(p.backward for p in points):
        said.append("Squares take backward passes too, which are not on the axis.")
    if near:
        said.append("Dashed: baselines.")
    if beyond:
        said.append(f"Baselines beyond the axis: {', '.join(beyond)}.")
    return Plot(_drawn(points, near, column), " ".join(said))


def described(points: Sequence[Point], column: Column) -> str:
    """The same in words, for who cannot see it."""
    listed = "; ".join(f"{p.label}: {_told(p, column)}" for p in sorted(points, key=lambda p: p.cost))
    return f"{column.metric} ({column.title}) against network evaluations per picture. {listed}."


def _points(methods: Sequence[MethodRow], column: Column) -> list[Point]:
    found = []
    for method in methods:
        cell, cost = method.cells.get(column.key), method.mean("nfe")
        if cell and cell.centre and cost and cost > 0:
            c = cell.centre
            lost = len(cell.values.diverged)
            label = words.line(method.label, LONGEST) + (f", {lost:,} diverged" if lost else "")
            found.append(Point(label, cost, c.value, c.low, c.high, method.mean("backward") or 0))
    return [_weighed(p, found, column.higher) for p in found]


def _weighed(point: Point, points: Sequence[Point], higher: bool) -> Point:
    """With whether nothing that costs as much or less is better, or as good and cheaper."""

    def beats(other: Point) -> bool:
        better = other.value > point.value if higher else other.value < point.value
        cheaper = other.cost < point.cost
        return (better and other.cost <= point.cost) or (cheaper and other.value == point.value)

    leads = not any(beats(other) for other in points)
    return Point(point.label, point.cost, point.value, point.low, point.high, point.backward, leads)


def _ends(points: Sequence[Point]) -> list[float]:
    """Every finite value and whisker's end."""
    return [v for p in points for v in (p.value, p.low, p.high) if v is not None and math.isfinite(v)]


def _near(level: float, points: Sequence[Point]) -> bool:
    ends = _ends(points)
    if not ends or not math.isfinite(level):
        return False
    reach = REACH * (max(ends) - min(ends))
    return min(ends) - reach <= level <= max(ends) + reach


def _drawn(points: Sequence[Point], levels: Sequence[tuple[str, float]], column: Column) -> Markup:
    exact = any(math.isinf(p.value) for p in points)
    x = cost_axis([p.cost for p in points], LEFT, RIGHT)
    values = _ends(points) + [v for _, v in levels]
    y = value_axis(values, FLOOR, TOP + 34 * exact, error=column.better == "lower")
    marks = [_mark_box(p, x, y) for p in points]
    names = stacked([n for n, _ in levels], [y.at(v) for _, v in levels], RIGHT, FRAME)
    taken = [*marks, *names]
    labels: list[Label] = []
    for p, mark in zip(points, marks, strict=True):
        labels.append(placed(p.label, mark, taken, FRAME))
        taken.append(labels[-1].box)
    parts = [_grid(x, y, column), *(_level(n, y.at(v), box) for (n, v), box in zip(levels, names, strict=True))]
    parts += [_whisker(p, x, y) for p in points]
    parts += [_mark(p, mark, column) for p, mark in zip(points, marks, strict=True)]
    parts += [_written(label, mark) for label, mark in zip(labels, marks, strict=True)]
    parts += [
        Markup('<text class="tick" x="{}" y="{}" text-anchor="end">exact</text>').format(LEFT - 8, TOP + 12)
    ] * exact
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" xmlns="http://www.w3.org/2000/svg">\n'
        "<title>{}</title>\n<desc>{}</desc>\n{}\n</svg>"
    ).format(
        WIDTH, HEIGHT, f"{column.metric} against cost", words.plain(described(points, column)), Markup("\n").join(parts)
    )


def _mark_box(p: Point, x: Axis, y: Axis) -> Box:
    """Exact points stand on a line of their own above the axis."""
    height = TOP + 8.0 if math.isinf(p.value) else y.at(p.value)
    return Box(x.at(p.cost) - RADIUS, height - RADIUS, 2 * RADIUS, 2 * RADIUS)


def _grid(x: Axis, y: Axis, column: Column) -> Markup:
    across = [
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
        ).format(LEFT, RIGHT, LEFT - 8, y.at(tick) + 4, words.tick(tick), y=y.at(tick))
        for tick in y.ticks
    ]
    along = [
        Markup(
            '<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>'
            '<text class="tick" x="{x:.1f}" y="{}" text-anchor="middle">{}</text>'
        ).format(FLOOR, FLOOR + 5, FLOOR + 19, words.whole(tick), x=x.at(tick))
        for tick in x.ticks
    ]
    unit = f", {column.unit}" if column.unit not in ("", "1") else ""
    name = words.line(f"{column.metric}{unit} ({'higher' if column.higher else 'lower'} is better)", 60)
    names = Markup(
        '<line class="axis" x1="{}" x2="{}" y1="{floor}" y2="{floor}"/>'
        '<text class="name" x="{}" y="{}" text-anchor="end">network evaluations per picture (log scale)</text>'
        '<text class="name" transform="translate(16 {}) rotate(-90)" text-anchor="middle">{}</text>'
    ).format(LEFT, RIGHT, RIGHT, HEIGHT - 12, (TOP + FLOOR) / 2, name, floor=FLOOR)
    return Markup("").join([*across, *along, names])


def _level(name: str, height: float, box: Box) -> Markup:
    """A baseline: a dashed line with its name at the right end."""
    return Markup(
        '<line class="level" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(LEFT, RIGHT, RIGHT, box.top + LINE - 4, name, y=height)


def _whisker(p: Point, x: Axis, y: Axis) -> Markup:
    if p.low is None or p.high is None or math.isinf(p.value):
        return Markup("")
    return Markup('<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
        y.at(p.low), y.at(p.high), x=x.at(p.cost)
    )


def _told(p: Point, column: Column) -> str:
    backward = f" and {words.whole(p.backward)} backward passes" if p.backward else ""
    return f"{words.number(p.value, column.unit)} at {words.whole(p.cost)} network evaluations{backward}"


def _mark(p: Point, box: Box, column: Column) -> Markup:
    """A disc, or a square for a method that also differentiates; its numbers come with the pointer."""
    title = Markup("<title>{}</title>").format(words.line(f"{p.label}: {_told(p, column)}"))
    kind = "lead" if p.leads else "other"
    if p.backward:
        square = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{w}" height="{w}">{}</rect>')
        return square.format(kind, box.left, box.top, title, w=2 * RADIUS)
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}">{}</circle>').format(
        kind, *box.middle, RADIUS, title
    )


def _written(label: Label, mark: Box) -> Markup:
    leader = Markup("")
    if label.leader:
        end = (label.x + (-2 if label.anchor == "start" else 2), label.box.middle[1])
        leader = Markup('<line class="leader" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
            *mark.middle, *end
        )
    return leader + Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        label.x, label.box.bottom - 4, label.anchor, label.text
    )
