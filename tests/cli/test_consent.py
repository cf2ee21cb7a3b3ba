"""What exists is written over by no verb unless it is told to: every verb and option that names a file or folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.handmade import make
from tests.cli.conftest import Run

MIXTURE = ["-m", "scenes-mixture", "--steps", "2"]
# verb and option: (arguments, where OUT is the folder; the file that is written there)
WRITES: dict[tuple[str, str], tuple[list[str], str]] = {
    ("invert", "--output"): (["invert", "a.png", *MIXTURE, "-o", "OUT"], "a.safetensors"),
    ("invert", "its picture"): (["invert", "a.png", *MIXTURE, "-o", "OUT"], "a.png"),
    ("reconstruct", "--output"): (["reconstruct", "in/a.safetensors", "-m", "scenes-mixture", "-o", "OUT"], "a.png"),
    ("edit", "--output"): (["edit", "a.png", *MIXTURE, "--target-prompt", "a red circle", "-o", "OUT/x.png"], "x.png"),
    ("edit", "--grid"): (
        ["edit", "a.png", *MIXTURE, "--target-prompt", "a red circle", "--grid", "-o", "OUT/x.png"],
        "x-grid.png",
    ),
    ("interpolate", "--output"): (
        [
            "interpolate",
            "in/a.safetensors",
            "in/a.safetensors",
            "-m",
            "scenes-mixture",
            "--num-frames",
            "2",
            "-o",
            "OUT",
        ],
        "frame-00.png",
    ),
    ("sample", "--output"): (["sample", *MIXTURE, "-o", "OUT/x.png"], "x.png"),
    ("sample", "--keep-trajectory"): (
        ["sample", *MIXTURE, "--keep-trajectory", "-o", "OUT/x.png"],
        "x.trajectory.safetensors",
    ),
    ("compare", "--output"): (["compare", "a.png", *MIXTURE, "--methods", "ddim", "-o", "OUT"], "compare.csv"),
    ("compare", "--pictures"): (
        ["compare", "a.png", *MIXTURE, "--methods", "ddim", "--pictures", "-o", "OUT"],
        "ddim-noise.png",
    ),
    ("measure", "--csv"): (["measure", "a.png", "b.png", "--metrics", "psnr", "--csv", "OUT/x.csv"], "x.csv"),
    ("datasets", "--output"): (["datasets", "scenes:2", "-n", "1", "-o", "OUT"], "scenes.png"),
    ("bench export", "--output"): (["bench", "export", "run", "--csv", "-o", "OUT/x.csv"], "x.csv"),
    ("bench export", "--json"): (["bench", "export", "run", "--json", "-o", "OUT/x.json"], "x.json"),
    ("bench export", "--parquet"): (["bench", "export", "run", "--parquet", "-o", "OUT/x.parquet"], "x.parquet"),
    ("report", "--output"): (["report", "run", "-o", "OUT"], "report.html"),
}
FOLDERS = {
    ("bench run", "--output"),
    ("bench merge", "--output"),
    ("study", "--output"),
    ("serve", "--output"),
    ("train-inverse", "--output"),
    ("measure", "--output"),
}  # of a run, a training or a collection, which is gone on with or refused whole
NAMES = [" ".join(key) for key in WRITES]
pytestmark = pytest.mark.filterwarnings("ignore")


def draw(path: Path, number: int = 0) -> None:
    """A scene, as the model knows them."""
    from PIL import Image

    from unsample.datasets import Scenes, render

    picture = render([Scenes("tune", 2).scene(number)], 32).images[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy()).save(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the verbs read; not to be changed."""
    import torch

    import unsample

    folder = tmp_path_factory.mktemp("consent")
    draw(folder / "a.png")
    draw(folder / "b.png", 1)
    make(folder / "run")
    (folder / "in").mkdir()
    model = unsample.load("scenes-mixture")
    found = unsample.invert(model, latents=torch.zeros(1, 3, 32, 32), num_inference_steps=2)
    found.save(folder / "in" / "a.safetensors")
    return folder


def asked(home: Path, key: tuple[str, str], out: Path) -> list[str]:
    """The arguments, with every path where it is."""
    read = {"a.png", "b.png", "in/a.safetensors", "run"}
    return [str(home / a) if a in read else a.replace("OUT", str(out)) for a in WRITES[key][0]]


def options() -> Iterator[tuple[str, str]]:
    """Every option of the command line that names where to write."""
    import typer

    from unsample.cli.app import app

    def walk(command: Any, name: str) -> Iterator[tuple[str, str]]:
        for verb, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {verb}".strip())
        for option in command.params:
            if {"--output", "--csv", "--keep-trajectory"} & {*option.opts} and not (
                option.is_flag and "--csv" in option.opts
            ):
                yield name, option.opts[0]

    yield from walk(typer.main.get_command(app), "")


