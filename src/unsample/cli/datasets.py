"""`unsample datasets`: the table of data sets, one of them with its layout, or one opened and looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument

from unsample.cli import places, talk
from unsample.cli.flat import But, command
from unsample.cli.methods import table
from unsample.cli.options import OUT, OUTPUT, EndOptions, opt
from unsample.errors import BadInput, BadOption
from unsample.media.files import check_writable_folder

if TYPE_CHECKING:
    from unsample.datasets import DatasetFacts

COLUMNS = ("name", "pictures", "knows", "example")
KNOWN = ("prompt", "target_prompt", "mask", "truth", "category", "seed")  # worth a word in the table
SHOWN = 10  # broken rows in the text; --json has all
SHOW = 8  # items
LOOKING = "Looking"


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app, datasets, "unsample datasets scenes:8 -o out", "unsample datasets export scenes:16 --as pie_bench -o PIE"
    )


def datasets(
    spec: Annotated[
        str | None,
        Argument(
            metavar="[SPEC|export]",
            help="A name, to see its layout and options; or NAME:FIRST[,key=value]..., to open it.",
            show_default="all, in short",
        ),
    ] = None,
    exported: Annotated[
        str | None, Argument(metavar="[SPEC]", help="After export: what is written.", show_default=False)
    ] = None,
    *,
    num_items: Annotated[int, opt(LOOKING, "N", "How many of its items to show.", "--num-items", "-n")] = SHOW,
    check: Annotated[bool, opt(LOOKING, None, "Open every item, to find all broken rows.", "--check")] = False,
    size: Annotated[int, opt(LOOKING, "N", "Side of rendered scenes in pixels.")] = 64,
    layout: Annotated[
        Literal["pie_bench"] | None,
        opt(OUTPUT, "NAME", "The layout that export writes: pie_bench.", "--as", default="none"),
    ] = None,
    output: Annotated[
        str | None,
        opt(
            OUTPUT, "DIR", "Write a sheet of the items there: source, mask, truth; or the export.", *OUT, default="none"
        ),
    ] = None,
    end: Annotated[EndOptions, But(leave=("force",))],
) -> int:
    """List the data sets, show one's layout and options, or open one and look at it.

    Broken rows are named with the reason and left out. Without --check only the
    items that are shown are opened; what an index says is always checked.

    'export SPEC --as pie_bench -o DIR' writes pictures, prompts and masks in the
    layout of PIE-Bench; 'pie_bench:DIR' opens them.
    """
    from unsample.datasets import DATASETS, open_dataset
    from unsample.datasets.looking import MOST, contact_sheet, files_of, look

    if spec == "export":
        if check or num_items != SHOW:
            raise BadOption("--check and --num-items look at a data set; leave them out of an export, which opens all")
        return export(exported, layout, output, size, end)
    if exported is not None or layout is not None:
        more = "--as" if exported is None else repr(exported)
        raise BadOption(f"{more} is of an export: unsample datasets export SPEC --as pie_bench -o DIR")
    if spec is None or spec in DATASETS:
        listing([DATASETS[spec]] if spec else list(DATASETS.values()), spec is not None, end.json)
        return 0
    if num_items < 1:
        raise BadOption(f"--num-items must be at least 1; got {num_items}")
    if output is not None and num_items > MOST:
        raise BadOption(f"a sheet shows at most {MOST} items; got --num-items {num_items}")
    dataset = open_dataset(spec, size=size)
    file = None if output is None else Path(output) / f"{spec.partition(':')[0]}.png"
    if file is not None:
        if spec.startswith("generated"):
            raise BadOption("generated has no pictures until a model makes them; leave out --output")
        places.check_outputs([file], end.overwrite, files_of(dataset))
    seen = look(dataset, num_items, check, _bar if check else iter)
    if file is not None:
        from unsample.media.pictures import write_png

        write_png(contact_sheet(seen.items), file, {"dataset": dataset.spec}, "")
        talk.say(f"wrote {file}")
    found = seen.told() | {"sheet": None if file is None else str(file)}
    if end.json:
        talk.document(found)
    else:
        talk.answer(page(found))
    return 0


def export(spec: str | None, layout: str | None, output: str | None, size: int, end: EndOptions) -> int:
    """Write a data set in another's layout."""
    from unsample.datasets import open_dataset
    from unsample.datasets.looking import files_of
    from unsample.datasets.pie_bench_export import check_folder, export_pie_bench

    if spec is None or layout is None or output is None:
        lacking = "a data set" if spec is None else "--as pie_bench" if layout is None else "--output DIR"
        raise BadOption(f"an export needs {lacking}: unsample datasets export scenes:16 --as pie_bench -o DIR")
    dataset, folder = open_dataset(spec, size=size), Path(output)
    if any(Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)) for file in files_of(dataset)):
        raise BadInput(f"{output!r} holds pictures of {spec}; choose another --output")
    check_folder(folder, end.overwrite)
    check_writable_folder(folder.parent)
    done = export_pie_bench(dataset, folder, overwrite=end.overwrite, each=_bar)
    if end.json:
        talk.document({"dataset": dataset.spec, "as": layout, **done.told()})
        return 0
    for note in done.notes:
        talk.say(f"note: {note}")
    for id, reason in done.broken[:SHOWN]:
        talk.say(f"left out {id}: {reason}")
    if len(done.broken) > SHOWN:
        talk.say(f"and {len(done.broken) - SHOWN} more; --json has all")
    talk.say(f"wrote {_count(done.count, 'item')} to {folder}; open it as pie_bench:{folder}")
    return 0


