"""`unsample datasets`: the table of data sets, one of them with its layout, or one opened and looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from unsample.cli import options, places, talk
from unsample.cli.methods import table
from unsample.cli.options import OUTPUT, examples
from unsample.errors import BadInput, BadOption

if TYPE_CHECKING:
    from PIL.Image import Image

    from unsample.datasets import Dataset, DatasetFacts, Item

COLUMNS = ("name", "pictures", "knows", "example")
KNOWN = ("prompt", "target_prompt", "mask", "truth", "category", "seed")  # worth a word in the table
SHOWN = 10  # broken rows in the text; --json has all
SIDE = 256  # of a picture on the sheet
SHEET = 64  # items on one sheet
LOOKING = "Looking"


@dataclass
class Seen:
    """What was found while items were opened."""

    items: list[Item] = field(default_factory=list)  # the first ones, with their pictures
    broken: list[tuple[str, str]] = field(default_factory=list)
    opened: int = 0


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    commands = ("unsample datasets scenes:8 -o out", "unsample datasets pie_bench:/data/PIE-Bench --check")
    app.command("datasets", epilog=examples(*commands))(datasets)


def datasets(
    spec: Annotated[
        str | None,
        Argument(
            metavar="[SPEC]",
            help="A name, to see its layout and options; or NAME:FIRST[,key=value]..., to open it.",
            show_default="all, in short",
        ),
    ] = None,
    num_items: Annotated[
        int, Option("--num-items", "-n", metavar="N", help="How many of its items to show.", rich_help_panel=LOOKING)
    ] = 8,
    check: Annotated[
        bool, Option("--check", help="Open every item, to find all broken rows.", rich_help_panel=LOOKING)
    ] = False,
    size: Annotated[int, Option(metavar="N", help="Side of rendered scenes in pixels.", rich_help_panel=LOOKING)] = 64,
    output: Annotated[
        str | None,
        Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write a sheet of the items there: source, mask, truth.",
            rich_help_panel=OUTPUT,
            show_default="none",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """List the data sets, show one's layout and options, or open one and look at it.

    Broken rows are named with the reason and left out. Without --check only the
    items that are shown are opened; what an index says is always checked.
    """
    from unsample.datasets import DATASETS, open_dataset

    if spec is None or spec in DATASETS:
        listing([DATASETS[spec]] if spec else list(DATASETS.values()), spec is not None, json)
        return 0
    if num_items < 1:
        raise BadOption(f"--num-items must be at least 1; got {num_items}")
    if output is not None and num_items > SHEET:
        raise BadOption(f"a sheet shows at most {SHEET} items; got --num-items {num_items}")
    dataset = open_dataset(spec, size=size)
    file = None if output is None else Path(output) / f"{spec.partition(':')[0]}.png"
    if file is not None:
        if spec.startswith("generated"):
            raise BadOption("generated has no pictures until a model makes them; leave out --output")
        places.check_outputs([file], overwrite, _files_of(dataset))
    seen = look(dataset, num_items, check)
    if not seen.items:
        id, reason = seen.broken[0]
        raise BadInput(f"{dataset.spec}: none of the {seen.opened} items that were opened can be read: {id}: {reason}")
    if file is not None:
        from unsample.media.pictures import write_png

        write_png(contact_sheet(seen.items), file, {"dataset": dataset.spec}, "")
        talk.say(f"wrote {file}")
    found = document(dataset, seen, file)
    if json:
        talk.document(found)
    else:
        talk.answer(page(found))
    return 0


def listing(rows: list[DatasetFacts], whole: bool, json: bool) -> None:
    """The table, or one data set's page."""
    if json:
        talk.document({"datasets": [facts_of(row) for row in rows]})
    elif whole:
        talk.answer(facts_page(rows[0]))
    else:
        shown = [(r.name, r.summary, ", ".join(h for h in r.has if h in KNOWN) or "-", r.example) for r in rows]
        talk.answer(table([COLUMNS, *shown]))
        talk.answer(
            "\n'unsample datasets NAME' shows how its files lie and its options, 'unsample datasets SPEC' opens one:\n"
            "NAME[:FIRST][,key=value]..., as in the examples. Nothing is downloaded but a hub id that you give."
        )


