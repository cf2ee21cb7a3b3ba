"""A collection that was made, read again: its rows, its inversions, its pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.bench.ledger import Ledger, each_row
from unsample.collections.jobs import ABOUT, KEEPS
from unsample.datasets.item import Item
from unsample.datasets.rows import Rows, gather
from unsample.datasets.webdataset import Sample, members_of, read_sample
from unsample.errors import BadInput
from unsample.media.files import atomic_write, inside, open_inside

if TYPE_CHECKING:
    from PIL.Image import Image

    from unsample.verbs.results import Inversion

FORMAT = 1
MOST = 2**20  # bytes of collection.json


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a saved inversion lies among others."""

    file: Path
    row: int
    kind: str
    digest: str
    stamp: str
    input: str
    target_prompt: str | None


class Collection:
    """What `invert`, `reconstruct`, `edit` or `measure` made of a collection, or has made of it so far.

    Args:
        folder: where it was written.

    Raises:
        BadInput: there is no collection, or a damaged one.

    Example:
        >>> found = unsample.Collection("out")  # doctest: +SKIP
        >>> found["0007"].health[0]["grade"]  # doctest: +SKIP
        'recovered'
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        about = read_about(self.folder)
        if about is None:
            raise BadInput(f"{os.fspath(folder)!r} is no collection: it has no {ABOUT}; give what a verb made of one")
        self.about: Mapping[str, Any] = about
        self._places: dict[str, tuple[str, int]] | None = None

    @property
    def verb(self) -> str:
        """What was done."""
        return str(self.about["asked"]["verb"])

    def made_with(self) -> dict[str, Any]:
        """What results of another verb, that is given these, depend on: what was asked, and of which weights."""
        return {"model_sha256": self.about.get("model_sha256"), **self.about["asked"]}

    @property
    def keeps(self) -> str | None:
        """What its shards hold: "inversions", "pictures", or None."""
        return KEEPS.get(self.verb)  # type: ignore[call-overload]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row, by its name: `name`, `input`, `status`, `reason`, `values`, `shard`, `row`, ...

        Raises:
            BadInput: a row is not what was written.
        """
        return each_row(self.folder)

    def __len__(self) -> int:
        return sum(1 for _ in self.rows())

    def __getitem__(self, name: str) -> Inversion | Image:
        """The inversion, or the picture, of a name.

        Raises:
            KeyError: nothing is kept under that name.
        """
        if self._places is None:
            self._places = {row["name"]: (row["shard"], row["row"]) for row in self.rows() if row.get("shard")}
        shard, place = self._places[name]
        path = inside(self.folder, shard)
        if self.keeps == "inversions":
            return _loaded(path, path.stat().st_mtime_ns)[place]
        found: Image = read_sample(name, Sample(list(members_of(path))[place])).image
        return found

    def data(self) -> Rows[Any]:
        """What it holds as a data set, so that another verb can go over it."""
        kept = [row for row in self.rows() if row.get("shard")]
        if self.keeps == "inversions":
            kept.sort(key=lambda row: (row["shard"], row["row"]))  # neighbours share a file
            return gather(str(self.folder), ((row["name"], row) for row in kept), self._inversion, read_kept)
        if self.keeps != "pictures":
            raise BadInput(f"{str(self.folder)!r} is what {self.verb} made, and holds no pictures")
        shards = dict.fromkeys(row["shard"] for row in kept)
        members = {shard: list(members_of(inside(self.folder, shard))) for shard in shards}

        def sample(row: Mapping[str, Any]) -> Sample:
            return Sample(members[row["shard"]][row["row"]], row.get("prompt"), row.get("target_prompt"))

        return gather(str(self.folder), ((row["name"], row) for row in kept), sample, read_sample)

    def _inversion(self, row: Mapping[str, Any]) -> Kept:
        path = inside(self.folder, row["shard"])
        about = (row["row"], row["kind"], row["digest"], row["stamp"], f"{path}:{row['row']}")
        return Kept(path, *about, row.get("target_prompt"))


def read_kept(id: str, kept: Kept) -> Item:
    """The item of a saved inversion, of one picture."""
    inversion = _loaded(kept.file, kept.file.stat().st_mtime_ns)[kept.row]
    prompt = inversion.meta.prompt[0]
    extra = {"inversion": inversion, "kind": kept.kind, "digest": kept.digest}
    return Item(id=id, image=None, prompt=prompt, target_prompt=kept.target_prompt, extra=extra)


@lru_cache(maxsize=2)
def _loaded(path: Path, changed: int) -> Inversion:
    from unsample.verbs.results import Inversion

    return Inversion.load(path)


def read_about(folder: Path) -> dict[str, Any] | None:
    """What collection.json holds; None where there is none.

    Raises:
        BadInput: it is damaged, or of a later version.
    """
    try:
        with open_inside(folder, ABOUT) as file:
            found = json.loads(file.read(MOST + 1))
        if not isinstance(found, dict) or not isinstance(found.get("asked"), dict) or "verb" not in found["asked"]:
            raise ValueError("it does not say what was asked")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadInput(f"{str(folder / ABOUT)!r} is damaged ({error}); choose another --output") from error
    if found.get("format") != FORMAT:
        raise BadInput(f"{str(folder)!r} has format {found.get('format')!r}, this unsample reads {FORMAT}; upgrade it")
    return found


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write collection.json in one step."""
    text = json.dumps({"format": FORMAT, **about}, indent=1) + "\n"
    atomic_write(folder / ABOUT, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def ledger_of(folder: Path) -> Ledger:
    """The ledger of a collection, to be written.

    Raises:
        BadInput: another process writes it.
    """
    return Ledger(folder, plan=ABOUT, name_of=lambda row: str(row["name"]))
