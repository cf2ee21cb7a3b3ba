"""`unsample study`: the experiments of four papers, and ours, each by one command; claims are fixed before the run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from unsample.cli import checks, options, talk
from unsample.cli.methods import table
from unsample.cli.options import INVERSION, MODEL, OUTPUT, RUNNING, examples
from unsample.cli.progress import Progress
from unsample.errors import BadOption, unknown_name

if TYPE_CHECKING:
    from unsample.bench.local import Crew
    from unsample.bench.run import How, Summary
    from unsample.studies.base import Asked, Study
    from unsample.studies.passes import Work
    from unsample.studies.running import StudyResult
    from unsample.studies.verdicts import Verdict

ALL, CORES = "all", 2


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    shown = ("unsample study zeng_table1 --model scenes-mixture", "unsample study all -o site")
    app.command("study", epilog=examples(*shown))(study)


def study(
    name: Annotated[
        str | None,
        Argument(metavar="[NAME|all]", help="A study, or all of them.", show_default="the studies are listed"),
    ] = None,
    document: Annotated[
        str | None,
        Argument(metavar="[FILE.md]", help="With --docs: the document.", show_default="docs/studies.md"),
    ] = None,
    model: Annotated[
        str | None,
        Option(
            "--model", "-m", metavar="NAME[,NAME...]", help="Models: bundled, folders or hub ids.",
            rich_help_panel=MODEL, show_default="the study's own",
        ),
    ] = None,
    device: options.Device = None,
    num_samples: Annotated[
        int | None,
        Option(metavar="N", help="Pictures of each model.", rich_help_panel=INVERSION, show_default="the study's own"),
    ] = None,
    steps: Annotated[
        int | None,
        Option(
            *options.STEPS, metavar="N", help="Steps each way.", rich_help_panel=INVERSION,
            show_default="the study's own",
        ),
    ] = None,
    seed: Annotated[int, Option(metavar="N", help="Another seed has other pictures.", rich_help_panel=INVERSION)] = 0,
    quick: options.Quick = False,
    only: Annotated[
        str | None,
        Option(
            metavar="NAME[,NAME...]", help="Of all, these studies.", rich_help_panel=RUNNING, show_default="every one"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        Option(
            metavar="N", help="Processes, or Ray actors.", rich_help_panel=RUNNING,
            show_default="one a core for more than 15 s of work with bundled models, else 1",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        Option(
            metavar="N", help="CPU threads of each worker.", rich_help_panel=RUNNING,
            show_default="1 with bundled models, else cores / workers",
        ),
    ] = None,
    dry_run: options.DryRun = False,
    engine: options.Engine = "local",
    ray_address: options.RayAddress = None,
    output: Annotated[
        str | None,
        Option(
            *options.OUT, metavar="DIR", help="Folder to write to; one that holds a part of it is gone on with.",
            rich_help_panel=OUTPUT, show_default="studies/NAME, of all studies",
        ),
    ] = None,
    docs: Annotated[
        bool,
        Option("--docs", help="Of all: put verdicts and main figures into a document too.", rich_help_panel=OUTPUT),
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:  # fmt: skip
    """List the studies; run one, or all of them.

    Each asks one question of a paper, or of ours, on pictures of a model: it writes
    rows, verdicts on claims that were fixed before the run, a figure, and one page
    that stands alone. A study that was stopped goes on when the same command is
    given again. Exit code 1: some cells failed, or of all studies one did.
    """
    asked = {"--model": model, "--num-samples": num_samples, "--steps": steps, "--only": only, "--workers": workers}
    asked |= {
        "--threads": threads,
        "-o": output,
        "--docs": docs or None,
        "--device": device,
        "--ray-address": ray_address,
        "--dry-run": dry_run or None,
    }
    given = [option for option, value in asked.items() if value is not None]
    if name is None:
        if given or quick or seed or engine != "local":
            raise BadOption(f"name a study, or all; {(given or ['an option'])[0]} alone says nothing")
        return listed(json)
    if name != ALL and (only is not None or docs):
        raise BadOption(f"{'--docs' if docs else '--only'} belongs to 'unsample study all'; got {name!r}")
    if document is not None and not docs:
        raise BadOption(f"one study, or all; {document!r} stands for a document, which is written with --docs alone")
    if docs and quick:
        raise BadOption("--docs takes results, and --quick makes a look alone; leave one of them out")
    how = _how(workers, threads, engine, ray_address, device)
    names = _named(name, only)
    numbers = _Numbers(_models(model), num_samples, steps, seed, quick)
    if name == ALL:
        from unsample.cli.study_all import run_all
        from unsample.studies.docs import DOCUMENT

        wanted = document or DOCUMENT if docs else None
        return run_all(names, numbers.asked, how, Path(output or "studies"), wanted, json, dry_run)
    return _one(name, numbers, how, Path(output or Path("studies") / name), json, dry_run)


class _Numbers:
    """What was asked on the command line of each study."""

    def __init__(
        self, models: Sequence[str], num_samples: int | None, steps: int | None, seed: int, quick: bool
    ) -> None:
        self._given = models, num_samples, steps, seed, quick

    def asked(self, study: Study) -> Asked:
        """Of one study, with its own defaults."""
        from unsample.studies.running import asked_of

        return asked_of(study, *self._given)


def _how(workers: int | None, threads: int | None, engine: str, ray_address: str | None, device: str | None) -> How:
    from unsample.bench.run import How

    checks.workers(device, workers, threads, engine, ray_address)
    return How(
        engine=engine, workers=workers or 0, threads=threads, artefacts="none", device=device, ray_address=ray_address,
        command=["unsample", *sys.argv[1:]],
    )  # fmt: skip


def _models(text: str | None) -> list[str]:
    from unsample.bench.entries import split_outside

    found = [part.strip() for part in split_outside(text or "", ",") if part.strip()]
    if text is not None and not found:
        raise BadOption(f"--model names no model; got {text!r}")
    return found


def _named(name: str, only: str | None) -> list[str]:
    """The studies that are meant.

    Raises:
        UnknownName: none of them. BadOption: no name.
    """
    from unsample.studies import NAMES

    wanted = [part.strip() for part in (only or "").split(",") if part.strip()] if name == ALL else [name]
    if only is not None and not wanted:
        raise BadOption(f"--only names no study; got {only!r}")
    for each in wanted:
        if each not in NAMES:
            raise unknown_name("study", each, [*NAMES, ALL] if name != ALL else NAMES)
    return [each for each in NAMES if each in wanted or not wanted]


# ---------------------------------------------------------------- the list


def listed(json: bool) -> int:
    """Every study, by paper."""
    from unsample.studies import NAMES, get_study

    rows = [_row(get_study(name)) for name in NAMES]
    if json:
        talk.document({"studies": [{k: v for k, v in row.items() if k != "calls"} for row in rows]})
        return 0
    for paper in dict.fromkeys(row["paper"] for row in rows):
        of_paper = [row for row in rows if row["paper"] == paper]
        lines = [(r["name"], r["shows"], _several(r["models"]), r["calls"], _minutes(r)) for r in of_paper]
        talk.answer(f"{paper}\n")
        talk.answer(table([("study", "shows", "models", "calls a picture", "minutes"), *lines]))
        talk.answer("\n" + "\n".join(f"{row['name']}: {row['question']}" for row in of_paper) + "\n")
    talk.answer("'unsample study NAME' runs one, 'unsample study all -o SITE' every one; minutes are of two cores.")
    return 0


def _row(study: Study) -> dict[str, Any]:
    from unsample.studies.claimed import claims_of
    from unsample.studies.passes import work_of
    from unsample.studies.running import asked_of

    work = work_of(study, asked_of(study))
    most, least = max(work.passes.values(), default=0), min(work.passes.values(), default=0)
    return {
        "name": study.name,
        "question": study.question,
        "paper": study.paper,
        "shows": study.shows,
        "models": list(study.default_models),
        "needs": list(study.needs),
        "num_samples": study.num_samples,
        "steps": study.steps,
        "network_calls_per_picture": dict(work.passes),
        "network_calls": work.total,
        "calls": f"{most:,}" if most == least else f"{least:,}-{most:,}",
        "minutes": study.minutes,
        "estimated_minutes": round(work.seconds / 60 / CORES, 2),
        "claims": [claim.name for claim in claims_of(study.name)],
        "published": study.published,
    }


def _several(models: Sequence[str]) -> str:
    from unsample.models.minis import PREFIX

    small = sum(model.startswith(PREFIX) for model in models)
    larger = [model for model in models if not model.startswith(PREFIX)]
    named = ", ".join(larger)
    said = named if len(named) <= 24 else f"{len(larger)} bundled"
    return f"{said} and {small} small" if small else said


def _minutes(row: dict[str, Any]) -> str:
    """As measured; else what the network calls alone come to."""
    measured = row["minutes"]
    return f"about {row['estimated_minutes']:.1f}" if measured is None else f"{measured:.1f}"


# ---------------------------------------------------------------- one


def _one(name: str, numbers: _Numbers, how: How, folder: Path, json: bool, dry_run: bool) -> int:
    from unsample.studies import get_study
    from unsample.studies.passes import work_of
    from unsample.studies.running import check_study

    study = get_study(name)
    asked = numbers.asked(study)
    check_study(study, asked, None if dry_run else folder, device=how.device)
    work = work_of(study, asked)
    before(study, asked, work)
    if dry_run:
        return would_run({name: work}, json)
    found, files, said = conducted(study, asked, how, folder, work)
    for each in said:
        talk.warn(each)
    if json:
        about: dict[str, Any] = {"study": name, "folder": str(folder), "files": [str(file) for file in files]}
        about |= {"network_calls": work.total, "rows": len(found.rows), "about": found.about}
        talk.document(about | {"verdicts": [verdict.plain() for verdict in found.verdicts]})
    else:
        talk.answer(verdicts_told(found.verdicts))
    talk.say(f"wrote {', '.join(str(file) for file in files)}")
    return lacking(found)


def lacking(found: StudyResult) -> int:
    """The exit code: 1 where cells failed, or a part was stopped."""
    stopped = any(each["kind"] == "stopped" for each in found.about["apart"])
    return 1 if found.about["failed_cells"] or stopped else 0


def would_run(planned: Mapping[str, Work], json: bool) -> int:
    """What would be run: cells, network evaluations, and how long those take on a CPU, roughly."""
    minutes = sum(work.seconds for work in planned.values()) / 60 / CORES
    about = {name: {"cells": work.cells, "network_calls": work.total} for name, work in planned.items()}
    if json:
        talk.document({"studies": about, "estimated_minutes": round(minutes, 2)})
    else:
        total = sum(work.total for work in planned.values())
        talk.answer(f"{total:,} network evaluations: about {minutes:,.1f} minutes on {CORES} cores of a CPU; not run")
    return 0


def before(study: Study, asked: Asked, work: Work) -> None:
    """What is said before the work starts."""
    from unsample.models.minis import COUNT, minis
    from unsample.studies.claimed import claims_of
    from unsample.studies.passes import pictures_of, pictures_told
    from unsample.studies.running import plans_of

    plans = plans_of(study, asked)
    talk.say(f"{study.name}: {study.question}")
    models = ", ".join(asked.models) if len(asked.models) < 6 else _several(asked.models)
    quick = ", quick presets" if asked.quick else ""
    talk.say(
        f"{models}: {pictures_told(pictures_of(plans.values()))}, {asked.steps} steps, seed {asked.seed}{quick}; "
        f"{work.cells:,} cells, {work.told}"
    )
    if any(claim.nature for claim in claims_of(study.name)) and len(minis()) < COUNT:
        talk.note(
            f"{len(minis())} of the {COUNT} small networks of training/mini are here ('make mini' trains them): claims "
            "about the nature of inversion will be 'too few samples'"
        )


def conducted(
    study: Study, asked: Asked, how: How, folder: Path, work: Work, in_site: bool = False, crew: Crew | None = None
) -> tuple[StudyResult, list[Path], list[str]]:
    """Run what is not done, and write; what was found, the files, and what could not be made."""
    from unsample.studies.running import run_study
    from unsample.studies.writing import write_study

    latest: dict[str, Summary] = {}

    def observe(run: str, summary: Summary) -> None:
        latest[run] = summary
        done, found, failed = (
            sum(getattr(each, key) for each in latest.values()) for key in ("done", "found", "failed")
        )
        progress.at(done, max(work.cells, done), found, failed)

    progress = Progress(f"cells of {study.name}")
    with progress:
        found = run_study(study.name, asked, folder, how, observe, crew=crew)
    for each in found.about["apart"]:
        talk.warn(f"{each['kind']}: {each['reason']}")
    for kind in ("failed", "diverged"):
        if count := found.about[f"{kind}_cells"]:
            names = f"'unsample report {folder}/run-K' names them"
            talk.warn(f"{count:,} of {found.about['cells']:,} cells {kind} and have no values; {names}")
    return found, *write_study(found, folder, in_site)


def verdicts_told(verdicts: Sequence[Verdict]) -> str:
    """Each claim with its verdict, and what was found on each model."""
    if not verdicts:
        return "no claims: this study shows, and judges nothing"
    said = []
    for verdict in verdicts:
        claim = verdict.claim
        said.append(f"{verdict.answer}: {claim.says}" + (f" ({verdict.reason})" if verdict.reason else ""))
        if claim.published:
            said.append(f"  published: {claim.published}")
        rows: list[tuple[str, ...]] = [("model", claim.effect, "95 % interval", "n", "Holm p", "verdict")]
        rows += [
            (e.model, _number(e.effect), _interval(e.low, e.high), str(e.n), _number(e.holm), e.answer)
            for e in verdict.found
        ]
        said += [f"  {line}" for line in table(rows).splitlines()] + [""]
    return "\n".join(said).rstrip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.3g}, {high:.3g}]"
