"""The report of a benchmark run: one self-contained page, a Markdown and a CSV table, all with the same numbers.

`write_report(folder)` reads the run's ledger, works out the tables (`table`, with the intervals of `statistics`), draws
quality against cost (`plot`), picks the pictures to look at (`gallery`) and writes (`page`, `markdown`, `spreadsheet`).
"""

from __future__ import annotations

from unsample.report.write import write_report

__all__ = ["write_report"]
