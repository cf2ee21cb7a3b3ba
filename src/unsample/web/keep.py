"""The folder of a session: what was sent to it, and what jobs wrote. Files are asked for by ids that we made.

No name that comes from outside is ever joined to a path: a sent file's name is rebuilt from its letters, and only names
what a download is called.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unsample.errors import BadInput
from unsample.media.files import base_name
from unsample.media.formats import SUFFIXES

MOST_BYTES = 20 * 2**20  # of a file that is sent
MOST_FILES = 64  # that are kept; the one that was sent first goes first, and jobs have links of their own
PREVIEW = 1024  # longest side of what the page shows of a picture
SAVED = ".safetensors"


def fresh_id() -> str:
    """A name that nobody can guess."""
    return secrets.token_urlsafe(12)


@dataclass(frozen=True)
class KeptFile:
    """A picture or an inversion that was sent, sound as far as its reader can tell."""

    id: str
    path: Path
    kind: str  # "picture" or "inversion"
    size: tuple[int, int] | None
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)  # for the page's fields
    made: str = ""  # what it says of itself, in a line

    @property
    def preview(self) -> Path:
        """A PNG of it, made by us."""
        return self.path.parent / "preview.png"

    def told(self) -> dict[str, Any]:
        """For the page."""
        names = ("id", "kind", "size", "notes", "settings", "made")
        return {"name": self.path.name, **{name: getattr(self, name) for name in names}}


class Keep:
    """What a session holds on disk.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._files: OrderedDict[str, KeptFile] = OrderedDict()
        self._lock = threading.Lock()
        for name in ("sent", "jobs", "coming"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def coming(self) -> Path:
        """Where a file is written to while it comes in."""
        return self.folder / "coming" / fresh_id()

    def take(self, coming: Path, name: str) -> KeptFile:
        """Take in a file that has come whole; it is gone from where it was, whatever happens.

        Raises:
            BadInput: it is no picture and no inversion that can be read.
        """
        id = fresh_id()
        folder = self.folder / "sent" / id
        try:
            folder.mkdir()
            kept = _read(coming, folder, id, name)
        except BadInput as error:
            shutil.rmtree(folder, ignore_errors=True)
            said = str(error).replace(str(coming), f"{plain_name(name)}{_suffix(name)}").replace(f"{folder}/", "")
            raise BadInput(said) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            coming.unlink(missing_ok=True)
        with self._lock:
            self._files[id] = kept
            old = [self._files.popitem(last=False)[1] for _ in range(len(self._files) - MOST_FILES)]
        for file in old:
            shutil.rmtree(file.path.parent, ignore_errors=True)
        return kept

    def file(self, id: str) -> KeptFile | None:
        """A file that was sent; None where there is none of that id."""
        with self._lock:
            return self._files.get(id)

    def job_folder(self, id: str) -> Path:
        """A new folder for a job; `id` is one of ours."""
        folder = self.folder / "jobs" / id
        folder.mkdir()
        return folder

    def link(self, file: KeptFile, folder: Path, name: str) -> None:
        """Put a file that was sent into a job's folder, where it stays as long as the job."""
        try:
            os.link(file.path, folder / name)
        except FileNotFoundError as error:
            gone = "that picture is gone from the session, which keeps the last that were sent; send it again"
            raise BadInput(gone) from error
        except OSError:  # a file system without links
            shutil.copyfile(file.path, folder / name)


def plain_name(name: str) -> str:
    """A stem of letters, digits, spaces, dots and dashes, made of a name from outside."""
    stem = Path(base_name(name)).stem if base_name(name) else ""
    kept = re.sub(r"[^\w .()-]+", "-", stem).strip(" .-")[:60].strip(" .-")
    return kept or "picture"


def _suffix(name: str) -> str:
    """The suffix of a name from outside, of letters and digits; "" where it has none of that kind."""
    found = Path(base_name(name)).suffix.lower()
    return found if re.fullmatch(r"\.[a-z0-9]{1,12}", found) else ""


def _read(coming: Path, folder: Path, id: str, name: str) -> KeptFile:
    stem, suffix = plain_name(name), _suffix(name)
    from unsample.media.pictures import open_picture, starts_like_a_picture

    with open(coming, "rb") as file:
        head = file.read(16)
    if head[8:9] == b"{" and not starts_like_a_picture(head):
        return _inversion(coming, folder, id, stem)
    picture = open_picture(coming)
    small = picture.pixels.copy()
    small.thumbnail((PREVIEW, PREVIEW))
    small.info = {}
    small.save(folder / "preview.png", format="PNG")
    from unsample.web.settings import of_picture

    path = folder / f"{stem}{suffix if suffix in SUFFIXES else '.png'}"
    coming.rename(path)
    settings, made = of_picture(picture.metadata)
    return KeptFile(id, path, "picture", picture.pixels.size, picture.notes, settings, made)


def _inversion(coming: Path, folder: Path, id: str, stem: str) -> KeptFile:
    from PIL import Image

    from unsample.cli.places import open_one_inversion
    from unsample.web.settings import of_inversion

    path = folder / f"{stem}{SAVED}"
    coming.rename(path)
    recorded, size = open_one_inversion(str(path)), None
    if (source := stored(path, "source")) is not None:
        image = Image.fromarray(source[0])
        size = image.size
        image.save(folder / "preview.png", format="PNG")
    settings, made = of_inversion(recorded.meta)
    return KeptFile(id, path, "inversion", size, (), settings, made)


def stored(path: Path, name: str) -> Any:
    """A tensor of a saved inversion, as numpy has it; None where it has none of that name."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.get_tensor(name) if name in file.keys() else None  # noqa: SIM118
