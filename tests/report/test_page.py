"""The page: stands alone, escapes what comes from the run, says all that it has to, and can be read by everyone."""

from __future__ import annotations

import base64
import copy
import csv
import hashlib
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.report.runs import METHODS, METRICS, plan, row, value, values_of
from unsample.bench.coverage import coverage
from unsample.bench.ledger import RunData
from unsample.report.about import SCENES, about
from unsample.report.markdown import markdown
from unsample.report.page import page
from unsample.report.spreadsheet import spreadsheet
from unsample.report.table import blocks

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}</style></svg>]]>"
Rows = list[dict[str, Any]]


def run_of(rows: Rows, folder: Path, broken: list[tuple[str, str]] | None = None, **of_plan: Any) -> RunData:
    """What `read_run` gives of a run that noted no items."""
    whole = {"plan": plan(**of_plan), "versions": {"torch": "2.13.0"}, "command": "unsample bench run plan.toml"}
    return RunData(plan=whole, rows=rows, broken=broken or [], folder=folder)


def texts(run: RunData) -> tuple[str, str, str]:
    """The three files."""
    parts = coverage(run)
    found = blocks(run.rows, METRICS, parts)
    around = about(run, found, parts)
    return page(found, around, run.folder), markdown(found, around), spreadsheet(found)


