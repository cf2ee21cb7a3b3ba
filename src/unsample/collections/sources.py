"""What a collection is: a folder, a pattern, a list, Parquet tables, tar files, a data set, or what a verb made."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.collections.jobs import ABOUT
from unsample.datasets import DATASETS, open_dataset
from unsample.datasets.folder import Shot, pictures_of, read_shot
from unsample.datasets.item import Dataset
from unsample.datasets.rows import Rows, file_ids, gather
from unsample.errors import BadInput

if TYPE_CHECKING:
    from unsample.collections.opened import Collection

LISTS, TABLES, TARS = (".csv", ".tsv", ".jsonl"), (".parquet",), (".tar",)
KINDS = "a folder, a pattern, a .csv, .tsv or .jsonl list, .parquet, .tar, or a data set such as scenes:200"


def is_collection(given: Sequence[str]) -> bool:
    """Whether this is a collection by itself: one thing that holds many. Files and patterns of pictures are not."""
    if len(given) != 1:
        return False
    text, suffix = given[0], Path(given[0]).suffix.lower()
    return _is_spec(text) or os.path.isdir(text) or suffix in (*LISTS, *TABLES, *TARS)


def open_source(given: Sequence[str]) -> Dataset:
    """A collection, its ids known and no picture opened.

    Args:
        given: one thing that holds many (`KINDS`), or files and patterns of pictures.

    Raises:
        BadInput: there is nothing, nothing that can be read, or a collection that holds no pictures. BadOption: a data
            set that cannot be.
    """
    if not is_collection(given):
        return _files(given)
    text = given[0]
    if _is_spec(text):
        return open_dataset(text)
    suffix = Path(text).suffix.lower()
    if os.path.isdir(text):
        return _folder(Path(text))
    kind = "list" if suffix in LISTS else "parquet" if suffix in TABLES else "webdataset"
    return open_dataset(f"{kind}:{text}")


def saved_inversions(folder: str) -> Collection | None:
    """The collection that `invert` made in a folder; None where there is none.

    Raises:
        BadInput: a collection of another kind.
    """
    if not os.path.isdir(folder) or not os.path.lexists(Path(folder) / ABOUT):
        return None
    from unsample.collections.opened import Collection

    found = Collection(folder)
    if found.keeps != "inversions":
        raise BadInput(
            f"{folder!r} is what {found.verb} made, and holds no inversions; give what 'unsample invert' made"
        )
    return found


def check_apart(given: Sequence[str], output: Path) -> None:
    """Refuse results in the folder that they are made of.

    Raises:
        BadInput: it is one folder.
    """
    if any(os.path.isdir(text) and os.path.realpath(text) == os.path.realpath(output) for text in given):
        raise BadInput(f"{str(output)!r} is the collection itself; choose another folder for what is made of it")


def _is_spec(text: str) -> bool:
    return ":" in text and text.partition(":")[0] in DATASETS


def _folder(folder: Path) -> Dataset:
    if os.path.lexists(folder / ABOUT):
        from unsample.collections.opened import Collection

        return Collection(folder).data()
    if pictures_of(folder) or any((folder / f"{n}{end}").is_file() for n in ("prompts", "metadata") for end in LISTS):
        return open_dataset(f"folder:{folder}")
    for kind, suffix in (("webdataset", TARS[0]), ("parquet", TABLES[0])):
        if any(folder.glob(f"*{suffix}")):
            return open_dataset(f"{kind}:{folder}")
    raise BadInput(
        f"folder {str(folder)!r} holds no pictures, .tar or .parquet files; those further down are named by a pattern, "
        f"such as '{folder}/**/*.png'"
    )


def _files(given: Sequence[str]) -> Rows[Any]:
    """Files and patterns: what a pattern matches is called by its path from where the pattern begins."""
    named: list[tuple[str, str]] = []  # what it is called, and its path
    for text in given:
        if not glob.has_magic(text) or os.path.lexists(text):
            named.append((text, text))
            continue
        fixed = text[: min(text.index(mark) for mark in "*?[" if mark in text)]
        root = os.path.dirname(fixed)
        found = sorted(path for path in glob.glob(text, recursive=True) if os.path.isfile(path))
        if not found:
            raise BadInput(f"no file matches the pattern {text!r}; check the folder and the ending of the names")
        named += [(os.path.relpath(path, root or "."), path) for path in found]
    ids = file_ids([name for name, _ in named])
    listed = zip(ids, (path for _, path in named), strict=True)
    return gather(" ".join(given[:3]), listed, _shot, read_shot)


def _shot(path: str) -> Shot:
    if not os.path.isfile(path):
        what = "a folder, which is a collection by itself" if os.path.isdir(path) else "not there"
        raise BadInput(f"picture {path!r} is {what}")
    return Shot(Path(path))
