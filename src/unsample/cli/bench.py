"""`unsample bench run | verify | merge | export`: methods on a data set, resumably, and what to do with a run."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from unsample.cli import checks, options, places, talk
from unsample.cli.options import INVERSION, METHODS, MODEL, OUTPUT, RUNNING, examples
from unsample.cli.progress import Progress
from unsample.errors import BadOption
from unsample.media.files import check_writable_folder
from unsample.wording import CommandLine, worded

if TYPE_CHECKING:
    from unsample.bench.parts import Apart, Examined
    from unsample.bench.plan import Plan
    from unsample.bench.run import How, Summary

RunFolder = Annotated[
    str, Argument(metavar="RUN", help="The folder of a run: what 'unsample bench run -o' made.", show_default=False)
]
Artefacts = Literal["pictures", "all", "none"]
MOST = 20  # parts of a plan that are named on the terminal
GO_ON = "the same command goes on"


def add_to(app: typer.Typer) -> None:
    """The verbs and their examples."""
    group = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Run methods on a data set, resumably; verify, merge and export runs.",
        epilog=examples("unsample bench run quick -o runs/quick", "unsample bench verify runs/quick"),
        no_args_is_help=True,
    )
    run_examples = (
        "unsample bench run quick -o runs/quick",
        "unsample bench run --dataset scenes:8 --methods ddim,bdia[gamma=0.9]",
    )
    group.command("run", epilog=examples(*run_examples))(run)
    group.command("verify", epilog=examples("unsample bench verify runs/x", "unsample bench verify runs/x --json"))(
        verify
    )
    merge_examples = ("unsample bench merge runs/1 runs/2 -o runs/all", "unsample bench merge runs/* -o all --json")
    group.command("merge", epilog=examples(*merge_examples))(merge)
    export_examples = (
        "unsample bench export runs/x --csv -o rows.csv",
        "unsample bench export runs/x --parquet",
    )
    group.command("export", epilog=examples(*export_examples))(export)
    app.add_typer(group, name="bench")


def run(
    plan: Annotated[
        str | None,
        Argument(metavar="[PLAN]", help="TOML file, or quick, zeng, easyinv, editing, pie_bench.", show_default="none"),
    ] = None,
    dataset: Annotated[
        str | None, Option(metavar="SPEC", help="'unsample datasets' lists them.", show_default="the plan's")
    ] = None,
    model: Annotated[
        str | None,
        Option(
            "--model", "-m", metavar="NAME[,NAME...]", help="Models.", rich_help_panel=MODEL,
            show_default="the plan's, else scenes-sd",
        ),
    ] = None,
    dtype: Annotated[
        options.DtypeName | None,
        Option(metavar="NAME", help="Of the network.", rich_help_panel=MODEL, show_default="the plan's, else float32"),
    ] = None,
    device: options.Device = None,
    methods: Annotated[
        str | None,
        Option(
            metavar="NAME[KEY=VALUE,...],...", help="Methods with settings.", rich_help_panel=METHODS,
            show_default="the plan's",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        Option(
            metavar="NAME[,NAME...]", help="'unsample metrics' lists them.", show_default="the plan's, else psnr,ssim"
        ),
    ] = None,
    guidance: Annotated[
        str | None,
        Option(
            metavar="W[,W...]", help="Guidance of sampling.", rich_help_panel=INVERSION,
            show_default="the plan's, else 1",
        ),
    ] = None,
    inversion_guidance: Annotated[
        str | None,
        Option(
            metavar="W|same", help="Guidance while inverting; same: that of sampling.", rich_help_panel=INVERSION,
            show_default="the plan's, else each method's own, else 1",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        Option(
            *options.STEPS,
            metavar="N[,N...]",
            help="Steps each way; several multiply.",
            rich_help_panel=INVERSION,
            show_default="the plan's, else 50",
        ),
    ] = None,
    edit: Annotated[
        bool, Option("--edit", help="Edit by the data set's target prompts too.", rich_help_panel=INVERSION)
    ] = False,
    editors: Annotated[
        str | None,
        Option(
            metavar="NAME[KEY=VALUE,...],...", help="Editors with settings; 'unsample editors' lists them.",
            rich_help_panel=METHODS, show_default="the plan's, else none",
        ),
    ] = None,
    masks: Annotated[
        str | None,
        Option(
            metavar="NAME[,NAME...]", help="Where edits may change a picture: none, given (the item's own), auto ...",
            rich_help_panel=METHODS, show_default="the plan's, else none",
        ),
    ] = None,
    edit_guidance: Annotated[
        str | None,
        Option(
            metavar="W[,W...]", help="Guidance of edits.", rich_help_panel=INVERSION,
            show_default="the plan's, else that of sampling",
        ),
    ] = None,
    quick: options.Quick = False,
    seed: Annotated[
        int | None, Option(metavar="N", help="Seed of the run.", show_default="the plan's, else 0")
    ] = None,
    engine: options.Engine = "local",
    ray_address: options.RayAddress = None,
    workers: Annotated[int, Option(metavar="N", help="Processes, or Ray actors.", rich_help_panel=RUNNING)] = 1,
    threads: Annotated[
        int | None,
        Option(
            metavar="N", help="CPU threads of each worker.", rich_help_panel=RUNNING, show_default="cores / workers"
        ),
    ] = None,
    batch_size: Annotated[
        str,
        Option(
            metavar="N|auto", help="Pictures at once; auto begins at 8 and halves when memory is short.",
            rich_help_panel=RUNNING,
        ),
    ] = "auto",
    shard: Annotated[
        str, Option(metavar="I/N", help="Run one part of N; 'bench merge' puts them together.", rich_help_panel=RUNNING)
    ] = "1/1",
    only: Annotated[
        str | None,
        Option(
            metavar="METHOD[,METHOD...]", help="Run these methods of the plan now, named as it names them.",
            rich_help_panel=RUNNING, show_default="all",
        ),
    ] = None,
    artefacts: Annotated[
        Artefacts,
        Option(metavar="NAME", help="What to keep: pictures, all (inversions too), none.", rich_help_panel=OUTPUT),
    ] = "pictures",
    output: Annotated[
        str, Option("--output", "-o", metavar="DIR", help="Folder of the run.", rich_help_panel=OUTPUT)
    ] = "run",
    dry_run: options.DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:  # fmt: skip
    """Run every method of a plan on every item of a data set.

    A run that was stopped, by whatever, goes on when the same command is given
    again. Options replace the plan's keys. Results do not depend on workers,
    engine or order. Exit code 1: some cells failed; 130: stopped, and whole.
    """
    changes: dict[str, Any] = {"dataset": dataset, "dtype": dtype}
    changes["inversion_guidance"] = _scale_or_same("--inversion-guidance", inversion_guidance)
    changes |= {"seed": seed, "edit": edit or None, "quick": quick or None}
    changes |= {"models": _names(model), "methods": _names(methods), "metrics": _names(metrics)}
    changes |= {"editors": _names(editors), "masks": _names(masks)}
    changes["guidance"] = _numbers("--guidance", guidance, float)
    changes["edit_guidance"] = _numbers("--edit-guidance", edit_guidance, float)
    changes["steps"] = _numbers("--steps", steps, int)
    changes = {k: v for k, v in changes.items() if v is not None}
    from unsample.bench.parts import examine
    from unsample.bench.run import How
    from unsample.bench.sets import check_kept

    with worded(_PlanKeys(changes)):
        asked = _plan(plan, changes)
        examined = examine(asked)
    check_kept(asked, artefacts)
    checks.workers(device, workers, threads, engine, ray_address)
    how = How(
        engine=engine, workers=workers, batch_size=checks.batch_size(batch_size), threads=threads, shard=_shard(shard),
        only=_names(only) or (),
        artefacts=artefacts, device=device, ray_address=ray_address, command=["unsample", *sys.argv[1:]],
    )  # fmt: skip
    _say_before(asked, examined.apart)
    return _tell(asked, examined, how, json) if dry_run else _run(asked, Path(output), how, json)


def verify(run: RunFolder, json: options.Json = False, debug: options.Debug = False) -> int:
    """Compare every row and every file of a run with its hash, and the rows with the plan.

    Exit code 4: something is damaged. Cells that are not done yet are said, and
    are no damage.
    """
    from unsample.bench.checking import verify as check

    found = check(Path(run))
    for what in [*found.damaged, *(f"{cell}: no cell of this plan" for cell in found.strange)][:20]:
        talk.error(what)
    whole_sets = f"{found.sets:,} whole sets, " if found.sets else ""
    text = f"{found.rows:,} of {found.cells:,} cells, {whole_sets}{found.artefacts:,} files: "
    text += "all as written" if found.sound else f"{len(found.damaged) + len(found.strange)} damaged"
    for part in found.apart:
        talk.note(f"{part.kind}: {part.told(found.several)}")
    if json:
        lists = {"lost": found.lost, "damaged": found.damaged, "strange": found.strange}
        lists |= {part.kind.replace(" ", "_"): [] for part in found.apart}
        for part in found.apart:
            lists[part.kind.replace(" ", "_")].append(part.told(found.several))
        about = {"run": run, "cells": found.cells, "rows": found.rows, "sets": found.sets, "files": found.artefacts}
        talk.document(about | found.counts.plain() | lists)
    else:
        talk.answer(f"{text}; {found.counts.told()}")
    return 0 if found.sound else 4


def merge(
    runs: Annotated[list[str], Argument(metavar="RUN", help="Shards of one plan.", show_default=False)],
    output: Annotated[
        str, Option("--output", "-o", metavar="DIR", help="Folder of the whole run.", rich_help_panel=OUTPUT)
    ] = "merged",
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Put the shards of one plan together, with their files."""
    from unsample.bench.checking import merge as put_together
    from unsample.bench.coverage import coverage, total

    found = put_together([Path(run) for run in runs], Path(output))
    counts = total(part.counts for part in coverage(found))
    said = f"; {counts.told()}" if counts.planned else ""
    talk.say(f"wrote {len(found.rows):,} cells of {len(runs)} runs to {output}{said}")
    if json:
        talk.document(
            {"run": output, "rows": len(found.rows), "sets": len(found.sets), "broken": len(found.broken)}
            | counts.plain()
        )
    return 0


