"""Paths that a run folder names: they stay in it and go through no link, and what is copied is what was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.handmade import make, row_of
from unsample.bench.checking import merge, verify
from unsample.bench.ledger import FILE, LOCK, PLAN, Ledger, read_plan_file, read_run
from unsample.errors import BadInput
from unsample.media.files import Outside, inside, open_inside
from unsample.report import write_report

WRONG = {
    "../victim.txt": "leads out",
    "artefacts/../../victim.txt": "leads out",
    "artefacts/..": "leads out",
    "/etc/hostname": "leads out",
    "\\\\host\\share\\x": "leads out",
    "C:\\x": "leads out",
    "c:x": "leads out",
    "artefacts\\..\\..\\x": "leads out",
    "artefacts\\x.png": "is no name",
    "artefacts/./x.png": "is no name",
    "artefacts//x.png": "is no name",
    "artefacts/x.png/": "is no name",
    "artefacts/a\0b": "is no name",
    "artefacts/a\nb": "is no name",
    "artefacts": "is not in artefacts/",
    ".": "is no name",
    "plan.json": "is not in artefacts/",
    "ledger.sqlite": "is not in artefacts/",
    "artefacts/" + "x" * 300: "cannot be looked at",
}
READERS: dict[str, Callable[[Path, Path], Any]] = {
    "read_run": lambda folder, _: read_run(folder),
    "report": lambda folder, out: write_report(folder, out),
    "merge": lambda folder, out: merge([folder], out),
}


def named(folder: Path, path: str) -> Path:
    """A run whose second row names a file of its writer's choice, hashed as it should be."""
    rows = [row_of(folder, 0), row_of(folder, 1)]
    victim = Path(os.path.join(folder, path.partition("\0")[0]))
    content = victim.read_bytes() if len(path) < 200 and victim.is_file() else b""
    rows[1]["artefacts"][0] |= {"path": path, "sha256": hashlib.sha256(content).hexdigest()}
    return make(folder, *rows)


@pytest.mark.parametrize("path", WRONG)
def test_a_path_that_leaves_the_run_is_followed_by_nobody(tmp_path: Path, path: str) -> None:
    (tmp_path / "victim.txt").write_text("mine")
    folder, said = named(tmp_path / "run", path), WRONG[path]
    found = verify(folder)
    assert [said in damage for damage in found.damaged] == [True]
    for name, read in READERS.items():
        if said == "cannot be looked at" and name != "merge":
            continue  # a name that this file system does not take is no picture of the report
        with pytest.raises(BadInput, match=said):
            read(folder, tmp_path / "out" / name)
        assert not (tmp_path / "out" / name / PLAN).exists()
    assert (tmp_path / "victim.txt").read_text() == "mine"


def test_a_name_that_is_no_utf8_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no name"):
        inside(tmp_path, os.fsdecode(b"artefacts/\xff.png"))
    for name in (None, 3, b"x", ""):
        with pytest.raises(BadInput, match="is no name"):
            inside(tmp_path, name)


