"""`unsample report`: a benchmark run as one HTML page, a Markdown and a CSV table, or as the tables of a document."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from unsample.cli import options, places, talk
from unsample.cli.options import OUTPUT, examples
from unsample.errors import BadOption

MOST = 12  # rows that a line names


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    shown = ("unsample report runs/x -o shared --json", "unsample report runs/x --docs docs/methods.md")
    app.command("report", epilog=examples(*shown))(report)


def report(
    runs: Annotated[
        list[str],
        Argument(metavar="RUN", help="Folders of runs: what 'unsample bench run -o' made.", show_default=False),
    ],
    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder to write to.",
            rich_help_panel=OUTPUT,
            show_default="the run's own",
        ),
    ] = None,
    docs: Annotated[
        str | None,
        Option(
            metavar="FILE.md",
            help="In place of a report: put the runs' tables between the markers of this document.",
            rich_help_panel=OUTPUT,
            show_default="none",
        ),
    ] = None,
    raw_csv: options.RawCsv = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Write report.html, report.md and report.csv of a benchmark run.

    The page stands alone: it asks no other host and needs no script. A run that
    is still going on, or that failed in places, can be reported too. In the run's
    own folder its report is made anew; elsewhere files that exist are kept.
    With --docs, the table that the run's plan describes (docs) is written
    into a document instead, between <!-- table NAME --> and <!-- end NAME -->.
    """
    if docs is not None:
        for name, given in (("-o", output is not None), ("--raw-csv", raw_csv), ("--overwrite", overwrite)):
            if given:
                raise BadOption(f"--docs writes into {docs!r} and nothing else; leave {name} out")
        return _fill(runs, docs, json)
    if len(runs) > 1:
        raise BadOption(
            f"a report is of one run; got {len(runs)}; 'unsample bench merge' joins shards, --docs takes several"
        )
    return _report(runs[0], output, raw_csv, overwrite, json)


def _report(run: str, output: str | None, raw_csv: bool, overwrite: bool, json: bool) -> int:
    from unsample.report.write import NAMES, write_report

    if output is not None and os.path.realpath(output) != os.path.realpath(run):
        places.check_free([Path(output) / name for name in NAMES], overwrite)
    files = [str(file) for file in write_report(run, output, raw_csv=raw_csv)]
    if json:
        talk.document({"run": run, "files": files})
    talk.say(f"wrote {', '.join(files)}")
    return 0


def _fill(runs: list[str], document: str, json: bool) -> int:
    from unsample.report.docs import write_docs

    filled = write_docs(runs, document)
    if json:
        talk.document({"runs": runs, "document": document, "tables": [asdict(table) for table in filled]})
    for table in filled:
        talk.say(
            f"{document}: table {table.table}, {len(table.made)} rows of the run, {len(table.kept)} kept as they were"
        )
        if table.dropped:
            talk.warn(f"rows that the plan does not list, or with other columns, are dropped: {_listed(table.dropped)}")
        if table.lacking:
            talk.say(
                f"rows of the plan that are not whole yet, and that the document has not: {_listed(table.lacking)}"
            )
    return 0


def _listed(rows: Sequence[str]) -> str:
    more = f"; and {len(rows) - MOST} more" if len(rows) > MOST else ""
    return "; ".join(rows[:MOST]) + more
