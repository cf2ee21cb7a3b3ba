"""`unsample measure`: two pictures, two folders of them matched by name, or recovered and true noise, by metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from unsample.cli import checks, options, places, talk
from unsample.cli.metrics import names
from unsample.cli.options import MEASURING, OUTPUT, Placement, examples
from unsample.cli.pairs import Matched, Pair, match, match_items, with_texts
from unsample.cli.reading import batches
from unsample.cli.scores import Measured, report, write_csv
from unsample.errors import BadInput, BadOption
from unsample.preflight import rules

if TYPE_CHECKING:
    from unsample.metrics import Score, Settings
    from unsample.metrics.facts import Asked

SHOWN = 3  # names in one message
HOW = {
    "reference": "B",
    "truth": "--truth",
    "mask": "--mask",
    "prompts": "--prompt",
    "target_prompts": "--target-prompt",
    "noise": "an inversion (.safetensors) as A",
    "true_noise": "the trajectory of 'unsample sample --keep-trajectory' as B",
    "images": "a picture as A",
}
NOT_HERE = "name A's files after the items of scenes and give --dataset"


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    commands = (
        "unsample measure edit.png scene.png --metrics psnr,ssim,lpips",
        "unsample measure edits/ sources/ --csv scores.csv",
    )
    app.command("measure", epilog=examples(*commands))(measure)


def measure(
    a: Annotated[str, Argument(metavar="A", help="The result: a picture, a folder, an inversion.", show_default=False)],
    b: Annotated[
        str | None, Argument(metavar="[B]", help="What it is compared with: the same kind.", show_default="none")
    ] = None,
    metrics: Annotated[
        str,
        Option(metavar="NAME[,NAME...]", help="'unsample metrics' lists them.", rich_help_panel=MEASURING),
    ] = "psnr,ssim",
    truth: Annotated[
        str | None,
        Option(metavar="PATH", help="The true edit.", rich_help_panel=MEASURING, show_default="not known"),
    ] = None,
    mask: Annotated[
        str | None,
        Option(
            metavar="PATH",
            help="What is not black in it is to be edited.",
            rich_help_panel=MEASURING,
            show_default="not known",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        Option(metavar="TEXT", help="What B shows.", rich_help_panel=MEASURING, show_default="not known"),
    ] = None,
    target_prompt: Annotated[
        str | None,
        Option(metavar="TEXT", help="What A should show.", rich_help_panel=MEASURING, show_default="not known"),
    ] = None,
    prompts: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="A .csv, .tsv or .jsonl: file, source_prompt, target_prompt.",
            rich_help_panel=MEASURING,
            show_default="none",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        Option(
            metavar="SPEC",
            help="Instead of B: A's files are named after its items, which bring source, truth, mask, prompts.",
            rich_help_panel=MEASURING,
            show_default="none",
        ),
    ] = None,
    weights_dir: options.WeightsDir = None,
    clip: Annotated[
        str,
        Option(metavar="NAME", help="CLIP: bundled, a folder, a hub id in the cache.", rich_help_panel=MEASURING),
    ] = "scenes-clip",
    device: Annotated[
        str, Option(metavar="NAME", help="cpu, cuda, cuda:1, mps ... for networks.", rich_help_panel=MEASURING)
    ] = "cpu",
    csv: Annotated[
        str | None,
        Option(metavar="FILE", help="Write a row a picture.", rich_help_panel=OUTPUT, show_default="none"),
    ] = None,
    raw_csv: options.RawCsv = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Measure how near A is to B: two pictures, or two folders matched by file name.

    Pictures are read as their turn comes. What cannot be measured is null with
    the reason: weights that are not here end with exit code 3, pictures that
    cannot be read or differ in size with 4, after all else has been measured.
    """
    from unsample.metrics import METRICS, Settings
    from unsample.metrics.facts import resolve

    checks.place(Placement(device, "float32", "none"))
    settings = Settings(weights_dir=weights_dir, clip=clip, device=device)
    asked = [resolve(name, METRICS, settings) for name in names(metrics)]
    given_paths = {"images": a, "reference": b, "truth": truth, "mask": mask}
    sides = {side: places.the_one(path) if path else path for side, path in given_paths.items()}
    matched = matched_files(sides, dataset)
    given = {
        "prompts": rules.check_text(prompt),
        "target_prompts": rules.check_text(target_prompt, "target_prompt"),
    }
    pairs = with_texts(matched.pairs, {k: v for k, v in given.items() if v is not None}, prompts)
    check_needs(asked, pairs)
    if dataset is None and not matched.unmatched and len(pairs) == 1:
        check_sizes(asked, pairs[0])
    if raw_csv and csv is None:
        raise BadOption("--raw-csv belongs to --csv")
    file = None if csv is None else Path(csv)
    if file is not None:
        read = [str(path) for pair in pairs for path in pair.files.values()]
        places.check_outputs([file], overwrite, [*read, *filter(None, [*sides.values(), prompts])])
    note_unmatched(matched, sides | {"dataset": dataset})
    found = measured(asked, pairs, settings)
    if file is not None:
        write_csv(found, file, raw_csv)
        talk.say(f"wrote {file}")
    report(found, matched, json)
    return found.code


def matched_files(sides: Mapping[str, str | None], dataset: str | None) -> Matched:
    """What belongs together.

    Raises:
        BadOption: a data set beside files that it would bring. BadInput: nothing matches.
    """
    files = {side: path for side, path in sides.items() if path is not None}
    if dataset is None:
        return match(files)
    if len(files) > 1:
        raise BadOption("--dataset brings source, truth and mask; leave B, --truth and --mask out")
    return match_items(files["images"], dataset)