def export(
    run: RunFolder,
    csv: Annotated[bool, Option("--csv", help="Comma-separated values.", rich_help_panel=OUTPUT)] = False,
    json: Annotated[bool, Option("--json", help="Plan, rows and broken items.", rich_help_panel=OUTPUT)] = False,
    parquet: Annotated[
        bool, Option("--parquet", help="Parquet (pip install 'unsample\\[parquet]').", rich_help_panel=OUTPUT)
    ] = False,
    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write it.",
            rich_help_panel=OUTPUT,
            show_default="stdout; RUN/rows.parquet for Parquet",
        ),
    ] = None,
    raw_csv: options.RawCsv = False,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> int:
    """Export the rows of a run: one row a cell, a column a value."""
    forms = [form for form, asked in (("csv", csv), ("json", json), ("parquet", parquet)) if asked]
    if len(forms) != 1:
        raise BadOption(f"give one of --csv, --json and --parquet; got {' '.join(f'--{f}' for f in forms) or 'none'}")
    if raw_csv and not csv:
        raise BadOption("--raw-csv belongs to --csv")
    from unsample.bench.coverage import coverage, total
    from unsample.bench.export import as_text, write
    from unsample.bench.ledger import FILE, LOCK, PLAN, read_run

    path = Path(output or Path(run) / "rows.parquet")
    if output is not None or parquet:
        places.check_free([path], overwrite, [str(Path(run) / name) for name in (FILE, LOCK, PLAN)])
    found = read_run(run)
    counts = total(part.counts for part in coverage(found))
    if counts.missing or counts.sets_missing:
        talk.warn(f"the run is not complete: {counts.told()}")
    if output is None and not parquet:
        print(as_text(found, forms[0], raw_csv), end="", flush=True)
        return 0
    check_writable_folder(path.parent)
    write(found, path, forms[0], raw_csv)
    talk.say(f"wrote {len(found.rows):,} rows to {path}")
    return 0


