"""What is compared: two files, those of two folders matched by name, or a folder's and the items of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unsample.errors import BadInput
from unsample.media.formats import SUFFIXES

if TYPE_CHECKING:
    from unsample.datasets.item import Item

PROMPT_COLUMNS = {"prompts": "source_prompt", "target_prompts": "target_prompt"}


@dataclass(frozen=True)
class Pair:
    """The files that belong to one picture, by the field of `metrics.Subject` that each fills, and its texts."""

    name: str
    files: Mapping[str, Path]
    texts: Mapping[str, str] = field(default_factory=dict)
    item: Callable[[], Item] | None = None  # what a data set knows of it, opened when its turn comes


@dataclass(frozen=True)
class Matched:
    """What was found in two folders; a single pair where two files were given."""

    pairs: list[Pair]
    unmatched: Mapping[str, list[str]]  # field to names


def match(sides: Mapping[str, str]) -> Matched:
    """Match files or folders, each under the field that it fills; the first one leads.

    Raises:
        BadInput: nothing there, a file beside a folder, or no name in common.
    """
    paths = {side: Path(path) for side, path in sides.items()}
    for path in paths.values():
        if not path.exists():
            raise BadInput(f"{str(path)!r} is not there; give a picture or a folder of pictures")
    kinds = {path.is_dir() for path in paths.values()}
    if len(kinds) > 1:
        listed = ", ".join(f"{str(p)!r} is a {'folder' if p.is_dir() else 'file'}" for p in paths.values())
        raise BadInput(f"files are compared with files and folders with folders; {listed}")
    if kinds == {False}:
        first = next(iter(paths.values()))
        return Matched([Pair(first.name, paths)], {})
    return _match_folders(paths)


def _match_folders(paths: Mapping[str, Path]) -> Matched:
    found = {side: _pictures(folder) for side, folder in paths.items()}
    for side, files in found.items():
        if not files:
            raise BadInput(f"folder {str(paths[side])!r} holds no pictures ({', '.join(SUFFIXES)})")
    leading = next(iter(found.values()))
    taken: dict[str, set[Path]] = {side: set() for side in found}
    pairs = []
    for name, path in leading.items():
        partners = {side: path if files is leading else _partner(name, files) for side, files in found.items()}
        if all(partners.values()):
            files = {side: file for side, file in partners.items() if file is not None}
            pairs.append(Pair(name, files))
            for side, file in files.items():
                taken[side].add(file)
    left = {side: [n for n, f in files.items() if f not in taken[side]] for side, files in found.items()}
    if not pairs:
        few = "; ".join(f"{str(paths[s])!r}: {', '.join(list(files)[:3])} ..." for s, files in found.items())
        raise BadInput(f"the folders have no file name in common: {few}")
    return Matched(pairs, {side: names for side, names in left.items() if names})


def _pictures(folder: Path) -> dict[str, Path]:
    """Every picture below a folder, by its path inside it, in order."""
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    return {f.relative_to(folder).as_posix(): f for f in files if f.is_file()}


def _partner(name: str, files: Mapping[str, Path]) -> Path | None:
    """The file of that name, or of that stem with another kind of picture."""
    if name in files:
        return files[name]
    stem = name.rpartition(".")[0]
    found = (stem + suffix for suffix in SUFFIXES if stem + suffix in files)
    return files.get(next(found, ""))


def match_items(path: str, spec: str) -> Matched:
    """Match a picture, or the pictures of a folder, to the items of a data set, by the stems of their names.

    Raises:
        BadInput: no picture is named after an item. BadOption: no such data set.
    """
    from unsample.datasets.opening import open_dataset
    from unsample.media.pictures import open_picture

    pairs = match({"images": path}).pairs if not Path(path).is_dir() else _match_folders({"images": Path(path)}).pairs
    size = open_picture(pairs[0].files["images"]).pixels.width
    dataset = open_dataset(spec, size=size)
    places = {name: k for k, name in enumerate(dataset.ids)}
    known = [(pair, places.get(Path(pair.name).stem)) for pair in pairs]
    found = [replace(pair, item=partial(dataset.__getitem__, k)) for pair, k in known if k is not None]
    if not found:
        few = ", ".join(list(dataset.ids)[:3])
        raise BadInput(f"no picture of {path!r} is named after an item of {spec}, whose ids are like {few}")
    taken = {k for _, k in known}
    left = {
        "images": [pair.name for pair, k in known if k is None],
        "dataset": [name for name, k in places.items() if k not in taken],
    }
    return Matched(found, {side: names for side, names in left.items() if names})


def with_texts(pairs: Sequence[Pair], texts: Mapping[str, str], table: str | None) -> list[Pair]:
    """The pairs with texts that hold for all, or those of a table of prompts (`folder.COLUMNS`).

    Raises:
        BadInput: the table cannot be read, lacks the column `file`, or says several things of one picture.
    """
    if table is None:
        return [replace(p, texts=dict(texts)) for p in pairs]
    rows: dict[str, list[Mapping[str, str]]] = {}
    for name, own in _rows(Path(table)):
        for key in dict.fromkeys((name, Path(name).stem)):
            rows.setdefault(key, []).append(own)
    found = []
    for pair in pairs:
        names = (pair.name, Path(pair.name).name, Path(pair.name).stem)
        said: list[Mapping[str, str]] = next((rows[name] for name in names if name in rows), [{}])
        if any(own != said[0] for own in said):
            raise BadInput(f"prompts {table!r} have {len(said)} rows of {pair.name!r}; keep the one that is meant")
        found.append(replace(pair, texts={**texts, **said[0]}))
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The file and the texts of every row."""
    from unsample.datasets.folder import COLUMNS
    from unsample.datasets.index import BEYOND, read_table
    from unsample.datasets.rows import text

    for number, row in enumerate(read_table(path, COLUMNS), 1):
        try:
            if isinstance(row, BadInput):
                raise row
            if (file := text(row, "file")) is None or row.get(BEYOND):
                raise BadInput("a column 'file' is needed in every row, beside source_prompt, target_prompt")
            own = {side: said for side, column in PROMPT_COLUMNS.items() if (said := text(row, column))}
        except BadInput as error:
            raise BadInput(f"prompts {str(path)!r}, row {number}: {error}") from error
        yield file.replace("\\", "/"), own