def note_unmatched(matched: Matched, places: Mapping[str, str | None]) -> None:
    """Say what is left out."""
    for side, left in matched.unmatched.items():
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        talk.note(f"{len(left)} of {places[side]} have no partner and are left out: {', '.join(left[:SHOWN])}{more}")


def check_needs(asked: Sequence[Asked], pairs: Sequence[Pair]) -> None:
    """Refuse a metric of something that was not given.

    Raises:
        BadOption: which option would give it.
    """
    from unsample.metrics import Subject

    known = {side for pair in pairs for side in (*pair.files, *pair.texts)}
    if any(pair.item is not None for pair in pairs):
        known |= {"reference", "truth", "mask", "prompts", "target_prompts", "targets", "changed"}
    tensors = any(path.suffix == ".safetensors" for pair in pairs for path in pair.files.values())
    if tensors:
        known |= {f.name for f in fields(Subject)} - {"targets", "changed"}  # what is in it is seen when it is read
    for one in asked:
        for need in one.facts.needs:
            sides = need.split("|")
            if not known & set(sides):
                ways = [HOW[side] for side in sides if side in HOW]
                table = " or a table of --prompts" if any(side.endswith("prompts") for side in sides) else ""
                how = f"give {' or '.join(ways)}{table}" if ways else NOT_HERE
                raise BadOption(f"--metrics {one.key} needs {' or '.join(sides)}; {how}")


def check_sizes(asked: Sequence[Asked], pair: Pair) -> None:
    """Of two pictures: refuse sizes that differ when every metric needs equal ones.

    Raises:
        BadInput: naming the sizes.
    """
    from unsample.media.masks import open_mask
    from unsample.media.pictures import open_picture

    files = {side: path for side, path in pair.files.items() if path.suffix != ".safetensors"}
    sizes = {str(path): open_picture(path).pixels.size for side, path in files.items() if side != "mask"}
    if "mask" in files:
        sizes[str(files["mask"])] = open_mask(files["mask"]).where.shape[::-1]
    if len(set(sizes.values())) > 1 and not any(one.facts.any_size for one in asked):
        listed = ", ".join(f"{path} is {w}x{h}" for path, (w, h) in sizes.items())
        raise BadInput(f"pictures of one size are compared; {listed}; resize one, or use ssim_global, which resizes")


def measured(asked: Sequence[Asked], pairs: Sequence[Pair], settings: Settings) -> Measured:
    """Measure all pairs. Missing weights are found before torch is imported, and their metrics left out."""
    from unsample.metrics.measuring import Measuring, lacking_weights

    lacking = {one.key: reason for one in asked if (reason := lacking_weights(one)) is not None}
    found = Measured(asked, lacking=lacking, values={one.key: [] for one in asked if one.facts.compute is not None})
    for reason in dict.fromkeys(lacking.values()):
        keys = [key for key, r in lacking.items() if r == reason]
        talk.error(f"{', '.join(keys)}: {reason}")
    left = [one.key for one in asked if one.key not in lacking]
    if not left:
        found.files = [pair.name for pair in pairs]
        for key in found.values:
            found.values[key] = [lacking[key]] * len(pairs)
        return found
    if any(one.facts.depends in ("clip", "dino") for one in asked) and not talk.hears_everything():
        from unsample.models.loading import quiet_libraries

        quiet_libraries()
    measuring = Measuring(left, settings)
    notes: list[tuple[str, str]] = []
    with progress(len(pairs)) as step:
        for batch in batches(pairs):
            found.files += batch.names
            notes += batch.notes
            scores = measuring.add(batch.subject) if batch.subject is not None else {}
            if batch.reason is not None:
                found.failed[batch.names[0]] = batch.reason
                talk.error(batch.reason)
            for key, column in found.values.items():
                column += _column(scores.get(key), len(batch.names), lacking.get(key) or batch.reason)
                if key in scores and scores[key].details:
                    found.details[key] = dict(scores[key].details)
            if batch.subject is not None:
                _note_sizes(found, batch.names, batch.subject)
            step(len(batch.names))
    talk.notes(notes)
    found.notes = [f"{file}: {note}" for file, note in notes]
    found.sets = measuring.finish()
    return found


def _column(score: Score | None, count: int, reason: str | None) -> list[float | str | None]:
    if score is None:
        return [reason] * count
    rows = zip(score.values, score.exact, score.reasons, strict=True)
    return [math.inf if exact else value if why is None else why for value, exact, why in rows]


def _note_sizes(found: Measured, files: Sequence[str], subject: Any) -> None:
    """Pictures of two sizes are a failure of the files where a metric could not take them."""
    if subject.images is None or subject.reference is None or subject.images.shape == subject.reference.shape:
        return
    sizes = " and ".join(f"{t.shape[3]}x{t.shape[2]}" for t in (subject.images, subject.reference))
    if all(one.facts.any_size for one in found.asked):
        return
    for file in files:
        found.failed[file] = f"{file}: the two pictures are {sizes}"
        talk.error(f"{file}: the two pictures are {sizes}; metrics that compare pictures of one size leave it out")


@contextmanager
def progress(total: int) -> Iterator[Any]:
    """A bar on a terminal; several pictures only."""
    import sys

    from tqdm import tqdm

    hidden = total < 2 or sys.stderr is None or not sys.stderr.isatty()
    with tqdm(total=total, desc="measure", unit="pair", disable=hidden, leave=False) as bar:
        yield bar.update
