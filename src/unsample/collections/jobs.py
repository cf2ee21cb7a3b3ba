"""What is asked of a collection: a verb and its settings, as plain JSON: to be kept, compared and sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

VerbName = Literal["invert", "reconstruct", "edit", "measure"]
KEEPS = {
    "invert": "inversions",
    "reconstruct": "pictures",
    "edit": "pictures",
    "measure": None,
}  # what is in its shards
METRICS = ("psnr", "ssim")
ABOUT, INDEX = "collection.json", "index.parquet"  # in the folder of the results


@dataclass(frozen=True)
class Job:
    """A verb with its settings, all of them JSON.

    `asked` holds what a result depends on: a second run of another `asked` is refused. `placing` is how the model is
    loaded beside its type, which changes no result but by rounding.
    """

    verb: VerbName
    model: str | None  # its name; None: the verb needs none
    asked: Mapping[str, Any]
    placing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keeps(self) -> str | None:
        """What its shards hold."""
        return KEEPS[self.verb]

    def plain(self) -> dict[str, Any]:
        """What is kept of it in the folder, and compared when it is gone on with: of a key its hash, not its place."""
        asked = {name: value for name, value in self.asked.items() if name != "key"}
        return {"verb": self.verb, "model": self.model, **asked}
