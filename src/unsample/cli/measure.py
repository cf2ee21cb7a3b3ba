"""`unsample measure`: two pictures, two folders of them matched by name, or recovered and true noise, by metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from unsample.cli import checks, collection, options, places, session, talk
from unsample.cli.collection import CollectionOptions
from unsample.cli.flat import But, command
from unsample.cli.methods import table
from unsample.cli.metrics import names
from unsample.cli.options import MEASURING, OUTPUT, EndOptions, Placement, argument, opt
from unsample.collections.jobs import ABOUT
from unsample.collections.sources import is_collection
from unsample.datasets.pairs import Matched, Pair, match, match_items, with_texts
from unsample.errors import BadInput, BadOption
from unsample.media.files import free_stems
from unsample.preflight import rules

if TYPE_CHECKING:
    from unsample.metrics import Settings
    from unsample.metrics.facts import Asked, MetricFacts
    from unsample.metrics.folders import Measured
    from unsample.preflight.known import KnownModel

SHOWN = 3  # names in one message
TAKES: dict[str, Callable[[MetricFacts], bool]] = {  # an option, and whether a metric takes it
    "--model": lambda facts: "autoencoded" in facts.needs,
    "--key": lambda facts: facts.mark is not None,
    "--maps": lambda facts: facts.map is not None,
}
CLIP_MODEL = "scenes-clip"
HOW = {
    "reference": "B",
    "truth": "--truth",
    "mask": "--mask",
    "prompts": "--prompt",
    "target_prompts": "--target-prompt",
    "noise": "an inversion (.safetensors) as A",
    "true_noise": "the trajectory of 'unsample sample --keep-trajectory' as B",
    "images": "a picture as A",
    "autoencoded": "--model, whose autoencoder A is sent through",
    "ceiling": "it in Python (unsample.measure), or in a plan of 'unsample bench'",
}
NOT_HERE = "name A's files after the items of scenes and give --dataset"


@dataclass(frozen=True)
class Companions:
    """What is known beside A and B."""

    truth: Annotated[str | None, opt(MEASURING, "PATH", "The true edit.", default="not known")] = None
    mask: Annotated[
        str | None, opt(MEASURING, "PATH", "What is not black in it is to be edited.", default="not known")
    ] = None
    prompt: Annotated[str | None, opt(MEASURING, "TEXT", "What B shows.", default="not known")] = None
    target_prompt: Annotated[str | None, opt(MEASURING, "TEXT", "What A should show.", default="not known")] = None
    prompts: Annotated[
        str | None,
        opt(MEASURING, "FILE", "A .csv, .tsv or .jsonl: file, source_prompt, target_prompt.", default="none"),
    ] = None
    dataset: Annotated[
        str | None,
        opt(
            MEASURING,
            "SPEC",
            "Instead of B: A's files are named after its items, which bring source, truth, mask, prompts.",
            default="none",
        ),
    ] = None

    def texts(self) -> dict[str, str]:
        """The two prompts, as far as they are given, by the fields that they fill."""
        given = {
            "prompts": rules.check_text(self.prompt),
            "target_prompts": rules.check_text(self.target_prompt, "target_prompt"),
        }
        return {side: text for side, text in given.items() if text is not None}


@dataclass(frozen=True)
class Detection:
    """What tells a picture of a model's making."""

    model: Annotated[
        str | None,
        opt(MEASURING, "NAME", "Whose autoencoder A is sent through, for aeroblade.", "--model", "-m", default="none"),
    ] = None
    key: Annotated[
        str | None, opt(MEASURING, "FILE", "The key of the watermark that is looked for.", default="none")
    ] = None
    maps: Annotated[
        str | None,
        opt(
            MEASURING,
            "DIR",
            "Write where in the picture it is, as NAME-METRIC.png, of dire, aeroblade.",
            default="none",
        ),
    ] = None

    def known(self, asked: Sequence[Asked]) -> KnownModel | None:
        """The model, not yet loaded.

        Raises:
            BadOption: an option that no metric takes, or a metric without its key. BadInput: a file that is no key.
            Incompatible: the model has no autoencoder.
        """
        from unsample.metrics import METRICS
        from unsample.metrics.detecting import key_of
        from unsample.preflight.known import known_model

        for name, given in (("--model", self.model), ("--key", self.key), ("--maps", self.maps)):
            if given is not None and not any(TAKES[name](one.facts) for one in asked):
                taking = ", ".join(key for key, facts in METRICS.items() if TAKES[name](facts))
                raise BadOption(f"{name} is for metrics that --metrics does not name: {taking}")
        for one in asked:
            if one.facts.mark is not None:
                key_of(one.facts.mark, one.settings)
        if self.model is None:
            return None
        known = known_model(self.model)
        known.check_autoencoder()
        return known


