"""Run folders that somebody changed: each form, each verb that reads them, exit code 4 and the place in words."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.handmade import OPTIONS, make
from tests.cli.conftest import Run
from unsample.bench import ledger
from unsample.bench.ledger import FILE, PLAN, row_sha

VERBS = {
    "report": ["report", "run", "-o", "out"],
    "verify": ["bench", "verify", "run"],
    "merge": ["bench", "merge", "run", "-o", "out"],
    "export": ["bench", "export", "run", "--csv", "-o", "out.csv"],
    "run": ["bench", "run", *OPTIONS, "--metrics", "psnr", "-o", "run"],
}
CELL = "scenes:2,split=tune|3|scenes-mixture|ddim|1|tune-1"
UNTYPED = ("CREATE TABLE x AS SELECT * FROM rows", "DROP TABLE rows", "CREATE TABLE rows (cell, json, sha256)")
DEEP = "[" * 400 + "]" * 400
# column: what stands there in JSON, and what the message must hold beside the row
COLUMNS: dict[str, tuple[str, str]] = {
    "order text": ('"order": "x"', "column order"),
    "order negative": ('"order": -1', "column order"),
    "order bool": ('"order": true', "column order"),
    "order huge": (f'"order": {10**400}', "column order"),
    "item null": ('"item": null', "column item"),
    "item a list": ('"item": ["a"]', "column item"),
    "item empty": ('"item": ""', "column item"),
    "model a number": ('"model": 3', "column model"),
    "method an object": ('"method": {}', "column method"),
    "guidance text": ('"guidance": "1"', "column guidance"),
    "guidance null": ('"guidance": null', "column guidance"),
    "guidance infinite": ('"guidance": 1e999', "column guidance"),
    "status unknown": ('"status": "fine"', "column status"),
    "status a list": ('"status": []', "column status"),
    "values a list": ('"values": []', "column values"),
    "a value that is a number": ('"values": {"noise.psnr": 1.0}', "column values.noise.psnr"),
    "a value of text": ('"values": {"noise.psnr": {"value": "x", "exact": false, "reason": null}}', "noise.psnr.value"),
    "a value not a number": ('"values": {"noise.psnr": {"value": NaN, "exact": false, "reason": null}}', "not JSON"),
    "a value infinite": ('"values": {"noise.psnr": {"value": -1e999, "exact": false, "reason": null}}', "psnr.value"),
    "a value without exact": ('"values": {"noise.psnr": {"value": 1.0, "reason": null}}', "noise.psnr.exact"),
    "artefacts text": ('"artefacts": "x"', "column artefacts"),
    "an artefact that is text": ('"artefacts": ["x"]', "column artefacts.0"),
    "an artefact without a path": ('"artefacts": [{"kind": "source", "sha256": ""}]', "column artefacts.0.path"),
    "an artefact of a number": ('"artefacts": [{"kind": "source", "path": 3, "sha256": ""}]', "artefacts.0.path"),
    "a hash of text": ('"artefacts": [{"kind": "s", "path": "artefacts/x", "sha256": "x"}]', "artefacts.0.sha256"),
    "seconds text": ('"seconds": "long"', "column seconds"),
    "seconds negative": ('"seconds": -1.0', "column seconds"),
    "nfe a float": ('"nfe": 1.5', "column nfe"),
    "nfe negative": ('"nfe": -3', "column nfe"),
    "attempts text": ('"attempts": "many"', "column attempts"),
    "deaths null": ('"deaths": null', "column deaths"),
    "memory a list": ('"peak_memory_mb": [1]', "column peak_memory_mb"),
    "stored_ratio text": ('"stored_ratio": "x"', "column stored_ratio"),
    "baseline a number": ('"baseline": 1', "column baseline"),
    "error a list": ('"error": ["x"]', "column error"),
    "settings text": ('"settings": "x"', "column settings"),
    "settings infinite": ('"settings": {"p": 1e999}', "column settings"),
    "settings too deep": (f'"settings": {{"p": {DEEP}}}', "not JSON"),
    "a new column infinite": ('"later": 1e999', "column later"),
    "half a letter": ('"item": "\\ud800"', "not JSON"),
    "another cell": ('"item": "tune-0"', "column cell"),
}


def changed(folder: Path, text: str) -> None:
    """The second row with another JSON, hashed as it should be."""
    _execute(folder, "UPDATE rows SET json = ?, sha256 = ? WHERE cell = ?", (text, row_sha(text), CELL))


def _execute(folder: Path, query: str, values: tuple[Any, ...] = ()) -> None:
    db = sqlite3.connect(folder / FILE)
    db.execute(query, values)
    db.commit()
    db.close()


def _row(folder: Path) -> dict[str, Any]:
    raws = {cell: text for cell, text, _ in ledger.raw_rows(folder)}
    return dict(json.loads(raws[CELL]))


def column(text: str) -> Callable[[Path], None]:
    """A column replaced (the last of two equal names counts)."""
    return lambda folder: changed(folder, json.dumps(_row(folder))[:-1] + f", {text}}}")


def without(name: str) -> Callable[[Path], None]:
    """A column that is missing."""
    return lambda folder: changed(folder, json.dumps({k: v for k, v in _row(folder).items() if k != name}))


def sql(query: str, *values: Any) -> Callable[[Path], None]:
    return lambda folder: _execute(folder, query, values)


def script(*queries: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for query in queries:
            _execute(folder, query)

    return change


def overwritten(name: str, content: bytes) -> Callable[[Path], None]:
    """A file with another content."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def planned(**more: Any) -> Callable[[Path], None]:
    """Keys of plan.json replaced."""

    def change(folder: Path) -> None:
        kept = json.loads((folder / PLAN).read_text())
        (folder / PLAN).write_text(json.dumps(kept | more))

    return change


