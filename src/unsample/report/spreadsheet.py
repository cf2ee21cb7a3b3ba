"""The report as CSV: one line for each model, guidance, method, stage and metric, with every number of the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from unsample.bench.ledger import FINISHED
from unsample.media.files import as_csv
from unsample.report import words
from unsample.report.columns import Column
from unsample.report.statistics import Interval
from unsample.report.table import Block, Cell, MethodRow

OUTCOME: dict[str, Callable[[MethodRow], Any]] = {  # of a method, on each of its lines
    "cells": lambda m: len(m.rows),
    "finished": lambda m: m.count(*FINISHED),
    "success_rate": lambda m: m.success,
    "not_converged": lambda m: m.count("not_converged"),
    "diverged": lambda m: m.count("diverged"),
    "failed": lambda m: m.count("failed"),
    "missing": lambda m: m.missing,
    "planned": lambda m: m.planned + m.left_out,
    "left_out": lambda m: m.left_out,
    "stopped": lambda m: m.stopped or None,
    "inversion_guidance": lambda m: m.says("inversion_guidance"),
    "drift": lambda m: m.drift or None,
    "nfe": lambda m: m.mean("nfe"),
    "backward": lambda m: m.mean("backward"),
    "edit_nfe": lambda m: m.mean("edit_nfe"),
    "edit_backward": lambda m: m.mean("edit_backward"),
    "seconds": lambda m: m.mean("seconds"),
    "peak_memory_mb": lambda m: m.most("peak_memory_mb"),
    "stores": lambda m: m.says("stores"),
    "stored_ratio": lambda m: m.mean("stored_ratio"),
    "fitted": lambda m: m.says("fitted"),
    "exact_by_construction": lambda m: m.says("exact_by_construction"),
}
NONE = Interval(float("nan"))
FIGURES: dict[str, Callable[[Column, Cell, int], Any]] = {  # of a column; the last is how many items all finished
    "stage": lambda column, cell, shared: column.stage,
    "metric": lambda column, cell, shared: column.metric,
    "unit": lambda column, cell, shared: column.unit,
    "better": lambda column, cell, shared: column.better,
    "ranked": lambda column, cell, shared: column.ranks,
    "statistic": lambda c, cell, n: "set" if c.of_set else "psnr_of_mean_mse" if c.decibels else "mean",
    "value": lambda column, cell, shared: (cell.centre or NONE).value,
    "low": lambda column, cell, shared: (cell.centre or NONE).low,
    "high": lambda column, cell, shared: (cell.centre or NONE).high,
    "n_common": lambda column, cell, shared: shared,
    "median": lambda column, cell, shared: cell.median,
    "n": lambda column, cell, shared: len(cell.values.found) if cell.pictures is None else cell.pictures,
    "exact": lambda column, cell, shared: cell.exact,
    "not_measured": lambda column, cell, shared: len(cell.values.reasons),
    "best": lambda column, cell, shared: cell.best,
    "bold": lambda column, cell, shared: cell.bold,
    "difference": lambda column, cell, shared: (cell.gap or NONE).value,
    "difference_low": lambda column, cell, shared: (cell.gap or NONE).low,
    "difference_high": lambda column, cell, shared: (cell.gap or NONE).high,
    "n_pairs": lambda column, cell, shared: cell.pairs,
}
FIELDS = (
    "model",
    "dataset",
    "steps",
    "guidance",
    "method",
    "editor",
    "mask",
    "edit_guidance",
    "baseline",
    *FIGURES,
    *OUTCOME,
)


def spreadsheet(blocks: list[Block], raw: bool = False) -> str:
    """The file's text (`as_csv`). `value` is the mean, or the PSNR of the mean MSE, as `statistic` says."""
    return as_csv(FIELDS, _lines(blocks), raw)


def _lines(blocks: list[Block]) -> Iterator[dict[str, str]]:
    for block in blocks:
        for method in block.everyone:
            about: dict[str, Any] = {k: getattr(block, k) for k in ("model", "dataset", "steps", "guidance")}
            about |= {"method": method.method, "editor": method.editor, "mask": method.mask}
            about |= {"edit_guidance": method.edited_at, "baseline": method.baseline} | {
                k: of(method) for k, of in OUTCOME.items()
            }
            cells = [(c, method.cells[c.key], block.shared[c.key]) for c in block.columns if c.key in method.cells]
            # a method that failed on all items has a line too
            for figures in [{k: of(*cell) for k, of in FIGURES.items()} for cell in cells] or [{}]:
                yield {name: _plain(value) for name, value in (about | figures).items()}


def _plain(value: Any) -> str:
    """Ten digits of a number, nothing for what is not known; never a nan."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    return words.line(value)
