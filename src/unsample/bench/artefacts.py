"""The pictures and inversions of a run: written in one step, on the disk and hashed before their row is committed."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unsample.bench.ledger import ARTEFACTS
from unsample.errors import BadInput
from unsample.files import atomic_write, cannot_write
from unsample.metrics.pixels import as_pil

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.results import Inversion


class CannotKeep(BadInput):
    """An artefact cannot be written (a full disk, a folder that is gone): no other batch would fare better."""


def item_folder(model: str, item: str) -> Path:
    """Where the pictures lie that all methods share."""
    return Path(ARTEFACTS, _safe(model), _safe(item))


def cell_folder(model: str, item: str, method: str, guidance: float) -> Path:
    """Where those of one cell lie."""
    return item_folder(model, item) / _safe(f"{method}-w{guidance:g}")


def _safe(name: str) -> str:
    """A name as a file name; one that had to be changed is told apart by a hash of the whole."""
    safe = re.sub(r"[^A-Za-z0-9._()=,-]+", "-", name).strip(".-")[:60]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write_picture(path: Path, picture: Tensor) -> str:
    """One picture (3, H, W) in [0, 1] as an 8-bit PNG; its SHA-256."""
    buffer = io.BytesIO()
    as_pil(picture[None])[0].save(buffer, format="PNG")
    with _kept(path):
        atomic_write(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def write_inversion(path: Path, inversion: Inversion) -> str:
    """A saved inversion; its SHA-256."""
    with _kept(path):
        inversion.save(path)
    return hash_of(path)


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    """The folder made, and whatever hinders the writing told apart from what is wrong with a batch."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise CannotKeep(str(cannot_write(path.parent, error, kind="folder"))) from error
    except BadInput as error:
        raise CannotKeep(str(error)) from error
