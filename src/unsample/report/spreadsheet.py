"""The report as CSV: one line for each model, guidance, method, stage and metric, with every number of the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unsample.media.files import as_csv
from unsample.report import words
from unsample.report.columns import Column
from unsample.report.statistics import Interval
from unsample.report.table import Block, Cell, MethodRow

FIELDS = (
    *("model", "guidance", "method", "baseline", "stage", "metric", "unit", "better", "ranked"),
    *("statistic", "value", "low", "high", "n_common", "median", "n", "exact", "not_measured"),
    *("best", "bold", "difference", "difference_low", "difference_high", "n_pairs"),
    *("cells", "finished", "success_rate", "not_converged", "diverged", "failed", "missing"),
    *("planned", "left_out", "stopped", "inversion_guidance", "drift"),
    *("nfe", "backward", "seconds", "peak_memory_mb", "stores", "stored_ratio", "fitted", "exact_by_construction"),
)


def spreadsheet(blocks: list[Block], raw: bool = False) -> str:
    """The file's text (`as_csv`). `value` is the mean, or the PSNR of the mean MSE, as `statistic` says."""
    return as_csv(FIELDS, _lines(blocks), raw)


def _lines(blocks: list[Block]) -> Iterator[dict[str, str]]:
    for block in blocks:
        for method in block.everyone:
            about = {"model": block.model, "guidance": block.guidance} | _outcome(method)
            cells = [
                _figures(c, method.cells[c.key], block.shared[c.key]) for c in block.columns if c.key in method.cells
            ]
            for figures in cells or [{}]:  # a method that failed on all items has a line too
                yield {name: _plain(value) for name, value in (about | figures).items()}


def _outcome(m: MethodRow) -> dict[str, Any]:
    return {
        "method": m.label,
        "baseline": m.baseline,
        "cells": len(m.rows),
        "finished": m.count("ok", "not_converged"),
        "success_rate": m.success,
        "not_converged": m.count("not_converged"),
        "diverged": m.count("diverged"),
        "failed": m.count("failed"),
        "missing": m.missing,
        "planned": m.planned + m.left_out,
        "left_out": m.left_out,
        "stopped": m.stopped or None,
        "inversion_guidance": m.says("inversion_guidance"),
        "drift": m.drift or None,
        "nfe": m.mean("nfe"),
        "backward": m.mean("backward"),
        "seconds": m.mean("seconds"),
        "peak_memory_mb": m.most("peak_memory_mb"),
        "stores": m.says("stores"),
        "stored_ratio": m.mean("stored_ratio"),
        "fitted": m.says("fitted"),
        "exact_by_construction": m.says("exact_by_construction"),
    }


def _figures(column: Column, cell: Cell, shared: int) -> dict[str, Any]:
    centre, gap = cell.centre or Interval(float("nan")), cell.gap or Interval(float("nan"))
    return {
        "stage": column.stage,
        "metric": column.metric,
        "unit": column.unit,
        "better": column.better,
        "ranked": column.ranks,
        "statistic": "psnr_of_mean_mse" if column.decibels else "mean",
        "value": centre.value,
        "low": centre.low,
        "high": centre.high,
        "n_common": shared,
        "median": cell.median,
        "n": len(cell.values.found),
        "exact": cell.exact,
        "not_measured": len(cell.values.reasons),
        "best": cell.best,
        "bold": cell.bold,
        "difference": gap.value,
        "difference_low": gap.low,
        "difference_high": gap.high,
        "n_pairs": cell.pairs,
    }


def _plain(value: Any) -> str:
    """Ten digits of a number, nothing for what is not known; never a nan."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    return words.line(value)