@dataclass(frozen=True)
class Maps:
    """Where the maps of pictures are written, by the pictures' names."""

    folder: Path
    asked: Mapping[str, Asked]  # those that have one
    stems: Mapping[str, str]

    @staticmethod
    def of(folder: str, asked: Sequence[Asked], pairs: Sequence[Pair]) -> Maps:
        """Of the pairs that are measured."""
        stems = free_stems([Path(pair.name).with_suffix("").as_posix() for pair in pairs])
        having = {one.key: one for one in asked if one.facts.map is not None}
        return Maps(Path(folder), having, dict(zip((pair.name for pair in pairs), stems, strict=True)))

    def file(self, name: str, key: str) -> Path:
        """Of a picture and a metric."""
        return self.folder / f"{self.stems[name]}-{key.replace('[', '-').replace(']', '')}.png"

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [self.file(name, key) for name in self.stems for key in self.asked]

    def write(self, name: str, key: str, values: Any) -> None:
        """A grey picture, its own largest value white; the settings in it say what that is."""
        from PIL import Image

        from unsample.media.pictures import write_png

        white, file = float(values.max()), self.file(name, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        grey = (values / (white or 1)).mul(255).round().byte().numpy()
        told = {"verb": "measure", "metric": self.asked[key].name, "white": white, "input": name}
        write_png(Image.fromarray(grey), file, told)


@dataclass(frozen=True)
class Networks:
    """Which networks measure, and where."""

    weights_dir: options.WeightsDir = None
    clip_model: Annotated[str, opt(MEASURING, "NAME", "CLIP: bundled, a folder, a hub id in the cache.")] = CLIP_MODEL
    clip: Annotated[str | None, Option(hidden=True)] = None
    device: Annotated[str, opt(MEASURING, "NAME", "cpu, cuda, cuda:1, mps ... for networks.")] = "cpu"

    def settings(self) -> Settings:
        """As metrics take them."""
        from unsample.metrics import Settings

        checks.place(Placement(self.device, "float32", "none"))
        clip = the_clip_model(self.clip_model, self.clip)
        return Settings(weights_dir=self.weights_dir, clip=clip, device=self.device)


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        measure,
        "unsample measure edit.png scene.png --metrics psnr,ssim,lpips",
        "unsample measure edits/ sources/ --csv scores.csv",
    )


