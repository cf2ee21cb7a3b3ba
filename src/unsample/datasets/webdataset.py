"""`webdataset`: tar files in which the members of a sample have one name: `0007.jpg`, `0007.txt`, `0007.json`.

Only the headers are read beforehand; a picture is read from its place when its turn comes, and nothing is unpacked.
A prompt is `NAME.txt` (or caption, text, prompt), or a key of `NAME.json`; `NAME.target.txt` is that of an edit, and
`NAME.mask.png` where it may change the picture.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from unsample.datasets.folder import COLUMNS, is_picture, item_of
from unsample.datasets.index import MAX_LINE, find_columns
from unsample.datasets.item import Item
from unsample.datasets.limits import capped
from unsample.datasets.rows import Rows, files_at, gather, safe_id, text
from unsample.datasets.spec import Spec
from unsample.errors import BadInput

PROMPTS, TARGETS, MASKS = ("txt", "caption", "text", "prompt"), ("target.txt", "target_prompt"), ("mask.png",)


@dataclass(frozen=True, slots=True)
class Member:
    """Where a file lies in a tar."""

    file: Path
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        """Its content.

        Raises:
            BadInput: it is not there any more, or cut short.
        """
        try:
            with open(self.file, "rb") as opened:
                opened.seek(self.start)
                content = opened.read(self.size)
        except OSError as error:
            raise BadInput(f"{str(self.file)!r} cannot be read: {error.strerror or error}") from error
        if len(content) < self.size:
            raise BadInput(f"{str(self.file)!r} ends within {self.name!r}; get the file again")
        return content


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture in a tar, and what stands beside it."""

    picture: Member
    prompt: str | None = None
    target_prompt: str | None = None
    mask: Member | None = None


@dataclass(slots=True)
class _Found:
    """The members of one sample; of texts their content."""

    picture: Member | None = None
    mask: Member | None = None
    texts: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None


def open_webdataset(spec: Spec, size: int) -> Rows[Sample]:
    """Samples in the order of the files and of their names in each."""
    assert spec.first is not None
    files = files_at(spec.first, ".tar", "webdataset")
    listed = ((safe_id(key), found) for file in files for key, found in capped(_samples(file), file))
    return gather(spec.written(), listed, _check, read_sample, spec.limit)


def members_of(file: Path) -> Iterator[Member]:
    """Every ordinary file of a tar, by its header.

    Raises:
        BadInput: it is no tar, or damaged.
    """
    try:
        with tarfile.open(file, "r:") as opened:
            while (about := opened.next()) is not None:
                opened.members = []  # type: ignore[attr-defined]  # it keeps them all
                if about.isreg() and not about.sparse:
                    yield Member(file, about.name, about.offset_data, about.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise BadInput(
            f"{str(file)!r} is no tar, compressed, or damaged: {error}; a compressed one is read when it is "
            "unpacked to .tar, since pictures are read from their places in it"
        ) from error


def read_sample(id: str, sample: Sample) -> Item:
    """The item of a sample."""
    from unsample.media.masks import mask_of_picture
    from unsample.media.pictures import from_bytes

    picture = from_bytes(sample.picture.read(), sample.picture.name)
    drawn = None if sample.mask is None else from_bytes(sample.mask.read(), sample.mask.name)
    mask = None if drawn is None else mask_of_picture(drawn.pixels)
    return item_of(id, picture, mask, sample.prompt, sample.target_prompt)


def _samples(file: Path) -> Iterator[tuple[str, _Found]]:
    """The samples of one tar: members of one name, which may stand apart."""
    found: dict[str, _Found] = {}
    for member in members_of(file):
        folder, _, base = member.name.rpartition("/")
        stem, _, kind = base.partition(".")
        if not stem:
            continue
        key, kind = (f"{folder}/{stem}" if folder else stem).removeprefix("./"), kind.lower()
        sample = found.setdefault(key, _Found())
        if kind in MASKS:
            sample.mask = member
        elif is_picture(f"{stem}.{kind}") and "." not in kind:
            sample.picture = sample.picture or member
        elif kind in (*PROMPTS, *TARGETS, "json"):
            _take(sample, kind, member)
    yield from ((key, sample) for key, sample in found.items() if sample.picture is not None or sample.texts)


def _take(sample: _Found, kind: str, member: Member) -> None:
    try:
        if member.size > MAX_LINE:
            raise ValueError(f"it is over {MAX_LINE // 2**20} MB")
        said = member.read().decode("utf-8")
        if kind == "json":
            told = json.loads(said)
            if not isinstance(told, Mapping):
                raise ValueError("it is no JSON object")
            columns = find_columns(told, {k: v for k, v in COLUMNS.items() if k.endswith("prompt")}, member.name)
            sample.texts |= {ours: told[theirs] for ours, theirs in columns.items() if ours not in sample.texts}
        else:
            sample.texts["target_prompt" if kind in TARGETS else "source_prompt"] = said
    except (ValueError, RecursionError, BadInput) as error:
        sample.reason = f"{member.name}: {error}"


def _check(found: _Found) -> Sample:
    if found.reason is not None:
        raise BadInput(found.reason)
    if found.picture is None:
        raise BadInput("there is no picture of that name beside its text")
    told = partial(text, found.texts)
    return Sample(found.picture, told("source_prompt"), told("target_prompt"), found.mask)
