"""The pictures and inversions of a run: written in one step, on the disk and hashed before their row is committed.

What a row says of them is read here and nowhere else: a file of the run folder, reached through no link.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unsample.bench.parts import Part
from unsample.bench.plan import generated
from unsample.bench.rows import ARTEFACTS
from unsample.errors import BadInput
from unsample.media.files import atomic_write, cannot_write, inside, open_inside

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.verbs.results import Inversion


class CannotKeep(BadInput):
    """An artefact cannot be written (a full disk, a folder that is gone): no other batch would fare better."""


def item_folder(part: Part, item: str) -> Path:
    """Where the pictures lie that all methods share; those that the model makes are others at other settings."""
    home = Path(ARTEFACTS, _safe(part.model), _safe(part.dataset), _safe(item))
    return home / f"steps{part.steps}-w{part.guidance:g}" if generated(part.dataset) else home


def cell_folder(part: Part, item: str) -> Path:
    """Where those of one cell lie."""
    own = f"{part.method}-steps{part.steps}-w{part.guidance:g}" + (f"-{part.edits}" if part.edits else "")
    return item_folder(part, item) / _safe(own)


def _safe(name: str) -> str:
    """A name as a file name; one that had to be changed is told apart by a hash of the whole."""
    safe = re.sub(r"[^A-Za-z0-9._()=,-]+", "-", name).strip(".-")[:60]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write_picture(folder: Path, name: Path, picture: Tensor) -> str:
    """One picture (3, H, W) in [0, 1] as an 8-bit PNG in a run folder; its SHA-256."""
    from unsample.metrics.pixels import as_pil

    buffer = io.BytesIO()
    as_pil(picture[None])[0].save(buffer, format="PNG")
    with kept(folder, name) as path:
        atomic_write(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def write_inversion(folder: Path, name: Path, inversion: Inversion) -> str:
    """A saved inversion in a run folder; its SHA-256."""
    with kept(folder, name) as path:
        inversion.save(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path, artefact: Mapping[str, str]) -> str | None:
    """Why a file of a row is not what was written; None where it is."""
    try:
        with open_inside(folder, artefact["path"]) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{artefact['path']} is missing"
    except BadInput as error:
        return str(error)
    return None if found == artefact["sha256"] else f"{artefact['path']} is not what was written"


def copy(folder: Path, artefact: Mapping[str, str], into: Path) -> None:
    """Copy a file of a row to another run folder; nothing is put there unless it is what was written.

    Raises:
        BadInput: it is not, or it cannot be written.
    """

    def write(temporary: Path) -> None:
        content = hashlib.sha256()
        try:
            with open_inside(folder, artefact["path"]) as source, temporary.open("wb") as target:
                while block := source.read(2**20):
                    content.update(block)
                    target.write(block)
        except FileNotFoundError as error:
            raise BadInput(f"{artefact['path']} is missing") from error
        if content.hexdigest() != artefact["sha256"]:
            raise BadInput(f"{artefact['path']} is not what was written")

    with kept(into, Path(artefact["path"])) as path:
        atomic_write(path, write)


@contextmanager
def kept(folder: Path, name: Path) -> Iterator[Path]:
    """The place of a file, its folder made, and whatever hinders the writing told apart from a batch's own faults."""
    try:
        path = inside(folder, name.as_posix())
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        raise CannotKeep(str(cannot_write(folder / name.parent, error, kind="folder"))) from error
    except BadInput as error:
        raise CannotKeep(str(error)) from error
