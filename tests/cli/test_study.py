"""`unsample study`: the list, one study, all of them, wrong use, and what survives."""

from __future__ import annotations

import builtins
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import unsample
from tests.cli.conftest import Run
from tests.studies import tiny
from unsample.studies import claimed

FILES = {"rows.csv", "rows.json", "verdicts.json", "study.json", "figure.png", "figure.svg", "index.html"}


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    tiny.install(monkeypatch, tmp_path)
    yield
    claimed.claims_of.cache_clear()


def numbers(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.])-?\d+\.\d+(?:e[-+]\d+)?", text))


def test_the_list_says_what_is_asked_of_which_paper_on_which_models_at_what_cost(run: Run) -> None:
    listed = run("study", "--json").json["studies"]
    assert [row["name"] for row in listed] == [*tiny.NAMES]
    assert listed[0]["models"] == ["scenes-mixture"]
    assert listed[0]["claims"] == ["iterating_helps"]
    assert listed[0]["network_calls"] == 4 * listed[0]["network_calls_per_picture"]["scenes-mixture"] > 0
    text = run("study").out
    assert {"tiny", "needy", "scenes-mixture"} <= set(re.split(r"[\s,:]+", text))


def test_one_study_says_its_cost_first_and_leaves_rows_verdicts_figure_and_a_page_that_stands_alone(run: Run) -> None:
    ended = run("study", "tiny", "-o", "found", "--json")
    assert ended.code == 0
    assert {p.name for p in Path("found").iterdir() if p.is_file()} == FILES
    assert ended.err.index("network evaluations") < ended.err.index("wrote")
    rows = json.loads(Path("found/rows.json").read_text())
    assert [(r["unit"], r["method"]) for r in rows[:1]] == [("generated-report-0", "ddim")]
    assert len(rows) == 8
    document, about = ended.json, json.loads(Path("found/study.json").read_text())
    assert document["verdicts"] == json.loads(Path("found/verdicts.json").read_text())
    assert set(about["weights_sha256"]) == {"scenes-mixture"}
    assert len(about["weights_sha256"]["scenes-mixture"]) == 64
    assert about["command"][:3] == ["unsample", "study", "tiny"] or about["command"][0].endswith("unsample")
    page = Path("found/index.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//|url\(|@import|<script", page)
    assert "Iterating &lt;b&gt;finds&lt;/b&gt; the noise better." in page
    assert "<b>finds" not in page
    for part in (about["weights_sha256"]["scenes-mixture"], "torch", "unsample study tiny --model scenes-mixture"):
        assert part in page


def test_every_number_of_a_verdict_on_the_page_is_one_of_its_file(run: Run) -> None:
    from unsample.studies.means import number

    assert run("study", "tiny", "-o", "found").code == 0
    found = json.loads(Path("found/verdicts.json").read_text())[0]["models"][0]
    rows = json.loads(Path("found/rows.json").read_text())
    page = re.sub(r"<style.*?</style>|data:image[^\"]*", "", Path("found/index.html").read_text(), flags=re.S)
    claims = page.partition('id="verdicts"')[2].partition('id="numbers"')[0]
    shown = numbers(re.sub(r"<svg.*?</svg>|<details class=\"reading\".*?</details>", "", claims, flags=re.S))
    ps = {"0.001", *(f"{found[key]:.3f}" for key in ("p", "holm") if found[key] is not None)}
    assert shown <= {number(found[key]) for key in ("effect", "low", "high")} | ps | {"0.900"}
    assert number(found["effect"]) in shown
    table = page.partition('id="numbers"')[2].partition('id="made"')[0]
    for method in ("ddim", "fixed_point"):
        values = [row["e_latent"] for row in rows if row["method"] == method]
        assert number(sum(values) / len(values)) in numbers(table)


def test_a_second_run_finds_all_of_it_and_writes_the_same_bits(run: Run) -> None:
    first = {}
    for turn in range(2):
        assert run("study", "tiny", "-o", "found").code == 0
        now = {name: Path("found", name).read_bytes() for name in FILES - {"study.json"}}
        assert turn == 0 or now == first
        first = now
    assert run("study", "tiny", "-o", "other").code == 0  # the same seed, from the start
    assert {name: Path("other", name).read_bytes() for name in FILES - {"study.json"}} == first
    assert run("study", "tiny", "-o", "more", "--seed", "1").code == 0
    assert Path("more/rows.json").read_bytes() != first["rows.json"]


def test_two_workers_find_the_same_bits(run: Run) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        assert run("study", "tiny", "-o", name, "--num-samples", 20, "--workers", workers).code == 0
    assert Path("one/rows.json").read_bytes() == Path("two/rows.json").read_bytes()


