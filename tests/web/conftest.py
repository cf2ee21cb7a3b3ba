"""A server in this process, and one of its own that a browser can ask. Only this machine is asked."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra web")
pytest.importorskip("uvicorn", reason="needs the extra web")

from starlette.testclient import TestClient

from unsample.web.facts import models
from unsample.web.guard import Hosts
from unsample.web.server import Served, Session, guarded

CAPTION = "a large red circle at the center on a white background"
BLUE = CAPTION.replace("red", "blue")
HOST = "127.0.0.1:7860"
ENDED = ("done", "failed", "cancelled")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the one for every test: this machine may be asked, and no other."""
    for name in ("connect", "connect_ex"):
        allowed = getattr(socket.socket, name)

        def guarded_connect(self: socket.socket, address: Any, _allowed: Any = allowed) -> Any:
            if self.family != getattr(socket, "AF_UNIX", None) and address[0] != "127.0.0.1":
                raise RuntimeError(f"a test tried to reach the network: {address!r}")
            return _allowed(self, address)

        monkeypatch.setattr(socket.socket, name, guarded_connect)


class Page:
    """A client as the page is one."""

    def __init__(self, session: Session) -> None:
        self.session, self.app = session, guarded(session)
        self.http = TestClient(self.app, base_url=f"http://{HOST}", raise_server_exceptions=False)

    def send(self, content: bytes, name: str = "scene.png") -> dict[str, Any]:
        answer = self.http.post("/api/files", params={"name": name}, content=content)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def ask(self, **asked: Any) -> dict[str, Any]:
        answer = self.http.post("/api/jobs", json=asked)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def ended(self, job: dict[str, Any], within: float = 600) -> dict[str, Any]:
        end = time.monotonic() + within
        while time.monotonic() < end:
            told = self.http.get(f"/api/jobs/{job['id']}").json()
            if told["state"] in ENDED:
                return told
            time.sleep(0.02)
        raise AssertionError(f"not ended after {within} s: {told}")

    def done(self, **asked: Any) -> dict[str, Any]:
        told = self.ended(self.ask(**asked))
        assert told["state"] == "done", told["error"]
        return told

    def file(self, job: dict[str, Any], name: str) -> bytes:
        answer = self.http.get(f"/api/jobs/{job['id']}/files/{name}")
        assert answer.status_code == 200, answer.text
        return answer.content


@pytest.fixture(scope="module")
def make_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Page]]:
    made: list[Session] = []

    def make(**served: Any) -> Page:
        folder = tmp_path_factory.mktemp("session")
        hosts = Hosts(frozenset({"127.0.0.1", "localhost"}))
        made.append(Session(Served(folder, models(()), **({"hosts": hosts} | served))))
        return Page(made[-1])

    yield make
    for session in made:
        session.close()


@pytest.fixture(scope="module")
def page(make_page: Callable[..., Page]) -> Page:
    return make_page()


@pytest.fixture(scope="session")
def drawn() -> bytes:
    """A scene as a PNG, without settings."""
    import io

    from PIL import Image

    from unsample.datasets import Scenes

    image = (Scenes("tune", 1)[0].image.permute(1, 2, 0) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `unsample serve` in a process of its own."""
    runs = tmp_path_factory.mktemp("runs")
    (runs / "one").mkdir()
    (runs / "one" / "report.html").write_text("<title>A report of one run</title><p>Its figures</p>", encoding="utf-8")
    yield from serving("--reports", str(runs))


def serving(*arguments: str, **environment: str) -> Iterator[str]:
    """Start it, give its address, end it."""
    command = [sys.executable, "-m", "unsample", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", line := process.stderr.readline())
        assert found, line
        yield found[0]
    finally:
        process.terminate()
        assert process.wait(30) is not None


def inside(folder: Path) -> set[Path]:
    """Every file under a folder."""
    return {path for path in folder.rglob("*") if path.is_file()}