# ---------------------------------------------------------------- what `run` needs


class _PlanKeys(CommandLine):
    """As in a shell what was given there; any other key is the plan's."""

    def __init__(self, options: Collection[str]) -> None:
        self._options = options

    def argument(self, name: str) -> str:
        return f"{name} of a plan" if self._of_plan(name) else super().argument(name)

    def given(self, name: str, value: object) -> str:
        return f"{name} {self.value(value)} of a plan" if self._of_plan(name) else super().given(name, value)

    def _of_plan(self, name: str) -> bool:
        from unsample.bench.plan import Plan

        return name in Plan.__dataclass_fields__ and name not in self._options


def _plan(name: str | None, changes: dict[str, Any]) -> Plan:
    from unsample.bench.plan import make_plan, read_plan

    if name is None and "dataset" not in changes:
        raise BadOption("give a plan (quick, or a TOML file), or --dataset and --methods")
    return make_plan(changes) if name is None else read_plan(name, changes)


def _names(text: str | None) -> list[str] | None:
    from unsample.bench.entries import split_outside

    return None if text is None else [part.strip() for part in split_outside(text, ",") if part.strip()]


def _numbers(option: str, text: str | None, kind: type) -> list[Any] | None:
    try:
        return None if text is None else [kind(part) for part in text.split(",")]
    except ValueError as error:
        what = "numbers" if kind is float else "whole numbers"
        raise BadOption(f"{option} takes {what}, separated by commas; got {text!r}") from error