KILLED = """
import sys, time
from pathlib import Path
import pytest
from tests.studies import tiny
from unsample.bench import run
tiny.install(pytest.MonkeyPatch(), Path(sys.argv[1]))
commit = run._Driver._commit
def slow(self, rows, broken=None):
    commit(self, rows, broken)
    print("one", flush=True)
    time.sleep(60)
run._Driver._commit = slow
from unsample.cli.main import main
main(["study", "tiny", "-o", sys.argv[2], "--num-samples", "20"])
"""


def test_a_killed_study_goes_on_to_the_same_rows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "child").mkdir()
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "child"), str(tmp_path / "cut")]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "one\n"
        child.send_signal(signal.SIGKILL)
    assert not Path("cut/rows.json").exists()
    assert run("study", "tiny", "-o", "cut", "--num-samples", 20).code == 0
    assert run("study", "tiny", "-o", "whole", "--num-samples", 20).code == 0
    assert Path("cut/rows.json").read_bytes() == Path("whole/rows.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tinny"], 2, ("tinny", "did you mean 'tiny'")),
        (["tiny", "--num-samples", "0"], 2, ("--num-samples", "at least 1", "0")),
        (["tiny", "--steps", "0"], 2, ("--steps", "at least 1")),
        (["tiny", "--steps", "1001"], 2, ("at most 1000",)),
        (["tiny", "--seed", "-1"], 2, ("--seed", "at least 0")),
        (["tiny", "--seed", "5000"], 2, ("--seed", "below 5000")),
        (["tiny", "-m", " , "], 2, ("--model", "names no model")),
        (["all", "--only", ""], 2, ("--only", "names no study")),
        (["tiny", "--workers", "0"], 2, ("--workers", "at least 1")),
        (["tiny", "-m", "nowhere"], 3, ("nowhere", "bundled are")),
        (["tiny", "-o", "/proc/found"], 4, ("/proc/found",)),
        (["needy"], 2, ("needy", "works on latents", "scenes-mixture")),
        (["--quick"], 2, ("name a study",)),
        (["tiny", "--only", "tiny"], 2, ("--only", "all")),
        (["tiny", "--docs"], 2, ("--docs", "all")),
        (["all", "--docs", "--quick"], 2, ("--docs", "--quick")),
        (["tiny", "studies.md"], 2, ("studies.md", "--docs")),
        (["tiny", "--device", "cuda:77"], 2, ("cuda:77", "cannot be used here")),
        (["all", "--only", "tinny"], 2, ("tinny", "tiny")),
        (["all", "--docs", "nowhere.md"], 4, ("nowhere.md",)),
    ],
)
def test_wrong_use_is_refused_before_any_work(
    run: Run, arguments: list[str], code: int, words: tuple[str, ...]
) -> None:
    ended = run("study", *arguments)
    assert ended.code == code, ended.err
    assert all(word in ended.err for word in words), ended.err
    assert not Path("studies").exists() or not list(Path("studies").rglob("*.sqlite"))


def test_all_make_a_site_and_name_what_is_not_comparable(run: Run) -> None:
    Path("studies.md").write_text("# Found\n<!-- table studies -->\nnothing\n<!-- end studies -->\nThe end.\n")
    ended = run("study", "all", "-o", "site", "--docs", "studies.md", "--json")
    assert ended.code == 0, ended.err
    assert set(ended.json["studies"]) == {"tiny"}
    assert ended.json["not_run"]["needy"]["state"] == "not comparable"
    index = Path("site/index.html").read_text()
    assert 'href="tiny/index.html"' in index
    assert "works on latents" in index
    assert "../index.html" in Path("site/tiny/index.html").read_text()
    document = Path("studies.md").read_text()
    verdict = json.loads(Path("site/tiny/verdicts.json").read_text())[0]["verdict"]
    assert f"**{verdict}**" in document
    assert "Iterating &lt;b>finds&lt;/b> the noise better." in document
    assert document.startswith("# Found\n")
    assert document.endswith("The end.\n")


def test_what_is_damaged_beside_it_is_named_and_written_anew(run: Run) -> None:
    Path("studies.md").write_text("<!-- table studies -->\n<!-- end studies -->\n")
    assert run("study", "all", "-o", "site").code == 0
    for damaged, text in (
        ("verdicts.json", "[{"),
        ("verdicts.json", '[{"verdict": "so"}]'),
        ("study.json", '{"models": 3}'),
    ):
        Path("site/tiny", damaged).write_text(text)
        ended = run("study", "all", "--only", "needy", "-o", "site")
        assert "please report" not in ended.err
        assert "Damaged" in (index := Path("site/index.html").read_text())
        assert f"tiny/{damaged}" in index
        Path("site/tiny/study.json").unlink()
        assert run("study", "all", "-o", "site").code == 0
        assert "Damaged" not in Path("site/index.html").read_text()


def test_a_look_is_no_result_for_a_document(run: Run) -> None:
    Path("studies.md").write_text("<!-- table studies -->\nas it was\n<!-- end studies -->\n")
    assert run("study", "tiny", "--quick", "-o", "site/tiny").code == 0
    ended = run("study", "all", "--only", "needy", "-o", "site", "--docs", "studies.md")
    assert (ended.code, "holds no study yet" in ended.err) == (4, True), ended.err
    assert "as it was" in Path("studies.md").read_text()


