"""The pictures of pairs, read a batch at a time, so that many need no more memory than a few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.datasets.pairs import Pair
from unsample.errors import BadInput, first_line

if TYPE_CHECKING:
    from torch import Tensor

BATCH, BATCH_PIXELS = 64, 2**18  # pictures of one size that are measured together
TENSORS = ("noise", "true_noise", "start", "played", "replayed", "between")
ITEM = {"prompts": "prompt", "target_prompts": "target_prompt", "targets": "target", "changed": "changed"}


@dataclass(frozen=True)
class ImageBatch:
    """Some pictures in memory, or one that could not be read."""

    names: Sequence[str]
    fields: Mapping[str, Any] | None  # of `metrics.Subject`
    reason: str | None = None
    notes: Sequence[tuple[str, str]] = ()  # file and what was done to it


@dataclass(frozen=True)
class Read:
    """A pair in memory: tensors of one row (or of several, of one file), and what goes with them."""

    name: str
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    notes: Sequence[tuple[str, str]] = ()

    @property
    def shape(self) -> tuple[object, ...]:
        """Pairs with the same one can be measured together."""
        return (*sorted(self.values), *((name, tuple(t.shape[1:])) for name, t in self.tensors.items()))

    @property
    def pixels(self) -> int:
        """Of its largest tensor."""
        return max((t.shape[-1] * t.shape[-2] for t in self.tensors.values()), default=1)


def batches(pairs: Iterable[Pair]) -> Iterator[ImageBatch]:
    """Read the pictures; those of one size that follow each other come together. Only one batch is in memory."""
    waiting: list[Read] = []
    for pair in pairs:
        try:
            read = _read(pair)
        except BadInput as error:
            if waiting:  # in order
                yield _joined(waiting)
            waiting = []
            yield ImageBatch([pair.name], None, str(error))
            continue
        full = len(waiting) >= BATCH or (len(waiting) + 1) * read.pixels > BATCH_PIXELS
        if waiting and (full or waiting[0].shape != read.shape):
            yield _joined(waiting)
            waiting = []
        waiting.append(read)
    if waiting:
        yield _joined(waiting)


def _joined(waiting: Sequence[Read]) -> ImageBatch:
    import torch

    names = [read.name for read in waiting]
    tensors: dict[str, Any] = {side: torch.cat([r.tensors[side] for r in waiting]) for side in waiting[0].tensors}
    count = len(next(iter(tensors.values())))
    if count > len(names):  # one file of tensors holds several samples
        names = [f"{names[0]}[{k}]" for k in range(count)]
    values: dict[str, Any] = {side: [read.values[side] for read in waiting] for side in waiting[0].values}
    return ImageBatch(names, tensors | values, notes=[note for read in waiting for note in read.notes])


def _read(pair: Pair) -> Read:
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    notes: list[tuple[str, str]] = []
    if pair.item is not None:
        item = pair.item()
        notes = [(item.id, note) for note in item.extra.get("notes", ())]
        values = {side: getattr(item, name) for side, name in ITEM.items() if getattr(item, name) is not None}
        known = {"reference": item.image, "truth": item.truth, "mask": item.mask}
        tensors = {side: as_tensor(value) for side, value in known.items() if value is not None}
    for side, path in pair.files.items():
        if path.suffix == ".safetensors":
            tensors |= read_tensors(path, truth=side != "images")
        else:
            tensors[side], said = _mask(path) if side == "mask" else _picture(path)
            notes += [(str(path), note) for note in said]
    lengths = {len(tensor) for tensor in tensors.values()}
    if len(lengths) > 1:
        counts = ", ".join(f"{name} {len(tensor)}" for name, tensor in tensors.items())
        raise BadInput(f"{pair.name}: the files hold different numbers of samples ({counts})")
    return Read(pair.name, tensors, {**values, **pair.texts}, notes)


def as_tensor(picture: Any) -> Tensor:
    """An item's picture or mask as a batch of one."""
    import numpy as np
    import torch

    if isinstance(picture, torch.Tensor):
        return picture[None].float()
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def _picture(path: Path) -> tuple[Tensor, Sequence[str]]:
    """(1, 3, H, W) in [0, 1], and what was done to get there."""
    from unsample.media.pictures import open_picture

    picture = open_picture(path)
    return as_tensor(picture.pixels), picture.notes


def _mask(path: Path) -> tuple[Tensor, Sequence[str]]:
    """(1, 1, H, W) of 0 and 1, and what was taken as 1."""
    import torch

    from unsample.media.masks import open_mask

    mask = open_mask(path)
    return torch.from_numpy(mask.where.astype("float32"))[None, None], mask.notes


def read_tensors(path: Path, truth: bool) -> dict[str, Tensor]:
    """What a .safetensors file holds for measuring: an inversion's noise, a trajectory's two ends, or tensors by name.

    A trajectory (`unsample sample --keep-trajectory`) gives true noise and start; of a reference, `noise` is the truth.
    """
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises its own kind, OSError and ValueError
        raise BadInput(
            f"{str(path)!r} cannot be read: {first_line(error)}; give what 'unsample invert' wrote"
        ) from error
    if "trajectory" in tensors and truth:
        return {"true_noise": tensors["trajectory"][0], "start": tensors["trajectory"][-1]}
    if truth and "true_noise" not in tensors and "noise" in tensors:
        tensors["true_noise"] = tensors.pop("noise")
    found = {name: tensors[name] for name in TENSORS if name in tensors and not (truth and name == "noise")}
    if not found:
        raise BadInput(f"{str(path)!r} holds none of {', '.join(TENSORS)}; give what 'unsample invert' wrote")
    return found
