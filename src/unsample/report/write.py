"""The three files of a report, each written in one step."""

from __future__ import annotations

import os
from pathlib import Path

from unsample.media.files import atomic_write, check_writable_folder

NAMES = ("report.html", "report.md", "report.csv")


def write_report(
    folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None, *, raw_csv: bool = False
) -> list[Path]:
    """Write `report.html`, `report.md` and `report.csv` of a benchmark run; reports that are there are replaced.

    Args:
        folder: what `unsample bench run -o` made; the run may still be going on.
        output: folder to write to; default: the run's own.
        raw_csv: leave texts in the CSV as they are, also those that a spreadsheet would run as formulas.

    Returns:
        The files written.

    Raises:
        BadInput: the folder is no run, or the files cannot be written.
    """
    from unsample.bench.coverage import coverage
    from unsample.bench.ledger import read_run
    from unsample.report.about import about, settings_of
    from unsample.report.markdown import markdown
    from unsample.report.page import page
    from unsample.report.spreadsheet import spreadsheet
    from unsample.report.table import blocks

    run = read_run(folder)
    parts = coverage(run)
    found = blocks(run.rows, [str(m) for m in settings_of(run.plan).get("metrics") or ()], parts, run.sets)
    around = about(run, found, parts)
    texts = (page(found, around, Path(run.folder)), markdown(found, around), spreadsheet(found, raw_csv))
    place = check_writable_folder(folder if output is None else output)
    files = [place / name for name in NAMES]
    for file, text in zip(files, texts, strict=True):
        _write(file, text.encode("utf-8", "replace"))
    return files


def _write(file: Path, content: bytes) -> None:
    atomic_write(file, lambda temporary: temporary.write_bytes(content))