def test_one_that_fails_does_not_end_the_others_and_gives_its_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.modules["unsample.studies.needy"].STUDY = tiny.study("needy", rows=_broken)  # type: ignore[attr-defined]
    ended = run("study", "all", "-o", "site", "--json")
    assert ended.code == 1
    assert set(ended.json["studies"]) == {"tiny"}
    assert "no such column" in ended.json["not_run"]["needy"]["reason"]
    assert "no such column" in Path("site/index.html").read_text()


def _broken(cells: Any, asked: Any) -> Any:
    raise ValueError("no such column")


@pytest.mark.parametrize("missing", ["matplotlib", "scipy"])
def test_without_an_extra_rows_are_written_and_one_line_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def blocked(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ImportError(f"No module named {missing!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", blocked)
    ended = run("study", "tiny", "-o", "found")
    assert ended.code == 0, ended.err
    said = [line for line in ended.err.splitlines() if "unsample[studies]" in line]
    assert len(said) == 1
    assert missing in said[0]
    assert len(json.loads(Path("found/rows.json").read_text())) == 8
    assert Path("found/figure.png").exists() is (missing == "scipy")
    assert "unsample[studies]" in Path("found/index.html").read_text()


def test_what_would_be_run_is_said_and_nothing_written(run: Run) -> None:
    one, both = run("study", "tiny", "--dry-run", "--json"), run("study", "all", "--dry-run", "--json")
    assert (one.code, both.code) == (0, 0)
    assert one.json["studies"]["tiny"] == both.json["studies"]["tiny"]
    assert one.json["studies"]["tiny"]["cells"] == 8
    assert "not run" in run("study", "tiny", "--dry-run").out
    assert not Path("studies").exists()


def test_a_folder_of_another_study_or_of_other_pictures_is_refused_first(run: Run) -> None:
    assert run("study", "tiny", "-o", "found").code == 0
    for more, words in ((["--num-samples", "5"], "num_samples 4 there, 5 asked"), (["--steps", "3"], "steps 4 there")):
        ended = run("study", "tiny", "-o", "found", *more)
        assert (ended.code, words in ended.err) == (4, True), ended.err
        assert "network evaluations" not in ended.err
    Path("found/study.json").unlink()  # as of a run that was stopped
    assert run("study", "tiny", "-o", "found", "--steps", "3").code == 4


def test_a_part_that_was_stopped_is_said_and_ends_with_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    load = unsample.load

    def missing(name: str, **given: Any) -> Any:
        if name == "scenes-ddpm":
            raise unsample.BadInput("no memory for it")
        return load(name, **given)

    monkeypatch.setattr(unsample, "load", missing)
    monkeypatch.setattr("unsample.studies.running.hashes", lambda models, loaded=None: {})
    ended = run("study", "tiny", "-m", "scenes-mixture,scenes-ddpm", "-o", "found")
    assert ended.code == 1, ended.err
    assert "no memory for it" in ended.err
    page = Path("found/index.html").read_text()
    assert "no memory for it" in page


def test_pictures_that_diverge_are_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsample.bench import ledger

    real = ledger.read_run

    def lost(folder: Path) -> Any:
        found = real(folder)
        found.rows[0]["status"] = "diverged"
        return found

    monkeypatch.setattr(ledger, "read_run", lost)
    ended = run("study", "tiny", "-o", "found")
    assert "1 of 8 cells diverged" in ended.err
    assert "1 of 8 cells diverged" in Path("found/index.html").read_text()


def test_rows_of_other_weights_are_not_gone_on_with(run: Run) -> None:
    assert run("study", "tiny", "-o", "found").code == 0
    about = json.loads(Path("found/study.json").read_text())
    about["weights_sha256"]["scenes-mixture"] = "0" * 64
    Path("found/study.json").write_text(json.dumps(about))
    ended = run("study", "tiny", "-o", "found")
    assert ended.code == 4
    assert "other weights" in ended.err


def test_in_python_by_name_or_by_a_loaded_model(tmp_path: Path) -> None:
    found = unsample.study("tiny", "scenes-mixture", num_samples=3, progress=False)
    assert [set(row) for row in found.rows[:1]] == [{"model", "unit", "method", "e_latent", "e_recon"}]
    lent = unsample.study(
        "tiny", unsample.load("scenes-mixture"), num_samples=3, output=tmp_path / "out", progress=False
    )
    assert lent.rows == found.rows
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_file()} == FILES
    assert found.figure() is not None
    with pytest.raises(unsample.Incompatible, match="works on latents"):
        unsample.study("needy", unsample.load("scenes-mixture"))
    for count in (0, "4", True, 2.5):
        with pytest.raises(unsample.BadOption, match="num_samples"):
            unsample.study("tiny", num_samples=count)  # type: ignore[arg-type]