def listing(rows: list[DatasetFacts], whole: bool, json: bool) -> None:
    """The table, or one data set's page."""
    if json:
        talk.document({"datasets": [row.told() for row in rows]})
    elif whole:
        talk.answer(facts_page(rows[0]))
    else:
        shown = [(r.name, r.summary, ", ".join(h for h in r.has if h in KNOWN) or "-", r.example) for r in rows]
        talk.answer(table([COLUMNS, *shown]))
        talk.answer(
            "\n'unsample datasets NAME' shows how its files lie and its options, 'unsample datasets SPEC' opens one:\n"
            "NAME[:FIRST][,key=value]..., as in the examples. Nothing is downloaded but a hub id that you give."
        )


def facts_page(facts: DatasetFacts) -> str:
    """A data set, for reading."""
    pairs = [
        ("example", facts.example),
        ("knows", ", ".join(facts.has) or "the pictures alone"),
        ("reference", facts.reference),
        ("licence", facts.licence),
    ]
    chosen = [(f"  {key}" + ("" if key in facts.flags else "="), what) for key, what in facts.options.items()]
    parts = [f"{facts.name}: {facts.summary}", "", table(pairs), "", "layout:", *_indented(facts.layout)]
    return "\n".join([*parts, "", f"{facts.name}:FIRST is {facts.first}; options:", table(chosen)])


def _indented(text: str) -> Iterator[str]:
    return (f"  {line}" for line in text.splitlines())


def _bar(places: Iterable[int]) -> Iterator[int]:
    import sys

    from tqdm import tqdm

    hidden = sys.stderr is None or not sys.stderr.isatty()
    yield from tqdm(places, desc="datasets", unit="item", disable=hidden, leave=False)


def page(found: dict[str, Any]) -> str:
    """What was found, for reading."""
    broken = found["broken"]
    opened = "every item was opened" if found["checked"] else f"{found['opened']} were opened; --check opens all"
    lines = [f"{found['dataset']}: {_count(found['count'], 'item')}, {_count(len(broken), 'broken row')} ({opened})"]
    if broken:
        lines += ["", "broken, and left out:", *(f"  {row['id']}: {row['reason']}" for row in broken[:SHOWN])]
        lines += [f"  and {len(broken) - SHOWN} more; --json has all"] if len(broken) > SHOWN else []
    columns = ("id", "size", "mask", "prompt", "target prompt")
    rows = [
        (
            item["id"],
            "x".join(map(str, item["size"])) if item["size"] else "-",
            "-" if item["mask_share"] is None else f"{item['mask_share']:.1%}",
            _cut(item["prompt"]),
            _cut(item["target_prompt"]),
        )
        for item in found["items"]
    ]
    return "\n".join([*lines, "", table([columns, *rows])])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _cut(text: str | None, width: int = 60) -> str:
    flat = " ".join((text or "-").split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"