def measure(
    a: Annotated[str, argument("A", "The result: a picture, a folder, an inversion.")],
    b: Annotated[
        str | None, Argument(metavar="[B]", help="What it is compared with: the same kind.", show_default="none")
    ] = None,
    *,
    metrics: Annotated[str, opt(MEASURING, "NAME[,NAME...]", "'unsample metrics' lists them.")] = "psnr,ssim",
    beside: Companions,
    detection: Detection,
    networks: Networks,
    csv: Annotated[str | None, opt(OUTPUT, "FILE", "Write a row a picture.", default="none")] = None,
    raw_csv: options.RawCsv = False,
    output: Annotated[
        str | None,
        opt(OUTPUT, "DIR", "Of a collection: the folder of its index.parquet.", *options.OUT, default="measured"),
    ] = None,
    batch_size: options.CollectionBatch = "auto",
    many: Annotated[CollectionOptions, But(leave=("metrics",))],
    end: Annotated[EndOptions, But(leave=("force",))],
) -> int:
    """Measure how near A is to B: two pictures, or two folders matched by file name.

    Pictures are read as their turn comes. What cannot be measured is null with
    the reason: weights that are not here end with exit code 3, pictures that
    cannot be read or differ in size with 4, after all else has been measured.

    Collections (what 'unsample edit' made of one, a list, .parquet, .tar, or
    any with --sharded) are matched by name, and DIR gets a row a picture.
    """
    from unsample.metrics import METRICS
    from unsample.metrics.facts import resolve

    size = checks.batch_size(batch_size)
    settings = replace(networks.settings(), key=detection.key)
    asked = [resolve(name, METRICS, settings) for name in names(metrics)]
    if many.sharded or (is_collection([a]) and not _pictures_alone(a)):
        given = [("--csv", csv), *((f"--{f.name.replace('_', '-')}", getattr(beside, f.name)) for f in fields(beside))]
        given += [("--maps", detection.maps)]
        if named := [name for name, value in given if value is not None]:
            way = "measure its pictures as files" if named[0] == "--maps" else "its table has them"
            raise BadOption(f"{named[0]} is of files and folders, and {a} is a collection; {way}")
        ending = collection.Ending(Path(output or "measured"), False, end.overwrite, end.json)
        model = detection.known(asked)
        if model is None:
            check_model([one for one in asked if "autoencoded" in one.facts.needs])
        return collection.measure(a, b, settings, names(metrics), model, many, size, ending)
    for name, there in (("--output", output is not None), ("--batch-size", batch_size != "auto")):
        if there or many.given():
            collection.check_there([a])
            raise BadOption(f"{name if there else many.given()[0]} is of a collection; give --sharded to do {a} as one")
    from unsample.media.files import atomic_write
    from unsample.metrics.folders import measure_pairs
    from unsample.metrics.measuring import lacking_weights

    given_paths = {"images": a, "reference": b, "truth": beside.truth, "mask": beside.mask}
    sides = {side: places.the_one(path) if path else path for side, path in given_paths.items()}
    matched = matched_files(sides, beside.dataset)
    pairs = with_texts(matched.pairs, beside.texts(), beside.prompts)
    known = detection.known(asked)
    check_needs(asked, pairs, {"autoencoded"} if known else set())
    maps = None if detection.maps is None else Maps.of(detection.maps, asked, pairs)
    if beside.dataset is None and not matched.unmatched and len(pairs) == 1:
        check_sizes(asked, pairs[0])
    if raw_csv and csv is None:
        raise BadOption("--raw-csv belongs to --csv")
    file = None if csv is None else Path(csv)
    written = [*([] if file is None else [file]), *([] if maps is None else maps.files)]
    if written:
        read = [str(path) for pair in pairs for path in pair.files.values()]
        places.check_outputs(written, end.overwrite, [*read, *filter(None, [*sides.values(), beside.prompts])])
    note_unmatched(matched, sides | {"dataset": beside.dataset})
    loads = [one for one in asked if one.facts.depends in ("clip", "dino") and lacking_weights(one) is None]
    if loads and not talk.hears_everything():
        from unsample.models.loading import quiet_libraries

        quiet_libraries()
    more: dict[str, Any] = {} if maps is None else {"maps": maps.write}
    if known is not None:
        more["autoencoder"] = session.load(known, Placement(networks.device))
    with progress(len(pairs)) as step:
        found = measure_pairs(asked, pairs, settings, failed=talk.error, step=step, **more)
    talk.notes(found.notes)
    if file is not None:
        text = found.csv(raw_csv)
        atomic_write(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        talk.say(f"wrote {file}")
    report(found, matched, end.json)
    return 4 if found.failed else 3 if found.lacking else 0  # files before weights


def _pictures_alone(path: str) -> bool:
    """Whether a folder is one of pictures, which are matched by their files' names."""
    return Path(path).is_dir() and not (Path(path) / ABOUT).exists()


def the_clip_model(name: str, old: str | None) -> str:
    """What --clip-model gives, or --clip, as it was called when `invert` had no clamp of that name.

    Raises:
        BadOption: both of them.
    """
    if old is None:
        return name
    if name != CLIP_MODEL:
        raise BadOption("--clip is the old name of --clip-model; leave --clip out")
    talk.note("--clip is called --clip-model now, since --clip is a clamp in other verbs")
    return old


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


def check_needs(asked: Sequence[Asked], pairs: Sequence[Pair], more: Set[str] = frozenset()) -> None:
    """Refuse a metric of something that was not given; `more` is known beside the files.

    Raises:
        BadOption: which option would give it.
    """
    from unsample.metrics import Subject

    known = {side for pair in pairs for side in (*pair.files, *pair.texts)} | more
    if any(pair.item is not None for pair in pairs):
        known |= {"reference", "truth", "mask", "prompts", "target_prompts", "targets", "changed"}
    tensors = any(path.suffix == ".safetensors" for pair in pairs for path in pair.files.values())
    if tensors:
        known |= {f.name for f in fields(Subject)} - {
            "targets",
            "changed",
            "autoencoded",
        }  # what is in it is seen when it is read
    for one in asked:
        for need in one.facts.needs:
            sides = need.split("|")
            if not known & set(sides):
                ways = [HOW[side] for side in sides if side in HOW]
                rows = " or a table of --prompts" if any(side.endswith("prompts") for side in sides) else ""
                how = f"give {' or '.join(ways)}{rows}" if ways else NOT_HERE
                raise BadOption(f"--metrics {one.key} needs {' or '.join(sides)}; {how}")


def check_model(needing: Sequence[Asked]) -> None:
    """Refuse metrics that need a model where none was given.

    Raises:
        BadOption: some do.
    """
    for one in needing:
        raise BadOption(f"--metrics {one.key} needs autoencoded; give {HOW['autoencoded']}")


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


@contextmanager
def progress(total: int) -> Iterator[Any]:
    """A bar on a terminal; several pictures only."""
    import sys

    from tqdm import tqdm

    hidden = total < 2 or sys.stderr is None or not sys.stderr.isatty()
    with tqdm(total=total, desc="measure", unit="pair", disable=hidden, leave=False) as bar:
        yield bar.update


def report(found: Measured, matched: Matched, as_json: bool) -> None:
    """The answer on stdout."""
    summaries = found.summaries()
    if as_json:
        from unsample import __version__

        notes = [f"{file}: {note}" for file, note in found.notes]
        more = {"unmatched": dict(matched.unmatched), "failed": found.failed, "notes": notes, "unsample": __version__}
        talk.document({"metrics": summaries, "pairs": found.rows(), **more})
        return
    single = len(found.files) == 1
    lines = []
    for key, told in summaries.items():
        value = told.get("value", told.get("mean"))
        cells = [key if key in told["name"] else told["name"], _shown(value, told)]
        if not single:
            cells += [_shown(told.get(k), told) for k in ("median", "min", "max")]
            cells += [str(told["n"]), str(told.get("exact", 0)), str(told["missing"])]
        lines.append([*cells, told["unit"] or "-", told["better"]])
    spread = [] if single else ["median", "min", "max", "n", "exact", "missing"]
    talk.answer(table([["metric", "value" if single else "mean", *spread, "unit", "better"], *lines]))
    for key, told in summaries.items():
        if told["reason"] is not None and key not in found.lacking:
            talk.note(f"{key}: {told['missing']} without a value: {told['reason']}")
        if told["details"]:
            talk.say(f"{key}: " + ", ".join(f"{k} {_short(v)}" for k, v in told["details"].items()))


def _shown(value: Any, told: dict[str, Any]) -> str:
    if value is None:
        return "exact" if told.get("exact") and told["n"] == told["exact"] else "-"
    return _short(value)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
