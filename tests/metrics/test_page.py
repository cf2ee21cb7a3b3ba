"""`docs/metrics.md` says what the table says."""

from __future__ import annotations

from pathlib import Path

from unsample.metrics.page import page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_of_metrics_is_what_the_table_makes() -> None:
    advice = "write it anew: python -m unsample.metrics.page > docs/metrics.md"
    assert PAGE.read_text(encoding="utf-8") == page(), advice
