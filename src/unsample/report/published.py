"""What papers published of a data set, beside a run's own figures on it, averaged as they did."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from unsample.experiment.setup import NO_MASK
from unsample.metrics.table import METRICS
from unsample.report import words
from unsample.report.layout import Head, Line, Sheet, Text
from unsample.report.table import Block, MethodRow

Pair = tuple[str, str]  # method and editor, by their names


@dataclass(frozen=True)
class Published:
    """A table of a paper."""

    dataset: str
    title: str
    source: str
    metrics: tuple[str, ...]
    rows: Mapping[Pair, Sequence[float]]


@cache
def tables() -> tuple[Published, ...]:
    """All of `published.toml`."""
    found = tomllib.loads((Path(__file__).parent / "published.toml").read_text(encoding="utf-8"))["table"]
    return tuple(
        Published(
            t["dataset"], t["title"], t["source"], tuple(t["metrics"]),
            {(row["method"], row["editor"]): row["values"] for row in t["rows"]},
        )
        for t in found
    )  # fmt: skip


def beside(block: Block) -> list[Sheet]:
    """The published tables of a block's data set, each row with the run's own; none for another data set."""
    name = block.dataset.partition(":")[0].partition(",")[0].strip()
    return [_sheet(table, block) for table in tables() if table.dataset == name]


def _sheet(table: Published, block: Block) -> Sheet:
    metrics = [m for m in table.metrics if any(c.key == f"edit.{m}" for c in block.columns)] or list(table.metrics)
    heads = [Head("Editor"), Head("Mask", ["given: the item’s own"])]
    heads += [Head(f"{m} {_arrow(m)}".strip(), ["ours, and published"]) for m in metrics]
    lines, seen = [], set[Pair]()
    for method in block.methods:
        pair = str(method.says("method_name")), str(method.says("editor_name") or method.editor)
        published = table.rows.get(pair)
        if published is None:
            continue
        alike = method.mask == NO_MASK  # the published edits had none
        seen |= {pair} if alike else set()
        cells = [_cell(method, m, published[table.metrics.index(m)] if alike else None) for m in metrics]
        lines.append(Line(method.method, [Text(words.line(method.editor, 200)), Text(method.mask), *cells]))
    for pair, values in table.rows.items():
        if pair not in seen:
            cells = [_cell(None, m, values[table.metrics.index(m)]) for m in metrics]
            lines.append(Line(pair[0], [Text(pair[1]), Text(NO_MASK), *cells]))
    return Sheet("published", table.title, heads, lines, [table.source, *_notes(block, metrics)])


def _arrow(metric: str) -> str:
    return {"higher": "↑", "lower": "↓"}.get(METRICS[metric].better, "")


def _cell(method: MethodRow | None, metric: str, published: float | None) -> Text:
    unit, found = METRICS[metric].unit, _values(method, metric) if method else []
    mean = math.fsum(found) / len(found) if found else None
    more = [] if published is None else [f"published {words.number(published, unit)}"]
    more += [f"n = {len(found):,}"] if method else []
    return Text(words.number(mean, unit), more, order=mean)


def _values(method: MethodRow, metric: str) -> list[float]:
    """Every finite value, a picture each: as the authors average, PSNR too."""
    entries = [row["values"].get(f"edit.{metric}") or {} for row in method.rows]
    return [float(e["value"]) for e in entries if e.get("value") is not None]


def _notes(block: Block, metrics: Sequence[str]) -> list[str]:
    """On what the run's own figures are, and how many pictures have no background."""
    reasons = Counter[str]()
    items = {row["item"] for method in block.methods for row in method.rows}
    for method in block.methods:
        for row in method.rows:
            for metric in metrics:
                reason = (row["values"].get(f"edit.{metric}") or {}).get("reason")
                if reason and "the mask covers the whole picture" in reason:
                    reasons[row["item"]] += 1
    said = (
        f"Ours: {block.model}, {block.steps} steps, {words.count(len(items), 'picture')} of {block.dataset}. With "
        "another model or other pictures the figures stand beside each other and do not compare."
    )
    left = f"{words.count(len(reasons), 'picture')} whose mask covers everything left out of the background’s means."
    return [words.line(said, 400), left]
