"""Does `unsample serve` hold under load? Every figure is of one run of this command, against a server of its own.

    python -m benchmarks.serve_load [mixed] [memory] [--model NAME]

`mixed`: 200 requests of every kind from 16 clients at once; each client holds what it gets against what it asked for:
the job's own words, the settings in its PNG, the hash of the source in its inversion. `memory`: the server's resident
memory over 300 jobs. Ends with 1 where a request was lost or mixed up, or memory grew by more than 5 %.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from benchmarks.common import show
from unsample.datasets import Scenes
from unsample.media.pictures import from_bytes
from unsample.verbs.saved import read_header

CLIENTS, REQUESTS, JOBS = 16, 200, 300
ENDED = ("done", "failed", "cancelled")
GROWTH = 0.05  # of memory, from the third of the jobs after the first ones to the last third
WARM = 50  # jobs that are not looked at
EVERY = 10  # jobs between two looks
SIDE = 32


@dataclass
class Server:
    """A server in a process of its own, and how it is asked."""

    process: subprocess.Popen[str]
    host: str
    port: int

    def ask(self, method: str, path: str, body: Any = None, name: str = "") -> tuple[int, Any]:
        """Status, and what was answered: JSON as what it stands for."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=300)
        try:
            sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, sent, {"content-type": "application/json"} if sent else {})
            answer = connection.getresponse()
            content = answer.read()
            is_json = answer.headers["content-type"] == "application/json"
            return answer.status, json.loads(content) if is_json else content
        finally:
            connection.close()

    def ended(self, id: str) -> dict[str, Any]:
        """A job once it has ended."""
        while True:
            status, told = self.ask("GET", f"/api/jobs/{id}")
            if status != 200 or told["state"] in ENDED:
                return told | {"status": status}
            time.sleep(0.05)

    def memory(self) -> float:
        """Resident, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def server(model: str) -> Iterator[Server]:
    """Started, and ended."""
    command = [sys.executable, "-m", "unsample", "serve", "--port", "0", "--model", model]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        place = urlsplit(process.stderr.readline().split()[1])
        assert place.hostname is not None
        assert place.port is not None
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield Server(process, place.hostname, place.port)
    finally:
        process.terminate()
        process.wait(30)


def scene(seed: int) -> tuple[bytes, str, str]:
    """A picture as a PNG, its caption, and the hash that an inversion of it records."""
    item = Scenes("tune", 1, start=seed, size=SIDE)[0]
    image = Image.fromarray((item.image.permute(1, 2, 0) * 255).round().byte().numpy())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue(), item.scene.caption, from_bytes(buffer.getvalue()).sha256


@dataclass
class Found:
    """What the clients found."""

    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)


def one(asked: Server, model: str, number: int, found: Found) -> None:
    """One request of a client, of a kind that follows from its number, and all that it leads to."""
    kind = ("invert", "sample", "invert", "cancel", "wrong", "read")[number % 6]
    found.counts[kind] += 1
    if kind == "wrong":
        status, _ = asked.ask("POST", "/api/jobs", {"model": model, "steps": -number})
        if status != 400:
            found.lost.append(f"{number}: a wrong request was answered {status}")
        return
    if kind == "read":
        if any(asked.ask("GET", path)[0] != 200 for path in ("/", "/api/facts", "/api/jobs", "/page/script.js")):
            found.lost.append(f"{number}: a page was not sent")
        return
    content, caption, sha256 = scene(number)
    wanted: dict[str, Any] = {"model": model, "prompt": caption, "seed": number, "steps": 2 + number % 3}
    if kind == "sample":
        wanted["kind"] = "sample"
    else:
        status, sent = asked.ask("POST", f"/api/files?name=scene-{number}.png", content)
        if status != 201:
            found.lost.append(f"{number}: its picture was answered {status}")
            return
        wanted |= {"source": sent["id"], "method": "random_noise" if number % 4 else "ddim"}
    while (answer := asked.ask("POST", "/api/jobs", wanted))[0] == 429:
        found.counts["told to wait (429)"] += 1
        time.sleep(random.uniform(0.05, 0.3))
    status, job = answer
    if status != 202:
        found.lost.append(f"{number}: its job was answered {status} {job}")
        return
    if kind == "cancel":
        asked.ask("DELETE", f"/api/jobs/{job['id']}")
    told = asked.ended(job["id"])
    allowed = ("cancelled", "done") if kind == "cancel" else ("done",)
    if told.get("state") not in allowed:
        found.lost.append(f"{number}: it ended as {told.get('state')}: {told.get('error')}")
    elif told["state"] == "done":
        compared(asked, number, wanted, told, sha256, found)


def compared(
    asked: Server, number: int, wanted: dict[str, Any], told: dict[str, Any], sha256: str, found: Found
) -> None:
    """What came back against what was asked."""
    same = all(told["asked"][name] == value for name, value in wanted.items())
    name = "picture" if wanted.get("kind") == "sample" else "reconstruction"
    status, content = asked.ask("GET", f"/api/jobs/{told['id']}/files/{name}")
    settings = from_bytes(content).metadata if status == 200 else {}
    same &= settings.get("seed") == wanted["seed"] and settings.get("prompt") == wanted["prompt"]
    if name == "reconstruction":
        status, content = asked.ask("GET", f"/api/jobs/{told['id']}/files/inversion")
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(content)
            file.flush()
            same &= status == 200 and read_header(file.name)["meta"]["source_sha256"] == [sha256]
    if not same:
        found.mixed.append(f"{number}: {settings}")


def mixed(asked: Server, model: str) -> bool:
    """200 requests from 16 clients; whether none was lost and none mixed up."""
    found, begin = Found(), time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for each in [clients.submit(one, asked, model, number, found) for number in range(REQUESTS)]:
            each.result()
    rows: list[tuple[str, object]] = [(f"requests: {kind}", count) for kind, count in sorted(found.counts.items())]
    rows += [("lost", len(found.lost)), ("mixed up", len(found.mixed))]
    rows.append(("seconds", time.perf_counter() - begin))
    show(f"{REQUESTS} requests from {CLIENTS} clients, {model}", ("", "found"), rows)
    for text in [*found.lost, *found.mixed]:
        print(text, file=sys.stderr)
    return not found.lost and not found.mixed


def memory(asked: Server, model: str) -> bool:
    """Resident memory over 300 jobs; whether it is flat from the 50th on."""
    content, caption, _ = scene(0)
    seen: dict[int, float] = {}
    for number in range(1, JOBS + 1):
        _, sent = asked.ask("POST", "/api/files?name=scene.png", content)
        _, job = asked.ask("POST", "/api/jobs", {"model": model, "source": sent["id"], "prompt": caption, "steps": 2})
        told = asked.ended(job["id"])
        assert told["state"] == "done", told["error"]
        if number > WARM and number % EVERY == 0:
            seen[number] = asked.memory()
    sizes, third = list(seen.values()), len(seen) // 3
    first, last = median(sizes[:third]), median(sizes[-third:])
    rows: list[tuple[str, object]] = [
        (f"median over {third} looks after job {WARM}, MiB", first),
        (f"median over the last {third} looks of {JOBS} jobs, MiB", last),
        ("least and most of all, MiB", f"{min(sizes):.0f} to {max(sizes):.0f}"),
        ("growth", f"{last / first - 1:.1%}"),
    ]
    show(f"Memory of the server over {JOBS} jobs, {model}", ("", "found"), rows)
    return last / first - 1 <= GROWTH


CHECKS = {"mixed": mixed, "memory": memory}


def main() -> int:
    """Run what is asked, all of it by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*CHECKS, []], help="default: all")
    parser.add_argument("--model", default="scenes-mixture")
    given = parser.parse_args()
    sound = True
    with server(given.model) as asked:
        for name in given.what or CHECKS:
            sound &= CHECKS[name](asked, given.model)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
