"""One item of a data set, and what every data set is: a list of them that knows its ids without opening a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.scenes import Scene


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """A picture with all that its data set knows of it; None is not known."""

    id: str  # unique in the data set, and safe as a file name: [A-Za-z0-9._-]
    image: Any = field(
        repr=False
    )  # what `unsample.invert` takes as one picture: PIL, or a tensor (3, H, W); None: `generated` is sampled
    prompt: str | None = None  # what the picture shows
    target_prompt: str | None = None  # what the edit shall show
    mask: Tensor | None = field(
        default=None, repr=False
    )  # (1, H, W) of 0 and 1, at the picture's own size; 1 is the region to be edited
    scene: Scene | None = None  # rendered pictures only
    target: Scene | None = None  # the scene after the edit
    changed: str | None = None  # the attribute that the edit changes: colour, size ...
    truth: Any = field(default=None, repr=False)  # the true edited picture, in the form of `image`
    category: str | None = None  # PIE-Bench's type of edit
    seed: int | None = None  # `generated`: what the model makes it from
    saved: str | None = None  # `generated`: the format that the picture goes through before it is inverted
    recipe: str | None = None  # rendered pictures: all that their pixels, mask and truth follow from
    extra: Mapping[str, Any] = field(default_factory=dict)  # what else the row holds: an instruction, a vote

    def digest(self) -> str:
        """SHA-256, in hex, of what a result can depend on: pixels, truth, mask, prompts, the attribute, the seed.

        A rendered picture stands in it by its recipe: its float32 pixels may differ in their last bit between
        processors, which should not make it another item. Id, category and `extra` are not in it.
        """
        pictures = {"image": self.image, "truth": self.truth, "mask": self.mask} if self.recipe is None else {}
        texts = {name: getattr(self, name) for name in ("recipe", "prompt", "target_prompt", "changed", "seed")}
        texts |= {} if self.saved is None else {"saved": self.saved}
        found = hashlib.sha256()
        for name, value in {**pictures, **texts}.items():
            about, content = _content(value)
            found.update(json.dumps([name, len(content), *about]).encode() + content)
        return found.hexdigest()


class Dataset(Protocol):
    """A data set. Pictures are opened when they are asked for."""

    @property
    def spec(self) -> str:
        """What opens it again: `scenes:200,split=report`."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids of its items, in order."""

    @property
    def broken(self) -> Sequence[tuple[str, str]]:
        """Id and reason of rows that cannot be used, as far as is known without decoding pictures; not in `ids`."""

    def __len__(self) -> int:
        """How many items: as many as ids."""

    def __getitem__(self, k: int) -> Item:
        """An item.

        Raises:
            BadInput: a row that turns out to be broken; callers count it and go on.
        """


def _content(value: Any) -> tuple[list[Any], bytes]:
    """What a value is, and its bytes."""
    if value is None or isinstance(value, str | int):
        return [type(value).__name__], str(value).encode("utf-8", "surrogatepass")
    if hasattr(value, "tobytes") and hasattr(value, "mode"):  # PIL
        return ["picture", value.mode, *value.size], value.tobytes()
    array = value.detach().cpu().contiguous().numpy()
    return ["tensor", str(array.dtype), *array.shape], array.tobytes()