def facts_of(facts: DatasetFacts) -> dict[str, Any]:
    """A row of the table, for JSON."""
    kept = ("name", "summary", "first", "example", "layout", "reference", "licence")
    return {**{k: getattr(facts, k) for k in kept}, "has": list(facts.has), "options": dict(facts.options)}


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


# ---------------------------------------------------------------- opening one


def look(dataset: Dataset, wanted: int, check: bool) -> Seen:
    """Open items in order: the first good ones, or all."""
    seen = Seen()
    for k in _steps(len(dataset), hidden=not check):
        if len(seen.items) >= wanted and not check:
            break
        seen.opened += 1
        try:
            item = dataset[k]
        except BadInput as error:
            seen.broken.append((dataset.ids[k], str(error)))
            continue
        if len(seen.items) < wanted:
            seen.items.append(item)
    return seen


def _files_of(dataset: Dataset) -> Iterator[str]:
    """The files that its rows name."""
    for row in getattr(dataset, "rows", ()):
        yield from (str(value) for f in fields(row) if isinstance(value := getattr(row, f.name), Path))


def _steps(count: int, hidden: bool) -> Iterator[int]:
    import sys

    from tqdm import tqdm

    hidden = hidden or sys.stderr is None or not sys.stderr.isatty()
    yield from tqdm(range(count), desc="datasets", unit="item", disable=hidden, leave=False)


def document(dataset: Dataset, seen: Seen, file: Path | None) -> dict[str, Any]:
    """What was found, for JSON."""
    broken = [*dataset.broken, *seen.broken]
    return {
        "dataset": dataset.spec,
        "count": len(dataset) - len(seen.broken),
        "opened": seen.opened,
        "checked": seen.opened == len(dataset),
        "broken": [{"id": id, "reason": reason} for id, reason in broken],
        "items": [about(item) for item in seen.items],
        "sheet": None if file is None else str(file),
    }


def about(item: Item) -> dict[str, Any]:
    """An item in words and numbers."""
    return {
        "id": item.id,
        "size": None if item.image is None else list(_size(item.image)),
        "prompt": item.prompt,
        "target_prompt": item.target_prompt,
        "mask_share": None if item.mask is None else round(float(item.mask.mean()), 4),
        "category": item.category,
        "changed": item.changed,
        "truth": item.truth is not None,
        "seed": item.seed,
        "digest": item.digest(),
    }


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


# ---------------------------------------------------------------- the sheet


def contact_sheet(items: list[Item]) -> Image:
    """A row an item: its source, and mask and truth where any item has them."""
    from PIL import Image

    from unsample.media.figures import sheet
    from unsample.media.pictures import MIN_SIDE

    panels: list[Image.Image] = []
    texts: list[str] = []
    kinds = [k for k in ("image", "mask", "truth") if any(getattr(item, k) is not None for item in items)]
    for item in items:
        edited = item.target_prompt or ""
        labels = {"image": item.prompt or item.id, "mask": "to be edited", "truth": edited or "true edit"}
        if "truth" not in kinds and edited:
            labels["mask"] = f"to be edited: {edited}"
        for kind in kinds:
            value = getattr(item, kind)
            panels.append(Image.new("RGB", (MIN_SIDE, MIN_SIDE), "white") if value is None else thumbnail(value))
            texts.append("" if value is None else labels[kind])
    return sheet(panels, texts, columns=len(kinds))


def thumbnail(value: Any) -> Image:
    """A PIL image or a tensor (C, H, W) in [0, 1], at most 256 pixels a side."""
    from PIL import Image

    if not isinstance(value, Image.Image):
        value = Image.fromarray((value.expand(3, -1, -1) * 255).round().byte().permute(1, 2, 0).numpy())
    small = value.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def _size(image: Any) -> tuple[int, int]:
    """Width and height."""
    return image.size if hasattr(image, "getbands") else (image.shape[2], image.shape[1])
