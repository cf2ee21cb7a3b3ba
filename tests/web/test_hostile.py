"""Requests that mean harm: each is answered with 4xx, nothing outside the session is touched, the server lives."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.web.conftest import CAPTION, HOST, Page, inside
from unsample.media.pictures import from_bytes
from unsample.web import guard, keep
from unsample.web.guard import Guard, Hosts
from unsample.web.reports import Reports

SECRET = "the secret of another folder"

# ---------------------------------------------------------------- paths

UP = (
    *("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "%2E%2E%2F", "..%5c", "..\\", "%2e%2e%5c", "..%255c", "..%252f"),
    *("%252e%252e%252f", "..%c0%af", "%c0%ae%c0%ae/", "..%e0%80%af", "..%u2215", "..;/", ".%00./", "..%00/"),
    *("....//", "..%EF%BC%8F", "/%2f", "//", "./../", "%2e/%2e%2e/"),
)
BEFORE = ("/page/", "/reports/", "/api/jobs/", "/api/files/")


@pytest.fixture(scope="module")
def secret(page: Page) -> Path:
    path = page.session.keep.folder.parent / "secret.txt"
    path.write_text(SECRET, encoding="utf-8")
    return path


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("up", UP)
def test_no_spelling_of_a_path_leads_out(page: Page, secret: Path, before: str, up: str) -> None:
    for depth in (1, 3, 8):
        target = f"{before}{up * depth}{secret.name}"
        status, body = raw(page, "GET", target)
        assert 400 <= status < 500, target
        assert SECRET.encode() not in body


@pytest.mark.parametrize("name", ["/etc/passwd", "C:\\boot.ini", "\0", "con", "a" * 5000, "..", ".", "%s%n", "🦆"])
def test_no_name_of_a_file_leads_out(page: Page, drawn: bytes, name: str) -> None:
    before = inside(page.session.keep.folder.parent) - inside(page.session.keep.folder)
    answer = page.http.post("/api/files", params={"name": name[:500]}, content=drawn)
    assert answer.status_code == 201
    assert not set(answer.json()["name"]) & set("/\\\0:%")
    kept = page.session.keep.file(answer.json()["id"])
    assert kept is not None
    assert kept.path.is_relative_to(page.session.keep.folder)
    assert inside(page.session.keep.folder.parent) - inside(page.session.keep.folder) == before


def test_a_name_that_is_too_long_is_refused(page: Page, drawn: bytes) -> None:
    assert page.http.post("/api/files", params={"name": "a" * 501}, content=drawn).status_code == 400


def test_reports_are_those_of_the_list_and_links_are_not_followed(tmp_path: Path, make_page: Any) -> None:
    runs, outside = tmp_path / "runs", tmp_path / "outside"
    for folder in (runs / "good", runs / "bad", outside):
        folder.mkdir(parents=True)
    (outside / "report.html").write_text(SECRET, encoding="utf-8")
    (outside / "secret.csv").write_text(SECRET, encoding="utf-8")
    (runs / "good" / "report.html").write_text("<title>Good &amp; sound</title><script>alert(1)</script>", "utf-8")
    (runs / "good" / "rows.csv").write_text("a,b", encoding="utf-8")
    (runs / "good" / "key.pem").write_text(SECRET, encoding="utf-8")
    (runs / "good" / ".hidden.html").write_text(SECRET, encoding="utf-8")
    os.symlink(outside / "report.html", runs / "bad" / "report.html")
    os.symlink(outside, runs / "linked")
    os.symlink(outside / "secret.csv", runs / "good" / "secret.csv")
    own = make_page(reports=runs)
    assert [(r["name"], r["title"]) for r in own.http.get("/api/reports").json()["reports"]] == [
        ("good/report.html", "Good & sound")
    ]
    assert own.http.get("/reports/good/rows.csv").text == "a,b"
    shown = own.http.get("/reports/good/report.html")
    assert "sandbox" in shown.headers["content-security-policy"]
    assert "allow-same-origin" not in shown.headers["content-security-policy"]
    for name in ("bad/report.html", "linked/report.html", "linked/secret.csv", "good/secret.csv", "good/key.pem"):
        assert own.http.get(f"/reports/{name}").status_code == 404, name
    assert own.http.get("/reports/good/.hidden.html").status_code == 404


def test_a_folder_of_reports_that_loops_or_is_huge_is_looked_through_all_the_same(tmp_path: Path) -> None:
    os.symlink(tmp_path, tmp_path / "again")
    deep = tmp_path / "/".join("abcdefgh")
    deep.mkdir(parents=True)
    (deep / "report.html").write_text("deep", encoding="utf-8")
    (tmp_path / "report.html").write_text("no title", encoding="utf-8")
    assert [r["name"] for r in Reports(tmp_path).listed()] == ["report.html"]


# ---------------------------------------------------------------- who asks


HOSTS = (
    *("evil.example", "evil.example:7860", "127.0.0.1.evil.example:7860", "localhost.evil.example", "", "127.0.0.1:"),
    *("127.0.0.1:x", "127.0.0.1:7860:7860", "[::1", "0.0.0.0:7860", "192.168.0.1:7860", "127.0.0.1@evil.example:1"),
)


@pytest.mark.parametrize("host", HOSTS)
def test_another_host_is_refused(page: Page, host: str) -> None:
    for target in ("/", "/api/facts", "/api/jobs"):
        assert raw(page, "GET", target, [("host", host)])[0] == 421


def test_no_host_and_two_hosts_are_refused(page: Page) -> None:
    assert raw(page, "GET", "/", [])[0] == 421
    assert raw(page, "GET", "/", [("host", HOST), ("host", HOST)])[0] == 400


ORIGINS = (
    *("http://evil.example", "null", "https://127.0.0.1.evil.example:7860", "http://127.0.0.1:7861", "file://"),
    *("http://127.0.0.1", "chrome-extension://abc", "http://localhost:7860", "http://evil.example:7860", "x", ""),
)


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_write_from_another_origin_is_refused(page: Page, drawn: bytes, origin: str) -> None:
    before = len(page.http.get("/api/jobs").json()["jobs"])
    for method, target in (("POST", "/api/jobs"), ("POST", "/api/files"), ("DELETE", "/api/jobs/x")):
        assert raw(page, method, target, [("host", HOST), ("origin", origin)], drawn)[0] == 403, target
    assert len(page.http.get("/api/jobs").json()["jobs"]) == before


def test_a_browser_that_says_cross_site_without_an_origin_is_refused(page: Page) -> None:
    headers = [("host", HOST), ("sec-fetch-site", "cross-site")]
    assert raw(page, "POST", "/api/jobs", headers, b"{}")[0] == 403


def test_a_token_is_asked_of_everything(make_page: Callable[..., Page]) -> None:
    own = make_page(token="0123456789abcdef")
    for target in ("/", "/page/style.css", "/api/facts", "/api/jobs", "/api/events", "/reports/a", "/nothing"):
        assert own.http.get(target).status_code == 401, target
    for given in ("", "Bearer", "Bearer x", "Basic 0123456789abcdef", "Bearer 0123456789abcde", "Bearer é"):
        assert raw(own, "GET", "/api/facts", [("host", HOST), ("authorization", given)])[0] in (400, 401), given
    assert raw(own, "GET", "/?token=0123456789abcdeg", [("host", HOST)])[0] == 401
    assert raw(own, "GET", "/api/facts?token=0123456789abcdef", [("host", HOST)])[0] == 401
    assert raw(own, "GET", "/", [("host", HOST), ("cookie", "unsample-token=no; \x7f=;;=")])[0] in (400, 401)
    assert own.http.get("/api/facts", headers={"authorization": "Bearer 0123456789abcdef"}).status_code == 200
    first = own.http.get("/?token=0123456789abcdef", follow_redirects=False)
    assert first.status_code == 303
    assert "HttpOnly" in first.headers["set-cookie"]
    assert own.http.get("/api/facts").status_code == 200  # by the cookie


def test_addresses_are_names_enough_only_where_the_server_listens_to_others() -> None:
    here, everywhere = Hosts(frozenset({"localhost"})), Hosts(frozenset({"localhost"}), addresses=True)
    assert not here.has("10.0.0.7:80")
    assert everywhere.has("10.0.0.7:80")
    assert everywhere.has("[fe80::1]:7860")
    assert not everywhere.has("evil.example:80")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused(page: Page, method: str) -> None:
    assert raw(page, method, "/api/jobs")[0] == 405


def test_a_websocket_is_closed(page: Page) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    asyncio.run(page.app({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ---------------------------------------------------------------- what comes in


def zeros(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, and whose pixels are little."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


SAFETENSORS = b'{"noise":{"dtype":"F32","shape":[1,4,8,8],"data_offsets":[0,1024]}}'
FILES = {
    "nothing": b"",
    "a text": b"hello",
    "a page": b"<!doctype html><script>alert(1)</script>",
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "a bomb": zeros(30000, 30000),
    "a cut PNG": zeros(64, 64)[:60],
    "a PNG of little": zeros(64, 64),
    "a script": b"#!/bin/sh\nid",
    "a pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    "a zip": b"PK\x03\x04" + bytes(100),
    "an inversion without a header": len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS,
    "an inversion that claims much": (2**26).to_bytes(8, "little") + b"{" + bytes(50),
    "an inversion that is none": len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + bytes(1024),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3",
    "an EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
}


@pytest.mark.parametrize("what", FILES)
def test_what_is_no_picture_is_refused_and_not_kept(page: Page, what: str) -> None:
    folder = page.session.keep.folder
    before = inside(folder)
    answer = page.http.post("/api/files", params={"name": "a.png"}, content=FILES[what])
    assert answer.status_code == 400
    assert str(folder) not in answer.text
    assert inside(folder) == before


def test_a_file_over_20_mb_is_refused_by_what_it_says_and_by_what_it_sends(page: Page) -> None:
    big = bytes(keep.MOST_BYTES + 1)
    assert page.http.post("/api/files", content=big).status_code == 413

    def pieces() -> Any:  # chunked, without a length
        yield from (big[k : k + 2**20] for k in range(0, len(big), 2**20))

    assert page.http.post("/api/files", content=pieces()).status_code == 413
    assert not inside(page.session.keep.folder / "coming")
    assert raw(page, "POST", "/api/files", [("host", HOST), ("content-length", "-1")])[0] == 413
    assert raw(page, "POST", "/api/files", [("host", HOST), ("content-length", "9" * 400)])[0] == 413


def test_who_sends_too_much_comes_to_read_why(served: str) -> None:
    host, big = served.partition("//")[2].rstrip("/"), bytes(keep.MOST_BYTES + 2**22)
    pieces = [big[k : k + 2**20] for k in range(0, len(big), 2**20)]
    for headers, body in (({}, big), ({}, iter(pieces)), ({"content-length": "99999999999"}, big[: 2**22])):
        asked = http.client.HTTPConnection(host, timeout=30)
        asked.request("POST", "/api/files?name=big.png", body, headers, encode_chunked=not isinstance(body, bytes))
        answer = asked.getresponse()
        assert (answer.status, "20 MB" in answer.read().decode()) == (413, True)
        asked.close()


def test_a_body_that_does_not_come_is_given_up(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CHUNK_SECONDS", 0.1)
    for target in ("/api/files", "/api/jobs"):
        status = asyncio.run(asked(page.app, "POST", target, [("host", HOST)], [b"\x89PNG"], slow=30.0))[0]
        assert status in (400, 408), target
    assert not inside(page.session.keep.folder / "coming")


def test_a_body_that_drips_is_given_up_after_a_while(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    drops = [b"\x89"] * 1000
    assert asyncio.run(asked(page.app, "POST", "/api/files", [("host", HOST)], drops, slow=0.05))[0] == 408


BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "deep": b"[" * 30_000,
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "half a letter": b'{"prompt": "\\ud800"}',
    "a huge number": b'{"steps": 1' + b"0" * 6000 + b"}",
    "infinity": b'{"strength": Infinity}',
    "nan": b'{"strength": NaN}',
    "an unknown field": b'{"output": "/etc/passwd"}',
    "a path as a model": b'{"kind": "sample", "model": "/etc"}',
    "a folder as a model": b'{"kind": "sample", "model": "../../models"}',
    "an address as a model": b'{"kind": "sample", "model": "http://evil.example/m"}',
    "a hub id": b'{"kind": "sample", "model": "somebody/something"}',
    "a path as a source": b'{"source": "../../../etc/passwd"}',
    "a strange source": b'{"source": {"a": 1}}',
    "a strange kind": b'{"kind": "rm"}',
    "many steps": b'{"kind": "sample", "steps": 99999999999}',
    "negative steps": b'{"kind": "sample", "steps": -1}',
    "a long prompt": json.dumps({"kind": "sample", "prompt": "a" * 2001}).encode(),
    "much": json.dumps({"prompt": "a" * 70_000}).encode(),
    "many settings": json.dumps({"settings": {str(k): "1" for k in range(65)}}).encode(),
}


@pytest.mark.parametrize("what", BODIES)
def test_a_job_that_is_none_is_refused(page: Page, what: str) -> None:
    before = inside(page.session.keep.folder)
    answer = page.http.post("/api/jobs", content=BODIES[what], headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]
    assert inside(page.session.keep.folder) == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"steps": -5}, "“Steps” (steps) is at least 0; got -5"),
        ({"steps": 2.5}, "“Steps” (steps) is a whole number; got 2.5"),
        ({"strength": "much"}, "“Strength” (strength) is a number; got 'much'"),
        ({"settings": {"lr": 1}}, "settings.lr is a text; got 1"),
        ({"methods": "ddim"}, "“Methods to compare” (methods) is a list; got 'ddim'"),
        ({"output": "/etc"}, "output is nothing that a job has"),
    ],
)
def test_what_has_the_wrong_form_is_said_in_the_words_of_the_page(page: Page, asked: Any, said: str) -> None:
    answer = page.http.post("/api/jobs", json=asked)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)


def test_a_job_as_a_form_which_any_page_could_send_is_refused(page: Page) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        body = json.dumps({"kind": "sample"}).encode()
        assert page.http.post("/api/jobs", content=body, headers={"content-type": kind}).status_code == 400, kind


FIELDS: dict[str, dict[str, Any]] = {
    "a mask that is a path": {"mask": "/etc/passwd", "target_prompt": CAPTION},
    "a mask that is an address": {"mask": "http://evil.example/mask.png", "target_prompt": CAPTION},
    "a mask file that is none": {"mask": "file", "mask_file": "../../secret", "target_prompt": CAPTION},
    "a mask without a file": {"mask": "file", "target_prompt": CAPTION},
    "a setting from a file": {"editor": "pix2pix_zero", "editor_settings": {"source_sentences": "@/etc/passwd"}},
    "a setting with a path": {"method": "forward_first", "settings": {"base": "../../x"}},
    "a setting that names a file": {"method": "learned_start", "settings": {"file": "inverse.safetensors"}},
    "a file within a setting": {"method": "easyinv", "settings": {"base": "learned_start", "base.file": "inverse"}},
    "a setting that is an option": {"settings": {"a --overwrite": "1"}},
    "a method that is an option": {"method": "--help"},
    "a fit that is an option": {"fit": "--overwrite"},
    "a schedule of another kind": {"guidance_schedule": "__import__('os')"},
    "a clip of another kind": {"clip": "rm -rf"},
    "methods with commas": {"kind": "compare", "methods": ["ddim,../../x"]},
    "methods without end": {"kind": "compare", "methods": ["ddim"] * 65},
    "an editor that is none": {"editor": "../p2p", "target_prompt": CAPTION},
    "a word that is none": {"prompt": "<script>alert(1)</script>"},
    "markup in the edit": {"target_prompt": '"><img src=x onerror=alert(1)>'},
    "classes that are none": {"class_labels": "$(id)"},
    "a guidance without end": {"guidance_scale": -1e308},
    "a seed too large": {"seed": 2**63},
}


@pytest.mark.parametrize("what", FIELDS)
def test_a_field_that_means_harm_is_refused_before_any_work(page: Page, drawn: bytes, what: str) -> None:
    source = page.send(drawn)["id"]
    before = len(page.http.get("/api/jobs").json()["jobs"])
    answer = page.http.post("/api/jobs", json={"source": source, "prompt": CAPTION, "steps": 2} | FIELDS[what])
    assert 400 <= answer.status_code < 500
    assert str(page.session.keep.folder) not in answer.text
    assert "root:" not in answer.text
    assert len(page.http.get("/api/jobs").json()["jobs"]) == before


def test_no_other_setting_is_a_text_that_could_name_a_file() -> None:
    from unsample import edits, methods
    from unsample.web.asked import OF_FILES

    words = {"blend", "mask_words", "source_sentences", "target_sentences"}  # of prompts; "@FILE" of these is refused
    for table in (methods.METHODS, edits.EDITORS):
        for name, facts in table.items():
            texts = {d.name for d in methods.declarations(facts.factory) if d.kind in (str, list[str])}
            assert texts <= words | {*OF_FILES}, f"{name}: is this the name of a file? then put it into OF_FILES"


def test_a_prompt_that_looks_like_an_option_is_a_prompt(page: Page, drawn: bytes) -> None:
    source = page.send(drawn)["id"]
    job = page.done(source=source, prompt="--overwrite; rm -rf / <b>", steps=1, force=True)
    assert job["asked"]["prompt"] == "--overwrite; rm -rf / <b>"
    assert "'--prompt=--overwrite; rm -rf / <b>'" in job["shell"][0]
    assert from_bytes(page.file(job, "reconstruction")).metadata["prompt"] == "--overwrite; rm -rf / <b>"


def test_the_settings_in_a_png_are_shown_and_not_obeyed(page: Page, drawn: bytes) -> None:
    told = {"model": "/etc", "prompt": "<b>\ud800", "num_inference_steps": "9", "method": ["x"], "seed": True}
    told |= {"guidance_scale": 1e999, "method_settings": {"a": {"name": "b", "settings": {"c": {"name": "d"}}}}}
    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("unsample", json.dumps(told | {"guidance_scale": None}))
    Image.open(io.BytesIO(drawn)).save(buffer, format="PNG", pnginfo=info)
    answer = page.http.post("/api/files", content=buffer.getvalue())
    assert answer.status_code == 201
    settings = answer.json()["settings"]
    assert settings["settings"] == {"a": "b", "a.c": "d"}
    assert not {"steps", "method", "seed", "guidance_scale"} & settings.keys()
    refused = page.http.post("/api/jobs", json={"source": answer.json()["id"], "model": settings["model"]})
    assert refused.status_code == 400


def test_every_answer_carries_the_policy_and_the_server_lives(page: Page) -> None:
    for target in ("/", "/page/script.js", "/api/facts", "/nothing", "/api/jobs/x"):
        headers = page.http.get(target).headers
        assert headers["content-security-policy"].startswith("default-src 'self'"), target
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert page.http.get("/api/facts").json()["version"]


# ---------------------------------------------------------------- by hand, since clients tidy up what they send


def raw(
    page: Page, method: str, target: str, headers: list[tuple[str, str]] | None = None, body: bytes = b""
) -> tuple[int, bytes]:
    """A request as uvicorn would hand it on, its path not tidied."""
    sent = [("host", HOST)] if headers is None else headers
    return asyncio.run(asked(page.app, method, target, sent, [body]))


async def asked(
    app: Guard | Any, method: str, target: str, headers: list[tuple[str, str]], body: list[bytes], slow: float = 0
) -> tuple[int, bytes]:
    from urllib.parse import unquote

    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("utf-8"),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("utf-8")) for name, value in headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7860),
        "root_path": "",
    }
    left, told = list(body), []

    async def receive() -> Any:
        if slow:
            await asyncio.sleep(slow if len(left) < len(body) else 0)
        piece = left.pop(0) if left else b""
        return {"type": "http.request", "body": piece, "more_body": bool(left) or (bool(slow) and len(body) == 1)}

    async def send(message: Any) -> None:
        told.append(message)

    await app(scope, receive, send)
    start = next(m for m in told if m["type"] == "http.response.start")
    return start["status"], b"".join(m.get("body", b"") for m in told if m["type"] == "http.response.body")