def a_folder(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).mkdir()


def cut(folder: Path) -> None:
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[: len(whole) // 2])


FORMS: dict[str, tuple[Callable[[Path], None], str]] = {
    **{name: (column(text), said) for name, (text, said) in COLUMNS.items()},
    **{f"no {name}": (without(name), f"column {name}: it is missing") for name in ("item", "values", "status", "nfe")},
    "text that is no JSON": (lambda f: changed(f, "{"), "not JSON"),
    "a list": (lambda f: changed(f, "[]"), "row"),
    "null": (lambda f: changed(f, "null"), "row"),
    "an empty text": (lambda f: changed(f, ""), "not JSON"),
    "a blob for JSON": (sql("UPDATE rows SET json = x'00ff' WHERE cell = ?", CELL), "column json"),
    "a number for JSON": (
        script(*UNTYPED, "INSERT INTO rows SELECT * FROM x", "DROP TABLE x", "UPDATE rows SET json = 3"),
        "column json",
    ),
    "a null for a hash": (sql("UPDATE rows SET sha256 = NULL WHERE cell = ?", CELL), "column sha256"),
    "another hash": (sql("UPDATE rows SET sha256 = 'x' WHERE cell = ?", CELL), CELL),
    "a null for a cell": (sql("UPDATE rows SET cell = NULL WHERE cell = ?", CELL), "column cell"),
    "a cell that stands twice": (
        script(*UNTYPED, *["INSERT INTO rows SELECT * FROM x"] * 2, "DROP TABLE x"),
        "twice",
    ),
    "text that is no UTF-8": (sql("UPDATE rows SET json = CAST(x'ff' AS TEXT) WHERE cell = ?", CELL), "UTF-8"),
    "a blob for a reason": (sql("INSERT INTO broken VALUES ('d', 'a', x'00')"), "column reason"),
    "a null for an item": (sql("UPDATE items SET item = NULL WHERE place = 1"), "column item"),
    "guidance of a part": (
        sql("INSERT INTO apart VALUES ('d', 'm', 'n', 1, 'x', 'none', 'none', NULL, 'stopped', 'r')"),
        "column guidance",
    ),
    "no table of rows": (sql("DROP TABLE rows"), "no table 'rows'"),
    "no table of broken items": (sql("DROP TABLE broken"), "no table 'broken'"),
    "no column of hashes": (sql("ALTER TABLE rows DROP COLUMN sha256"), "no column 'sha256'"),
    "a view": (script("ALTER TABLE rows RENAME TO x", "CREATE VIEW rows AS SELECT * FROM x"), "no part of a ledger"),
    "a trigger": (
        sql("CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END"), "trigger 't', which is no part"
    ),
    "a column that is computed": (
        script("DROP TABLE rows", "CREATE TABLE rows (cell TEXT, json TEXT, sha256 TEXT AS (hex(cell)))"), "sha256"
    ),
    "no database": (overwritten(FILE, b"no database" * 100), "not a database"),
    "an encrypted one": (overwritten(FILE, bytes(range(256)) * 32), "not a database"),
    "no bytes": (overwritten(FILE, b""), "no table"),
    "half of it": (cut, FILE),
    "a folder for a ledger": (a_folder, "no ordinary file"),
    "a later format": (planned(format=3), "upgrade"),
    "a format of text": (planned(format="x"), "format"),
    "a plan that is a list": (planned(plan=[]), "plan"),
    "metrics of a number": (planned(plan={"metrics": 5}), "metrics"),
    "versions of a list": (planned(versions=[]), "versions"),
    "a command of a number": (planned(command=3), "command"),
    "a fingerprint of a number": (planned(fingerprint=3), "fingerprint"),
    "a plan that is no JSON": (overwritten(PLAN, b"{"), "plan.json is damaged"),
    "a plan of other bytes": (overwritten(PLAN, b"\xff\xfe"), "plan.json is damaged"),
    "a plan too deep": (overwritten(PLAN, f'{{"plan": {DEEP * 20}}}'.encode()), "plan.json is damaged"),
    "an infinite number in a plan": (overwritten(PLAN, b'{"plan": {"x": 1e999}}'), "plan.json is damaged"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is as it should be; not to be changed."""
    return make(tmp_path_factory.mktemp("damaged") / "run")


@pytest.mark.parametrize("name", FORMS)
def test_a_damaged_run_ends_with_4_and_says_where(run: Run, whole: Path, tmp_path: Path, name: str) -> None:
    change, said = FORMS[name]
    for verb, arguments in VERBS.items():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "run")
        change(tmp_path / "run")
        before = (tmp_path / "run" / FILE).read_bytes() if (tmp_path / "run" / FILE).is_file() else b""
        ended = run(*arguments)
        assert ended.code == 4, (verb, ended.err)
        assert said in ended.err, verb
        assert name not in COLUMNS or CELL in ended.err, verb
        assert "Traceback" not in ended.err
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.csv").exists()
        after = (tmp_path / "run" / FILE).read_bytes() if (tmp_path / "run" / FILE).is_file() else b""
        assert after == before, verb


def test_the_run_that_is_damaged_here_is_sound(run: Run, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for verb, arguments in VERBS.items():
        assert run(*arguments).code == 0, verb


@pytest.mark.parametrize("verb", VERBS)
def test_a_ledger_that_another_process_holds_says_so(
    run: Run, whole: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PATIENCE", 0.1)
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / PLAN).write_text((whole / PLAN).read_text())
    db = sqlite3.connect(tmp_path / "run" / FILE, isolation_level=None)
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    db.execute("INSERT INTO broken VALUES ('d', 'tune-9', 'x')")
    db.execute("COMMIT")
    try:
        ended = run(*VERBS[verb])
        assert ended.code == 4, ended.err
        assert "another process holds it" in ended.err
    finally:
        db.close()