def _scale_or_same(option: str, text: str | None) -> float | str | None:
    from unsample.bench.entries import SAME

    try:
        return text if text in (None, SAME) else float(text or "")
    except ValueError as error:
        raise BadOption(f"{option} takes a number, or {SAME}, that of sampling; got {text!r}") from error


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise BadOption(f"--shard takes I/N with I from 1 to N, such as 2/4; got {text!r}")
    return int(match[1]), int(match[2])


def _say_before(plan: Plan, apart: Sequence[Apart]) -> None:
    """What is known of a run before it begins, once."""
    from unsample.bench.entries import drifting
    from unsample.bench.parts import Several
    from unsample.bench.plan import unmeasured, without_weights

    for said in dict.fromkeys(drifting(plan).values()):
        talk.warn(said)
    for part in apart[:MOST]:
        talk.note(f"not run: {part.told(Several.of(plan))}")
    if len(apart) > MOST:
        talk.note(f"not run: {len(apart) - MOST:,} more")
    for metric, reason in (unmeasured(plan) | without_weights(plan)).items():
        talk.warn(f"{metric} will not be measured: {reason}")


def _tell(plan: Plan, examined: Examined, how: How, as_json: bool) -> int:
    """What a run would do."""
    from unsample.bench.cells import estimated_nfe
    from unsample.bench.run import chosen
    from unsample.datasets import open_dataset

    opened = {spec: open_dataset(spec) for spec in plan.stages}
    ids = {spec: list(data.ids) for spec, data in opened.items()}
    every, mine = (chosen(plan, h, ids, examined) for h in (replace(how, shard=(1, 1)), how))
    nfe, items = estimated_nfe(every), sum(map(len, ids.values()))
    cells, here = (sum(len(t.ids) for t in tasks) for tasks in (every, mine))
    if as_json:
        about = {"cells": cells, "cells_of_this_shard": here, "batches": len(mine), "estimated_nfe": nfe}
        talk.document(about | {"items": items, "broken": sum(len(data.broken) for data in opened.values())})
    else:
        talk.answer(
            f"{items:,} items, {cells:,} cells ({here:,} in this shard, {len(mine):,} batches); inverting "
            f"takes about {nfe:,} network evaluations, playing back and editing come on top"
        )
    return 0


def _run(plan: Plan, folder: Path, how: How, as_json: bool) -> int:
    from unsample.bench.coverage import outside
    from unsample.bench.ledger import read_run
    from unsample.bench.parts import NOT_APPLICABLE, Several
    from unsample.bench.run import run_plan

    begin = time.perf_counter()
    progress = _Progress("cells")
    with progress:
        try:
            summary = run_plan(plan, folder, how, progress.show)
        except BaseException:  # Ctrl-C, a full disk
            if progress.last is not None:
                talk.say(f"{progress.last.counts.told()}; {GO_ON}")
            raise
    broken = [[item, reason] for (_, item), reason in summary.broken.items()]
    for item, reason in broken[:3]:
        talk.warn(f"{item} was left out: {reason}")
    for said in outside(read_run(folder).rows):
        talk.warn(said)
    several = Several.of(plan)
    for part in summary.stopped[:MOST]:
        talk.error(f"stopped: {part.told(several)}")
    counts, now = summary.counts, sum(summary.statuses.values())
    done = "nothing was left to do" if not now and not counts.missing else f"{now:,} of them now"
    end = f"; {GO_ON}" if counts.missing else ""
    talk.say(
        f"{counts.told()} ({done}); {time.perf_counter() - begin:.1f} s{end}; 'unsample report {folder}' shows them"
    )
    if as_json:
        about = {"run": str(folder), "cells": summary.cells, "done": summary.done, "statuses": summary.statuses}
        about |= counts.plain() | {"broken": broken, "failed": summary.failed}
        kinds = {"stopped": summary.stopped, "not_applicable": [a for a in summary.apart if a.kind == NOT_APPLICABLE]}
        talk.document(about | {kind: [part.told(several) for part in parts] for kind, parts in kinds.items()})
    return 1 if summary.failed or summary.stopped else 0


class _Progress(Progress):
    """Of cells; the last summary is kept."""

    last: Summary | None = None

    def show(self, summary: Summary) -> None:
        """After a batch."""
        self.last = summary
        self.at(summary.done, summary.cells, summary.found, summary.failed)