class Reader(HTMLParser):
    """Every element with its attributes, and the text of those that matter here."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.within: list[str] = []
        self.text: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.within and self.within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append((self.within[-1] if self.within else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def written(pictured: tuple[Path, Rows]) -> tuple[str, str, str]:
    """The report of a whole run in which things went wrong."""
    folder, rows = pictured
    rows = copy.deepcopy(rows)
    for r in rows:
        if r["method"] == "easyinv" and r["item"] == "report-1":
            r |= {"status": "diverged", "values": {}, "artefacts": r["artefacts"][:2]}
        if r["method"] == "null_text" and r["item"] == "report-2":
            r |= {
                "status": "failed",
                "values": {},
                "artefacts": [],
                "error": "MemoryError: 5 GB",
                "traceback": "line 1",
            }
    return texts(run_of(rows, folder, [("img-9", "the file is cut short")]))


def test_the_page_asks_no_host_and_allows_none(written: tuple[str, str, str]) -> None:
    html = written[0]
    reader = Reader(html)
    for _, attributes in reader.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), target
    policy = next(m["content"] for m in reader.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert "url(" not in html
    assert "@import" not in html
    for tag in ("style", "script"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        assert len(inside) == 1
        assert base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode() in policy
    assert not any("style" in attributes for _, attributes in reader.elements)  # the policy forbids it


def test_the_page_says_all_that_it_has_to(written: tuple[str, str, str]) -> None:
    html, md, _ = written
    for text in (html, md):
        for wanted in (
            *("scenes:8,split=report", "unsample bench run plan.toml", "2.13.0", "img-9", "the file is cut short"),
            *("MemoryError: 5 GB", "exact by construction", "fitted to the picture", "Baselines", "vae(truth)"),
            *("n = 3", "What scenes cannot test", "95 % intervals", "Conventions", "data range 1", "26", "650"),
            "is missing; put it in",
        ):
            assert wanted in text.replace("\\", ""), wanted
    assert "4 of 5" in html


def test_every_method_has_its_worst_median_and_best_pictures(written: tuple[str, str, str]) -> None:
    reader = Reader(written[0])
    pictures = [a for a in reader.all("img") if a["alt"]]
    assert len(pictures) == len(reader.all("img"))
    for label in METHODS:
        for place in ("worst", "median", "best"):
            whose = [a["alt"] for a in pictures if f"of {label}, {place} item" in str(a["alt"])]
            kinds = {alt.partition(" of ")[0].partition(" (")[0] for alt in map(str, whose)}
            expected = {"source", "from the record", "from the noise", "edit", "true edit", "difference"}
            assert kinds == ({"source", "true edit"} if (label, place) == ("easyinv", "worst") else expected)


def test_the_page_can_be_read_by_everyone(written: tuple[str, str, str]) -> None:
    reader = Reader(written[0])
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(a.get("scope") in ("row", "col", "rowgroup") for a in reader.all("th"))
    assert all(a.get("alt") for a in reader.all("img"))
    scrolling = [a for a in reader.all("div") if "scroll" in str(a.get("class"))]
    assert len(scrolling) >= len(reader.all("table"))
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolling)
    identifiers = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(identifiers) == len({*identifiers})
    assert {str(a["href"])[1:] for a in reader.all("a")} <= {*identifiers}
    assert reader.all("html")[0]["lang"] == "en"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(written: tuple[str, str, str], theme: str) -> None:
    style = re.findall(r":root \{(.*?)\}", written[0], re.S)[theme == "dark"]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", style))

    def luminance(code: str) -> float:
        code = code[1:] if len(code) == 7 else "".join(c * 2 for c in code[1:])
        parts = [int(code[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ink in ("ink", "quiet", "accent", "bad"):
        for ground in ("ground", "raised"):
            a, b = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (theme, ink, ground)  # WCAG AA
    a, b = sorted((luminance(colours["ink"]), luminance(colours["caution"])))
    assert (b + 0.05) / (a + 0.05) >= 4.5


def test_whatever_comes_from_the_run_is_escaped(tmp_path: Path) -> None:
    rows = values_of(XSS, [20, 21, 22], model=XSS, stores=XSS)
    rows += values_of("b", [30, None, 32], model=XSS)
    rows += [row(XSS, "b", model=XSS, status="failed", error=XSS, traceback=XSS)]
    rows += [row("d", "b", model=XSS, values={f"noise.{XSS}": value(1.0), "noise.psnr": value(None, reason=XSS)})]
    rows[0]["artefacts"] = [{"kind": "source", "path": XSS, "sha256": XSS}]
    run = run_of(rows, tmp_path, [(XSS, XSS)], dataset=XSS, methods=[XSS])
    run.plan.update({"command": XSS, "versions": {XSS: XSS}})
    html, md, _ = texts(run)
    reader = Reader(html)
    assert len(reader.all("script")) == 1
    assert len(reader.all("style")) == 1
    assert [a["class"] for a in reader.all("img")] == ["plot"]
    assert not any(name.startswith("on") for _, attributes in reader.elements for name in attributes)
    assert "49" not in re.sub(r"<style>.*?</style>|sha256-\S+|data:\S+", "", html, flags=re.S)
    assert html.count("&lt;script&gt;") > 10
    fenced = re.sub(r"^```\n.*?\n```$", "", md, flags=re.S | re.M)
    code = re.sub(r"`[^`\n]*`", "", fenced)
    assert "<" not in code


def test_control_characters_and_turned_text_do_not_reach_the_page(tmp_path: Path) -> None:
    rows = values_of("a\x00\x1b[31m\u202egnp", [20.0, 21.0])
    rows[0]["values"]["noise.new\u202e"] = value(1.0)
    rows[0]["values"]["noise.ssim"] = value(None, reason="no\x1b weights")
    html, md, table = texts(run_of(rows, tmp_path, [("x\x07", "y\u2066")]))
    for text in (html, md, table):
        assert not re.search("[\x00\x07\x1b\u202e\u2066]", text)


def test_a_picture_that_is_gone_damaged_or_elsewhere_becomes_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    secret = tmp_path / "secret.png"
    from PIL import Image

    Image.new("RGB", (16, 16), "red").save(secret)
    (folder / "bad.png").write_bytes(b"\x89PNG no")
    rows = values_of("a", [20, 21, 22]) + values_of("b", [23, 24, 25])
    for r, path in zip(rows, ["../secret.png", str(secret), "bad.png", "gone.png", "a\x00b", "."], strict=True):
        r["artefacts"] = [{"kind": "source", "path": path, "sha256": ""}]
    html = texts(run_of(rows, folder))[0]
    assert html.count("<small>outside of the run folder</small>") == 2
    assert html.count("<small>missing or damaged</small>") == 4
    assert html.count("<img") == html.count('<img class="plot"') == 1


def test_a_large_picture_is_shrunk(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    rows = values_of("a", [20.0])
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    sha256 = hashlib.sha256((tmp_path / "large.png").read_bytes()).hexdigest()
    rows[0]["artefacts"] = [{"kind": k, "path": "large.png", "sha256": sha256} for k in ("source", "noise")]
    html = texts(run_of(rows, tmp_path))[0]
    kept = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    assert len(kept) == 3
    assert max(Image.open(io.BytesIO(base64.b64decode(k))).width for k in kept) == 224


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quick": True}, "quick presets"),
        ({"dataset": "scenes:8,split=tune"}, "no table of it may be published"),
        ({"dataset": "generated:8"}, SCENES),
    ],
)
def test_what_a_run_cannot_tell_is_said_on_top(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    for text in texts(run_of(values_of("a", [20, 21]), tmp_path, **change))[:2]:
        assert said in text.replace("\\", "")


def test_other_data_carry_no_word_on_scenes(tmp_path: Path) -> None:
    assert SCENES not in texts(run_of(values_of("a", [20, 21]), tmp_path, dataset="folder:/pics"))[0]


def test_a_run_that_is_not_complete_says_so_and_one_without_rows_too(tmp_path: Path) -> None:
    html, md, _ = texts(run_of(values_of("a", [20, 21]) + values_of("b", [20]), tmp_path))
    assert "The run is not complete" in html
    assert "b: 1 item." in html
    html, md, table = texts(run_of([], tmp_path))
    assert "No cell has ended yet" in html
    assert "No cell has ended yet" in md
    assert len(table.splitlines()) == 1


def test_a_run_where_everything_failed_has_a_report(tmp_path: Path) -> None:
    html, md, table = texts(
        run_of([row("x", "a", status="failed", error="no"), row("y", "a", status="diverged")], tmp_path)
    )
    assert "0 of 2" in html
    assert "no" in md
    (line,) = csv.DictReader(io.StringIO(table))
    assert (line["failed"], line["diverged"], line["success_rate"]) == ("1", "1", "0")


def test_many_failures_are_listed_up_to_a_hundred(tmp_path: Path) -> None:
    rows = [row(f"i{k}", "a", status="failed", error="no") for k in range(130)]
    html, md, _ = texts(run_of(rows, tmp_path))
    assert html.count('<p class="error">') == 100
    assert "And 30 more" in html
    assert "And 30 more" in md


def test_the_three_files_carry_the_same_numbers(written: tuple[str, str, str]) -> None:
    html, md, table = written
    lines = list(csv.DictReader(io.StringIO(table)))
    assert {line["method"] for line in lines} >= {*METHODS, "identity"}
    checked = 0
    for line in lines:
        if line["metric"] not in ("psnr", "edit_gain", "e_latent") or line["value"] in ("", "inf"):
            continue
        number = float(line["value"])
        text = f"{number:.2f}" if line["unit"] == "dB" else f"{number:#.4g}"
        text = text.removesuffix(".").replace("-", "−")
        text = "0" if number == 0 else text
        assert f">{text}<" in html
        bold = f"**{text}**" in md
        assert bold or f"| {text}" in md
        assert bold or line["bold"] == "no"
        checked += 1
    assert checked > 30
    exact = next(line for line in lines if line["method"] == "edict" and line["stage"] == "record")
    assert (exact["value"], exact["median"], exact["exact"]) == ("inf", "inf", "5")


def test_the_csv_holds_no_nan_no_formula_and_one_line_a_figure(tmp_path: Path) -> None:
    rows = (
        values_of("=cmd|' /C calc'!A0", [20, 21]) + values_of("@b", [22, 23], stores="+1") + values_of("-c", [None, 2])
    )
    lines = list(csv.DictReader(io.StringIO(texts(run_of(rows, tmp_path))[2])))
    assert [line["method"] for line in lines] == ["'=cmd|' /C calc'!A0", "'@b", "'-c"]
    assert lines[1]["stores"] == "'+1"
    assert not any("nan" in cell for line in lines for cell in line.values())


def test_markdown_tables_keep_their_columns(written: tuple[str, str, str]) -> None:
    table: list[int] = []
    for line in [*written[1].splitlines(), ""]:
        if line.startswith("|"):
            table.append(len(re.findall(r"(?<!\\)\|", line)))
        elif table:
            assert len({*table}) == 1
            table = []