def test_every_option_that_writes_stands_in_this_table() -> None:
    assert set(options()) <= WRITES.keys() | FOLDERS


@pytest.mark.parametrize("key", WRITES, ids=NAMES)
@pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder", "pipe"])
def test_what_is_there_is_refused_before_any_work(
    run: Run, home: Path, tmp_path: Path, key: tuple[str, str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    place = out / WRITES[key][1]
    mine.write_text("mine")
    {
        "file": lambda: place.write_text("mine"),
        "link": lambda: place.symlink_to(mine),
        "dangling": lambda: place.symlink_to(tmp_path / "gone"),
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
    }[kind]()
    before = sorted(os.listdir(out))
    if kind == "folder" and key[0] == "sample" and place.suffix == ".png":
        pytest.skip("sample takes a folder too, and writes into it")
    no_work(monkeypatch)
    for more in ([], ["--overwrite"] if kind in ("folder", "pipe") else []):
        ended = run(*asked(home, key, out), *more)
        assert ended.code == 4, ended.err
        said = "already" if kind in ("file", "link", "dangling") else "is a"
        assert said in ended.err
    assert sorted(os.listdir(out)) == before
    assert mine.read_text() == "mine"


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is loaded, a row that is read or a picture that is measured is a failure."""
    from unsample.bench import ledger
    from unsample.cli import session
    from unsample.metrics import folders

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(session, "load", work)
    monkeypatch.setattr(ledger, "read_run", work)
    monkeypatch.setattr(folders, "measure_pairs", work)


@pytest.mark.parametrize("key", WRITES, ids=NAMES)
def test_with_overwrite_it_is_replaced_and_a_link_leads_nowhere_else(
    run: Run, home: Path, tmp_path: Path, key: tuple[str, str]
) -> None:
    if "--parquet" in key:
        pytest.importorskip("pyarrow")
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    mine.write_text("mine")
    (out / WRITES[key][1]).symlink_to(mine)
    ended = run(*asked(home, key, out), "--overwrite")
    assert ended.code == 0, ended.err
    place = out / WRITES[key][1]
    assert place.is_file()
    assert not place.is_symlink()
    assert mine.read_text() == "mine"
    assert place.read_bytes() != b"mine"


@pytest.mark.parametrize("key", WRITES, ids=NAMES)
def test_a_folder_that_cannot_be_is_refused_before_any_work(
    run: Run, home: Path, tmp_path: Path, key: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    if key[0] not in ("bench export", "report"):  # which read the run first: it costs nothing
        no_work(monkeypatch)
    ended = run(*asked(home, key, tmp_path / "file" / "out"))
    assert ended.code == 4, ended.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("key", [("sample", "--output"), ("bench export", "--output"), ("report", "--output")])
def test_a_missing_folder_is_made(run: Run, home: Path, tmp_path: Path, key: tuple[str, str]) -> None:
    assert run(*asked(home, key, tmp_path / "new" / "er")).code == 0
    assert (tmp_path / "new" / "er" / WRITES[key][1]).is_file()


INPUTS = {
    "invert": ["invert", "a.png", *MIXTURE, "-o", "."],
    "edit": ["edit", "a.png", *MIXTURE, "--target-prompt", "a red circle", "-o", "a.png"],
    "compare": ["compare", "compare.png", *MIXTURE, "--methods", "ddim", "-o", "."],
    "measure a picture": ["measure", "a.png", "b.png", "--metrics", "psnr", "--csv", "b.png"],
    "measure a picture of a folder": ["measure", "one", "two", "--metrics", "psnr", "--csv", "two/a.png"],
    "measure a table": ["measure", "a.png", "b.png", "--metrics", "psnr", "--prompts", "t.csv", "--csv", "t.csv"],
    "datasets": ["datasets", "folder:one", "-o", "one"],
    "export a ledger": ["bench", "export", "run", "--csv", "-o", "run/ledger.sqlite"],
    "export a plan": ["bench", "export", "run", "--csv", "-o", "run/plan.json"],
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_no_output_even_with_overwrite(run: Run, tmp_path: Path, name: str) -> None:
    for path in ("a.png", "b.png", "compare.png", "one/a.png", "one/folder.png", "two/a.png"):
        draw(tmp_path / path)
    (tmp_path / "t.csv").write_text("file,source_prompt\na.png,a red circle\n")
    make(tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ended = run(*INPUTS[name], "--overwrite")
    assert ended.code == 4
    assert "an input" in ended.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_renews_its_own_report(run: Run, tmp_path: Path) -> None:
    make(tmp_path / "run")
    for arguments in (["report", "run"], ["report", "run"], ["report", "run", "-o", "run"]):
        assert run(*arguments).code == 0
