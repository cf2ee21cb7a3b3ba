"""Writing: atomic, refused in words, and without the user's folders in what is kept."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unsample.errors import BadInput
from unsample.media import files
from unsample.media.files import atomic_write, check_writable_folder, lock, plain_settings


def writes(content: bytes) -> Callable[[Path], object]:
    return lambda temporary: temporary.write_bytes(content)


def test_a_file_is_written_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    atomic_write(target, writes(b"new"))
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_temporary_file_lies_in_the_same_folder_and_the_old_file_stands_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"new")
        assert temporary.parent == tmp_path
        assert temporary != target
        assert target.read_bytes() == b"old"

    atomic_write(target, write)
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), SystemExit(1), RuntimeError("x"), OSError(errno.EIO, "x")])
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise failure

    with pytest.raises(BadInput if isinstance(failure, OSError) else type(failure)):
        atomic_write(target, write)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failure_of_the_last_move_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BadInput, match="read-only"):
        atomic_write(tmp_path / "a.bin", writes(b"new"))
    assert os.listdir(tmp_path) == []


def test_it_is_on_the_disk_before_it_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def note_replace(a: Path, b: Path) -> None:
        calls.append("replace")
        replace(a, b)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    atomic_write(tmp_path / "a.bin", writes(b"new"))
    assert calls == ["fsync", "replace"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    atomic_write(tmp_path / "ours", writes(b"new"))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_file_over_the_limit_of_the_system_is_refused_and_removed(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(BadInput, match="larger than is allowed"):
            atomic_write(tmp_path / "a.bin", writes(bytes(5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BadInput, match=r"cannot write file '.*a\.bin': the disk is full; free some space"):
        atomic_write(tmp_path / "a.bin", write)


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="its folder does not exist; create"):
        atomic_write(tmp_path / "no" / "a.bin", writes(b""))


@pytest.mark.parametrize("path", ["folder", "file/a.bin", "pipe", "x" * 300, "nul\0", "", "/"])
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(BadInput, match="cannot write file"):
        atomic_write(path, writes(b"new"))
    assert sorted(os.listdir(tmp_path)) == before
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)  # os.replace would have put a file in its place


def test_a_missing_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    assert check_writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert os.listdir(tmp_path / "a" / "b") == []
    check_writable_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize("path", ["file", "file/below", "x" * 300, "nul\0", "", "/proc/unsample"])
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write"):
        check_writable_folder(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_tried_by_writing_so_a_full_disk_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BadInput, match=r"cannot write folder .* the disk is full"):
        check_writable_folder(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("key", ["input", "output", "path", "inversion", "reconstruction", "edit"])
def test_file_names_lose_their_folders(key: str) -> None:
    assert plain_settings({key: "/home/me/pictures/cat.png"}) == {key: "cat.png"}
    assert plain_settings({key: r"C:\Users\me\cat.png"}) == {key: "cat.png"}
    assert plain_settings({"images": [{key: ["a/b.png", "c.png"]}]}) == {"images": [{key: ["b.png", "c.png"]}]}


def test_paths_lose_their_folders_under_any_key_and_local_models_too() -> None:
    assert plain_settings({"mask": Path("/home/me/m.png")}) == {"mask": "m.png"}
    for model in ("/home/me/sd", "./models/sd", "~/models/sd/", r"C:\models\sd"):
        assert plain_settings({"model": model}) == {"model": "sd"}
    assert plain_settings({"model": "stabilityai/sd"}) == {"model": "stabilityai/sd"}


def test_other_texts_keep_their_slashes() -> None:
    assert plain_settings({"prompt": "red/blue circle"}) == {"prompt": "red/blue circle"}


def test_numbers_become_those_of_json() -> None:
    settings = {"a": np.int64(3), "b": np.float32(0.5), "c": float("inf"), "d": float("nan"), "e": True, "f": None}
    plain = plain_settings({**settings, "g": (1, 2)})
    assert plain == {"a": 3, "b": 0.5, "c": None, "d": None, "e": True, "f": None, "g": [1, 2]}
    assert [type(plain[key]) for key in "abe"] == [int, float, bool]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    target.chmod(mode)

    def write(temporary: Path) -> None:
        assert temporary.stat().st_mode & 0o077 & ~mode == 0  # nobody else reads it meanwhile
        temporary.write_bytes(b"new")

    atomic_write(target, write)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "a.bin").symlink_to(tmp_path / "mine")
    atomic_write(tmp_path / "a.bin", writes(b"new"))
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert not (tmp_path / "a.bin").is_symlink()


def test_a_lock_is_no_link_and_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(BadInput, match="goes through a link"):
        lock(tmp_path, "link", wait=True)
    held = lock(tmp_path, "mine", wait=False)
    assert held is not None
    assert lock(tmp_path, "mine", wait=False) is None
    held.close()
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_every_file_is_written_through_atomic_write() -> None:
    """What writes to a name of its own is found here; what fills a temporary file is called `temporary`."""
    root = Path(__file__).parents[2]
    # /proc/self/clear_refs; a file of the session while it comes in, under a name that is never shown
    known = {"benchmarks/common.py": 1, "src/unsample/web/server.py": 1}
    writing = re.compile(
        r"""(?<!temporary)\.write_(text|bytes)\(|open\([^)]*["'][wax]b?\+?["']|torch\.save\((?!.*temp)"""
    )
    for folder in ("src", "training", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            lines = [line for line in path.read_text().splitlines() if writing.search(line)]
            odd = [line for line in lines if "temporary" not in line and "open(_create(" not in line]
            odd = [line for line in odd if "os.devnull" not in line]
            assert len(odd) == known.get(path.relative_to(root).as_posix(), 0), (path, odd)


FORMULAS = ("=1+1", "+1+1", "+1", "-1+1", "@SUM(A1)", "\tx", "\rx", "\n=x", "＝1+1", "-", "-3.2.1", "+49 30 1234")
PLAIN = ("-3.2", "-1e-05", "-inf", "a=b", "", "'x", " =1", "a\ncat", 'say "hi", cat')


def test_a_spreadsheet_runs_nothing_of_a_table_and_machines_can_have_it_as_it_is() -> None:
    rows = [{"@name": text, "value": -3.2} for text in (*FORMULAS, *PLAIN)] + [{"value": None, "more": 1}]
    for raw in (False, True):
        text = files.as_csv(["@name", "value", "-of"], rows, raw)
        head, *lines = csv.reader(io.StringIO(text, newline=""))
        assert head == ["@name", "value", "-of"] if raw else ["'@name", "value", "'-of"]
        assert [cells[0] for cells in lines] == [*(t if raw else f"'{t}" for t in FORMULAS), *PLAIN, ""]
        assert {cells[1] for cells in lines} == {"-3.2", ""}
    assert files.as_csv(["a"], [{"a": "x\udcff"}]) == "a\nx\\udcff\n"


def test_there_is_one_writer_of_csv() -> None:
    root = Path(files.__file__).parent
    writers = [p.name for p in root.rglob("*.py") if re.search(r"csv\.(DictW|w)riter|to_csv", p.read_text())]
    assert writers == ["files.py"]
