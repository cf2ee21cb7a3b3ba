"""`unsample metrics`: the table of metrics, or one of them with its convention."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer import Argument

from unsample.cli import options, talk
from unsample.cli.methods import table
from unsample.cli.options import examples
from unsample.errors import BadOption

COLUMNS = ("name", "unit", "range", "better", "of", "weights", "reference")


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    app.command("metrics", epilog=examples("unsample metrics", "unsample metrics fd"))(metrics)


def metrics(
    name: Annotated[
        str | None, Argument(metavar="[NAME]", help="A metric, to see its convention.", show_default="all, in short")
    ] = None,
    weights_dir: options.WeightsDir = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """List the metrics with unit, range, which way is better, and the weights they need; or show one."""
    from unsample.metrics import KINDS, METRICS, Settings
    from unsample.metrics.facts import resolve
    from unsample.metrics.measuring import about

    asked = [resolve(n, METRICS, Settings(weights_dir=weights_dir)) for n in ([name] if name is not None else METRICS)]
    rows = [about(one) for one in asked]
    if json:
        talk.document({"metrics": rows})
    elif name is None:
        shown = [[*(r[c] or "-" for c in ("name", "unit", "range", "better", "kind")), weights(r), r["reference"]]
                 for r in rows]  # fmt: skip
        talk.answer(table([COLUMNS, *shown]))
        kinds = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
        talk.answer(
            f"\nof: {kinds}.\n'unsample metrics NAME' shows a metric's convention. Weights marked 'missing' are not on "
            "this machine, nothing is downloaded, and their metrics give null with the reason."
        )
    else:
        talk.answer(page(rows[0]))
    return 0


def weights(metric: dict[str, Any]) -> str:
    """What a metric needs, and whether it is here."""
    names = metric["weights"] or ([metric["full_name"].partition("[")[2].rstrip("]")] if metric["depends"] else [])
    return f"{', '.join(names) or '-'}{' (missing)' if metric['missing'] else ''}"


def page(metric: dict[str, Any]) -> str:
    """One metric, for reading."""
    from unsample.metrics import KINDS

    facts = [
        ("unit", metric["unit"] or "none"),
        ("range", metric["range"]),
        ("better", metric["better"]),
        ("of", f"{metric['kind']}: {KINDS[metric['kind']]}"),
        ("needs", ", ".join(metric["needs"]).replace("|", " or ")),
        ("convention", metric["convention"]),
        ("reference", metric["reference"]),
        ("weights", weights(metric)),
    ]
    if metric["depends"]:
        facts.append(("brackets", f"{metric['name']}[{metric['depends'].upper()}]; by default {metric['full_name']}"))
    lines = [f"{metric['name']}: {metric['title']}", "", *table(facts).splitlines()]
    return "\n".join([*lines, *(["", metric["missing"]] if metric["missing"] else [])])


def names(text: str) -> list[str]:
    """Names separated by commas; a comma inside brackets belongs to the name.

    Raises:
        BadOption: none, or one twice.
    """
    found, depth, start = [], 0, 0
    for k, letter in enumerate([*text, ","]):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and (depth <= 0 or k == len(text)):
            found.append(text[start:k].strip())
            start = k + 1
    if not all(found) or len(set(found)) < len(found):
        raise BadOption(f"--metrics takes different names, separated by commas; got {text!r}")
    return found