@pytest.mark.parametrize("which", ["file", "folder", "all", "pipe", "directory"])
def test_a_link_or_a_pipe_in_the_run_is_not_opened(tmp_path: Path, which: str) -> None:
    folder, away = make(tmp_path / "run"), tmp_path / "away"
    item = folder / "artefacts" / "scenes-mixture" / "tune-1"
    place = {"folder": item, "all": folder / "artefacts"}.get(which, item / "source.png")
    place.rename(away)  # the content is right: only the way to it is not
    if which == "pipe":
        os.mkfifo(place)
    elif which == "directory":
        place.mkdir()
    else:
        place.symlink_to(away)
    said = "is no ordinary file" if which in ("pipe", "directory") else "goes through a link"
    assert all(said in damage for damage in verify(folder).damaged)
    assert len(verify(folder).damaged) == (2 if which == "all" else 1)
    with pytest.raises(BadInput, match=said):
        merge([folder], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    write_report(folder, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    note = "missing or damaged" if which in ("pipe", "directory") else "outside of the run folder"
    assert f"<small>{note}</small>" in page
    assert ("<img" in page) == (which != "all")


def test_nothing_is_copied_that_is_not_what_was_written(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    picture = folder / "artefacts/scenes-mixture/tune-1/source.png"
    picture.write_bytes((folder / "artefacts/scenes-mixture/tune-0/source.png").read_bytes())
    with pytest.raises(BadInput, match="is not what was written"):
        merge([folder], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    write_report(folder, tmp_path)
    assert "missing or damaged" in (tmp_path / "report.html").read_text()


def test_a_merge_writes_through_no_link_and_widens_no_permissions(tmp_path: Path) -> None:
    folder, into, home = make(tmp_path / "run"), make(tmp_path / "into"), tmp_path / "home"
    private = into / "artefacts/scenes-mixture/tune-0/source.png"
    private.chmod(0o600)
    merge([folder], into)
    assert private.stat().st_mode & 0o777 == 0o600
    home.mkdir()
    (into / "artefacts").rename(tmp_path / "elsewhere")
    (into / PLAN).unlink()
    (into / FILE).unlink()
    (into / "artefacts").symlink_to(home)
    with pytest.raises(BadInput, match="goes through a link"):
        merge([folder], into)
    assert list(home.iterdir()) == []


def test_a_merge_into_a_run_holds_it_against_the_others(tmp_path: Path) -> None:
    folder, into = make(tmp_path / "run"), tmp_path / "into"
    other = row_of(into, 0)
    other["values"]["noise.psnr"]["value"] = 1.0
    make(into, other, row_of(into, 1))
    with pytest.raises(BadInput, match="differs between"):
        merge([folder], into)
    assert read_run(into).rows[0]["values"]["noise.psnr"]["value"] == 1.0


def test_two_files_of_one_name_that_differ_are_not_merged(tmp_path: Path) -> None:
    one, two = (make(tmp_path / name, row_of(tmp_path / name, k)) for k, name in enumerate(("one", "two")))
    path = two / "artefacts/scenes-mixture/tune-1/source.png"
    shared = row_of(two, 1)
    (two / "artefacts/scenes-mixture/tune-0").mkdir()
    path.rename(two / "artefacts/scenes-mixture/tune-0/source.png")
    shared["artefacts"][0]["path"] = "artefacts/scenes-mixture/tune-0/source.png"
    with Ledger(two) as ledger:
        ledger.add([shared])
    with pytest.raises(BadInput, match=r"tune-0/source.png differs between"):
        merge([one, two], tmp_path / "all")


@pytest.mark.parametrize("name", [LOCK, FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal", PLAN])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_a_file_of_the_run_that_is_none_is_refused_and_what_it_leads_to_stays(
    tmp_path: Path, name: str, kind: str
) -> None:
    from tests.bench.handmade import plan
    from unsample.bench.run import How, run_plan

    folder, victim = make(tmp_path / "run"), tmp_path / "victim"
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to(victim)
    if kind == "link":
        victim.write_text("mine")
    tried: list[Callable[[], Any]] = [lambda: merge([make(tmp_path / "other")], folder)]
    if name != LOCK:  # what is only read needs no lock
        tried += [lambda: read_run(folder), lambda: verify(folder), lambda: run_plan(plan(), folder, How())]
    for call in tried:
        with pytest.raises(BadInput):
            call()
    assert victim.exists() == (kind == "link")
    assert kind != "link" or victim.read_text() == "mine"


def test_what_stands_in_a_lock_stays_and_a_ledger_of_two_names_is_not_written(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    (folder / LOCK).write_text("mine")
    Ledger(folder).close()
    assert (folder / LOCK).read_text() == "mine"
    os.link(folder / FILE, tmp_path / "backup.sqlite")
    with pytest.raises(BadInput, match="several names"):
        Ledger(folder)
    assert len(read_run(folder).rows) == 2


def test_a_database_of_somebody_else_gets_no_tables(tmp_path: Path) -> None:
    import sqlite3

    db = sqlite3.connect(tmp_path / FILE)
    db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.commit()
    db.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(BadInput, match="bookmarks"):
        Ledger(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_plan_file_that_is_no_ordinary_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / PLAN)
    with pytest.raises(BadInput, match="no ordinary file"):
        read_plan_file(tmp_path)
    with pytest.raises(Outside):
        open_inside(tmp_path, "../x")
