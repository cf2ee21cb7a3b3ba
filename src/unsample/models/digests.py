"""The hash of a folder's weights: read part by part, and remembered while the files stay as they are.

What is remembered lies in `$UNSAMPLE_CACHE`, else `$XDG_CACHE_HOME/unsample`, else `~/.cache/unsample`: a small JSON a
folder, with the name, size and time of change of every file that counts. Where it cannot be written, it is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unsample.models.families import read_json

VARIABLE = "UNSAMPLE_CACHE"


def cache_folder() -> Path:
    """Where what is remembered between runs lies."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "unsample"


class Remembered:
    """The hash of some parts of a folder, as it was when the files were these.

    Args:
        folder: of the pipeline.
        parts: of it, by name: folders, or files.
        note: what else the hash depends on (a variant of the weights).
    """

    def __init__(self, folder: Path, parts: Sequence[str], note: str = "") -> None:
        self.folder, self.parts = folder, sorted(parts)
        # the names of tensors are those of the libraries' classes
        self.note = [note, *(f"{name} {version(name)}" for name in ("diffusers", "transformers"))]
        self.files = self._files()

    def sha256(self) -> str | None:
        """The hash; None where it is not known, or a file has changed."""
        with suppress(OSError, RuntimeError):  # RuntimeError: there is no home
            found = read_json(self._path())
            if found.get("files") == self.files and found.get("note") == self.note:
                sha256 = found.get("sha256")
                return sha256 if isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) else None
        return None

    def keep(self, sha256: str) -> None:
        """Remember it, unless a file has changed since this was made."""
        if self._files() != self.files:
            return
        with suppress(OSError, RuntimeError):
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
                json.dump({"files": self.files, "note": self.note, "sha256": sha256}, file)
            try:
                os.replace(file.name, path)
            except OSError:
                os.unlink(file.name)

    def _path(self) -> Path:
        name = hashlib.sha256("\n".join([str(self.folder.resolve()), *self.parts]).encode("utf-8", "replace"))
        return cache_folder() / "weights" / f"{name.hexdigest()}.json"

    def _files(self) -> list[list[Any]]:
        """Path, size and time of change of every file of weights and of their configs."""
        found = []
        for part in self.parts:
            place = self.folder / part
            inside = sorted(p for p in place.glob("*") if p.suffix in (".safetensors", ".json"))
            for path in inside if place.is_dir() else [place]:
                with suppress(OSError):
                    about = path.stat()
                    found.append([str(path.relative_to(self.folder)), about.st_size, about.st_mtime_ns])
        return found


def folder_sha256(modules: Mapping[str, Any]) -> str:
    """The hash of a pipeline from its parts, each of which is read when it is reached and given up after it.

    Args:
        modules: prefix ("unet.") to a function that reads the module as it is stored.
    """
    from unsample.models.base import update_digest
    from unsample.models.weights import effective_state

    digest = hashlib.sha256()
    for prefix in sorted(modules):  # the order of all the tensors' names
        update_digest(digest, {f"{prefix}{name}": value for name, value in effective_state(modules[prefix]()).items()})
    return digest.hexdigest()
