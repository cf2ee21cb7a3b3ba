"""One batch of a collection done: items opened, the verb done to them, what is kept written, a row an item."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from unsample.bench.local import Place
from unsample.bench.work import failure, taken
from unsample.collections import shards
from unsample.collections.batch import Chunk
from unsample.collections.jobs import Job
from unsample.collections.making import LEFT_OUT, as_item, make
from unsample.collections.pairing import digest
from unsample.errors import BadInput


@dataclass(frozen=True)
class CollectionPlace(Place):
    """What every worker of a collection is made from. Picklable."""

    job: Job
    folder: Path
    device: str | None = None
    threads: int = 1

    def worker(self) -> CollectionWorker:
        """One worker."""
        return CollectionWorker(self)


@dataclass
class CollectionWorker:
    """What does batches; the model is loaded once, when it is first needed."""

    place: CollectionPlace
    _models: dict[str, Any] = field(default_factory=dict)

    def lend(self, models: Mapping[str, Any]) -> None:
        """Models that are in memory already, by name."""
        self._models |= models

    def after(self, other: Any) -> Self:
        """This worker, with the models of one that did other work on the same device."""
        self._models = other._models if other.place.device == self.place.device else {}
        return self

    def model(self) -> Any:
        """The model, loaded; None where the job needs none.

        Raises:
            NoModel: it cannot be had.
        """
        job, place = self.place.job, self.place
        if job.model is None:
            return None
        placed = {"device": place.device, "dtype": job.asked["dtype"], **job.placing}
        return taken(self._models, job.model, place.threads, **placed)

    def do(self, task: Chunk) -> dict[str, Any]:
        """Rows of a batch, and the hash of the model's weights; or what went wrong: `error`, `traceback`, `kind`."""
        try:
            return self._done(task)
        except Exception as error:
            return failure(error)

    def _done(self, task: Chunk) -> dict[str, Any]:
        job, folder, model = self.place.job, self.place.folder, self.model()
        data = _at_size(task.data, model)
        rows: list[dict[str, Any]] = []
        items, places = [], []
        for n, (place, id, stamp) in enumerate(zip(task.places, task.ids, task.stamps, strict=True)):
            row: dict[str, Any] = {"name": id, "stamp": stamp, "input": input_of(data, place), "status": LEFT_OUT}
            rows.append(row)
            try:
                item = data[place]
                row["digest"] = digest(item)
                if row["digest"] == task.digests[n]:
                    row["same"] = True  # another file of the same picture and words
                    continue
                items.append(as_item(item, job, row["input"]))
                places.append(n)
            except BadInput as error:
                row["reason"] = str(error)
        if items:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what an item has to say stands in its row
                made = make(job, model, items)
            for place, row in zip(places, made.rows, strict=True):
                rows[place] |= row
            for content, own in made.kept:
                self._keep(folder, content, [rows[places[k]] for k in own])
        return {"rows": rows, "sha256": None if model is None else model.weights_sha256()}

    def _keep(self, folder: Path, content: Any, rows: list[dict[str, Any]]) -> None:
        """Write what was made of some items as a part of a shard."""
        kind, ids = self.place.job.keeps, [row["name"] for row in rows]
        assert kind is not None
        name = shards.part_name(kind, ids)
        if kind == "inversions":
            shards.write_inversions(folder, name, content)
            group = shards.kind_of(content)
        else:
            shards.write_pictures(folder, name, list(zip(ids, content, strict=True)))
            group = kind
        for k, row in enumerate(rows):
            row |= {"shard": name, "row": k, "kind": group}


def _at_size(data: Any, model: Any) -> Any:
    """A data set that is made on the spot, at the size of the model."""
    if hasattr(data, "rows") or model is None:
        return data
    from unsample.datasets import open_dataset

    return open_dataset(data.spec, size=int(model.picture_size[0]))


def input_of(data: Any, place: int) -> str:
    """Where an item comes from, in words: the file, the tar and the member, the table and the row."""
    row: Any = data.rows[place] if hasattr(data, "rows") else None
    row = row.a if hasattr(row, "read_a") else row
    if hasattr(row, "path"):
        return str(row.path)
    if hasattr(row, "picture"):
        return f"{row.picture.file}:{row.picture.name}"
    if hasattr(row, "place"):
        return f"{row.place.file}:{row.place.group}:{row.place.row}"
    return str(getattr(row, "input", None) or data.ids[place])
