"""`unsample report`: a benchmark run as one HTML page, a Markdown and a CSV table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from unsample.cli import options, places, talk
from unsample.cli.options import OUTPUT, examples


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    app.command("report", epilog=examples("unsample report runs/x", "unsample report runs/x -o shared --json"))(report)


def report(
    run: Annotated[
        str, Argument(metavar="RUN", help="The folder of a run: what 'unsample bench run -o' made.", show_default=False)
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
    raw_csv: options.RawCsv = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Write report.html, report.md and report.csv of a benchmark run.

    The page stands alone: it asks no other host and needs no script. A run that
    is still going on, or that failed in places, can be reported too. In the run's
    own folder its report is made anew; elsewhere files that exist are kept.
    """
    from unsample.report.write import NAMES, write_report

    if output is not None and os.path.realpath(output) != os.path.realpath(run):
        places.check_free([Path(output) / name for name in NAMES], overwrite)
    files = [str(file) for file in write_report(run, output, raw_csv=raw_csv)]
    if json:
        talk.document({"run": run, "files": files})
    talk.say(f"wrote {', '.join(files)}")
    return 0
