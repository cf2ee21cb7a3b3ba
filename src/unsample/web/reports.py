"""Reports of benchmarks and studies under a folder, opened as they are.

They are listed by looking through the folder, and only what was listed is sent: a name from outside is looked up in
that list and never made into a path. Links are not followed. A report may have come from elsewhere: it is shown in a
sandbox, where its script can reach nothing of ours.
"""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGES = ("report.html", "index.html")
ENDINGS = {
    ".html": "text/html; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
}
DEPTH = 4  # folders in folders
MOST = 2000  # files
FRESH = 2.0  # seconds for which a list holds
SANDBOX = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Listed:
    """A file that may be sent."""

    path: Path
    kind: str


class Reports:
    """What lies under a folder; nothing where there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._found: dict[str, Listed] = {}
        self._looked = -FRESH

    def listed(self) -> list[dict[str, Any]]:
        """The pages, the newest first: a report of a run, a study, or the index of several."""
        pages = [(name, file) for name, file in self._files().items() if Path(name).name in PAGES]
        told = [(_changed(file.path), name, _title(file.path)) for name, file in pages]
        return [{"name": name, "title": title, "changed": at} for at, name, title in sorted(told, reverse=True)]

    def file(self, name: str) -> Listed | None:
        """A file of the list, by the name that it has there."""
        return self._files().get(name)

    def _files(self) -> dict[str, Listed]:
        with self._lock:
            if self._folder is not None and time.monotonic() - self._looked > FRESH:
                self._found, self._looked = _looked_through(self._folder), time.monotonic()
            return self._found


def _looked_through(folder: Path) -> dict[str, Listed]:
    """Every file of a kind that reports have, beside or under one of their pages, by its name from the folder on."""
    found: dict[str, Listed] = {}
    for at, folders, files in os.walk(folder):  # links to folders are not walked
        here = Path(at)
        parts = here.relative_to(folder).parts
        folders[:] = [] if len(parts) >= DEPTH else sorted(f for f in folders if not f.startswith("."))
        if not {*files} & {*PAGES}:
            continue
        for file in sorted(files):
            path, kind = here / file, ENDINGS.get(Path(file).suffix.lower())
            if kind and not file.startswith(".") and path.is_file() and not path.is_symlink():
                found["/".join((*parts, file))] = Listed(path, kind)
            if len(found) >= MOST:
                return found
    return found


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _title(path: Path) -> str:
    """The title of a page, from its first letters."""
    import html

    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.search(r"<title>(.{1,300}?)</title>", file.read(20_000), re.S)
    except OSError:
        found = None
    return html.unescape(" ".join(found[1].split())) if found else path.name
