"""The verdicts and main figures of a site in a Markdown document, between `<!-- table studies -->` and its end."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from unsample.errors import BadInput
from unsample.media.files import atomic_write, check_writable_folder
from unsample.models.families import read_json
from unsample.models.minis import is_mini
from unsample.studies.means import number
from unsample.studies.passes import pictures_told
from unsample.studies.verdicts import named

DOCUMENT = "docs/studies.md"
SECTION, FOLDER = "studies", "studies"
MAIN = (  # whose figures stand in the document
    "zeng_table1",
    "zeng_first_step",
    "taba_correlation",
    "taba_plain",
    "taba_step_error",
    "taba_forward",
    "easyinv_table1",
    "roundtrip_vs_noise",
)
LARGEST, COLOURS, WIDEST = 120_000, 48, 1100  # bytes, colours and pixels of a figure there


def check_document(document: str) -> None:
    """Refuse a document without a place for the verdicts, before any work.

    Raises:
        BadInput: it cannot be read, or has no such markers.
    """
    from unsample.report.docs import check_section

    check_section(Path(document), SECTION)


def write_docs(site: Path, document: Path) -> list[Path]:
    """Put the verdicts of a site into a document, and its main figures, made small, into a folder beside it.

    Raises:
        BadInput: no study is there, or a file cannot be read or written.
    """
    from unsample.report.docs import write_section

    names = _done(site)
    if not names:
        raise BadInput(f"{str(site)!r} holds no study yet; run some first")
    folder = check_writable_folder(document.parent / FOLDER)
    files = []
    for name in names:
        if name in MAIN and (site / name / "figure.png").is_file():
            content = small((site / name / "figure.png").read_bytes())
            files.append(folder / f"{name}.png")
            atomic_write(files[-1], partial(_copy, content))
    write_section(document, SECTION, section(site, names, {file.stem for file in files}))
    return [document, *files]


def _copy(content: bytes, temporary: Path) -> None:
    temporary.write_bytes(content)


def _done(site: Path) -> list[str]:
    """The studies that were run, without those that are a look alone."""
    from unsample.studies import NAMES
    from unsample.studies.site import done

    return [name for name in NAMES if done(site, name) and not read_json(site / name / "study.json").get("quick")]


def section(site: Path, names: list[str], drawn: set[str]) -> str:
    """The Markdown: a table for each paper, and under it its figures."""
    from unsample.report.docs import table_of
    from unsample.studies import NAMES, get_study

    papers: dict[str, list[str]] = {}
    for name in names:
        papers.setdefault(get_study(name).paper, []).append(name)
    parts = []
    for paper, studies in papers.items():
        rows = [line for name in studies for line in _lines(site, name)]
        parts += [f"### {paper}", table_of(("study", "claim", "verdict", "effect (95 % interval)", "published"), rows)]
        for name in (each for each in studies if each in drawn):
            study = get_study(name)
            parts += [f"![{study.question}]({FOLDER}/{name}.png)", f"*{study.question} ({study.shows}, `{name}`.)*"]
    abouts = [read_json(site / name / "study.json") for name in names]
    versions = {f"{key} {value}" for about in abouts for key, value in (about.get("versions") or {}).items()}
    failed = sum(int(about.get("failed_cells") or 0) for about in abouts)
    made = f"Made by `unsample study all --docs` with {', '.join(sorted(versions))}."
    made += f" {failed:,} cells failed." if failed else ""
    left = [f"`{name}`" for name in NAMES if name not in names]
    return "\n\n".join([*parts, made + (f" Not run in full yet: {', '.join(left)}." if left else "")])


def _lines(site: Path, name: str) -> list[tuple[str, ...]]:
    from unsample.studies.site import verdicts_of

    verdicts = verdicts_of(site, name)
    about = read_json(site / name / "study.json")
    link = f"`{name}`<br>{pictures_told(about.get('pictures') or {})}, T {about.get('steps')}"
    if not verdicts:
        return [(link, "(shows, and judges nothing)", "", "", "")]
    return [
        (
            link if k == 0 else "",
            _plain(each["says"]),
            f"**{each['verdict']}**",
            _effects(each),
            _plain(each["published"]),
        )
        for k, each in enumerate(verdicts)
    ]


def _effects(verdict: dict[str, Any]) -> str:
    """What was found on each larger model, and of the small ones the range; and why."""
    found = [each for each in verdict["models"] if each["effect"] is not None]
    larger = [each for each in found if not is_mini(each["model"])]
    small = [each["effect"] for each in found if is_mini(each["model"])]
    multiple = verdict.get("against_value") if verdict["effect"] == "ratio" else None
    of = f" of {number(multiple)}" if multiple else ""
    said = [f"{_plain(named(each['model']))} {number(each['effect'])}{of}{_interval(each)}" for each in larger]
    if small:
        said.append(f"{len(small)} small: {number(min(small))} to {number(max(small))}")
    reason = verdict.get("reason") or ""
    return "<br>".join([*said, *([_plain(reason)] if reason else [])])


def _interval(each: dict[str, Any]) -> str:
    low, high = each["low"], each["high"]
    return "" if low is None or high is None or low == high else f" ({number(low)}, {number(high)})"


def _plain(text: str) -> str:
    """A text that is no Markdown, within a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def small(png: bytes) -> bytes:
    """A figure of at most 120 kB: few colours, and as many pixels as they allow."""
    from PIL import Image

    picture = Image.open(BytesIO(png)).convert("RGB")
    width = min(picture.width, WIDEST)
    while True:
        size = (width, max(1, round(picture.height * width / picture.width)))
        content = BytesIO()
        shrunk = picture.resize(size, Image.Resampling.LANCZOS) if size != picture.size else picture
        shrunk.quantize(COLOURS, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
        if content.tell() <= LARGEST or width < 200:
            return content.getvalue()
        width = round(width * 0.88)
