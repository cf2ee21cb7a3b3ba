"""What an experiment found: pictures, noises, the inversion, and why something is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.experiment.setup import Setup
from unsample.experiment.shared import Shared

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.datasets.item import Item
    from unsample.verbs.results import Images, Inversion

Entries = dict[str, list[dict[str, Any]]]  # of each metric, one a picture


@dataclass(eq=False)
class Findings:
    """Of B items and one setup; None where there is nothing.

    `source` and `truth` (B, 3, H, W) in [0, 1] as the model sees them; `status` and `nonfinite_at` one a picture;
    `made` stage to what was sampled, `pictures` stage to (B, 3, H, W) in [0, 1], float32, on the CPU; `failures` stage
    to why it has none: words, or the error; `values` "stage.metric" to an entry a picture.
    """

    model: Any
    items: Sequence[Item]
    setup: Setup
    source: Tensor
    shared: Shared | None = None
    progress: bool | None = False
    truth: Tensor | None = None
    status: list[str] = field(default_factory=list)
    nonfinite_at: Sequence[dict[str, Any] | None] = ()  # where the network failed the inversion; () without one
    inversion: Inversion | None = None
    made: dict[str, Images] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    failures: dict[str, str | Exception] = field(default_factory=dict)
    edit_guidance: float | None = None  # that was edited under
    noise: Tensor | None = None  # the estimate, recovered or a baseline's
    true_noise: Tensor | None = None
    start: Tensor | None = None  # the latents whose noise is known: where the inversion began
    between: Tensor | None = None  # latents from halfway between the true noise and the estimate
    sampled: Images | None = None  # the run that made the pictures, where the model made them
    values: Entries = field(default_factory=dict)
    probed: Sequence[dict[str, Any]] = ()  # of each picture, what the probe of a study found: plain JSON
    seconds: float = 0.0  # of all but the metrics, for all items, with what shared work took when it was done

    @cached_property
    def ceiling(self) -> Tensor | None:
        """What the autoencoder makes of the source's latents alone: (B, 3, H, W), float32, in [0, 1], not 8 bit."""
        import torch

        from unsample.models.calling import evaluating

        if self.inversion is None or self.inversion.latents is None:
            return None
        with torch.no_grad(), evaluating(self.model):
            made: Tensor = self.model.decode(self.inversion.latents)
        return made.float().clamp(0, 1).cpu()

    def prompts(self, name: str = "prompt") -> list[str] | None:
        """What the pictures show, or (`target_prompt`) shall show; None for a model without text."""
        return texts_of(self.model, self.items, name)

    def latents(self, stage: str) -> Tensor | None:
        """What a stage's sampling ended with: (B, C, h, w)."""
        return self.made[stage].latents if stage in self.made else None

    def reason(self, stage: str) -> str | None:
        """Why a stage has no pictures, in words."""
        failure = self.failures.get(stage)
        return None if failure is None else str(failure)

    @cached_property
    def outside(self) -> list[list[str]]:
        """Why each picture is outside what the model knows: as it was given, as it was fitted, or for its words."""
        from PIL.Image import Image

        from unsample.models.domain import reasons_of_picture

        assert self.inversion is not None
        found = []
        for item, reasons in zip(self.items, self.inversion.meta["out_of_domain"], strict=True):
            given = isinstance(item.image, Image)
            own = reasons_of_picture(self.model.id, item.image, self.setup.fit) if given else []
            found.append(list(dict.fromkeys([*own, *reasons])))
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a picture: its status and values, and of an inversion its cost and what it stores."""
        return [self._row(n) | {"values": {k: column[n] for k, column in self.values.items()}} for n in self._each]

    @property
    def _each(self) -> range:
        return range(len(self.items))

    def _row(self, n: int) -> dict[str, Any]:
        about = {"status": self.status[n], "nonfinite_at": self.nonfinite_at[n] if self.nonfinite_at else None}
        about |= {"probed": dict(self.probed[n])} if self.probed else {}
        if self.inversion is None:
            return about
        meta, method = self.inversion.meta, self.setup.method
        assert not isinstance(method, str)
        undone = meta["guidance_scale"] == meta["sampling_guidance_scale"]  # a reversible walk goes back as it came
        return about | {
            "nfe": self.inversion.nfe[n],
            "backward": self.inversion.backward[n],
            **self._of_edit(n),
            "stores": meta["stored"]["what"],
            "stored_ratio": meta["stored"]["size_over_noise"],
            "fitted": meta["stored"]["fitted_to_picture"],
            "out_of_domain": bool(self.outside[n]),
            "exact_by_construction": method.exact and (undone or not method.reversible),
        }

    def _of_edit(self, n: int) -> dict[str, Any]:
        made = self.made.get("edit")
        if made is None:
            return {}
        return {"edit_nfe": made.nfe[n], "edit_backward": made.backward[n], "edited_at": self.edit_guidance}


def texts_of(model: Any, items: Sequence[Item], name: str = "prompt") -> list[str] | None:
    """A text of every item, empty where it has none; None for a model without text."""
    return [getattr(item, name) or "" for item in items] if model.takes_prompt else None


def every(items: Sequence[Item], name: str) -> list[Any] | None:
    """A field of every item; None where one of them lacks it."""
    values = [getattr(item, name) for item in items]
    return None if any(v is None for v in values) else values


def saved_of(items: Sequence[Item]) -> Inversion | None:
    """The inversion of items that bring theirs (`extra["inversion"]`, each of one picture); None: they do not."""
    from unsample.verbs.joining import joined

    own = [item.extra.get("inversion") for item in items]
    return None if any(one is None for one in own) else joined([one for one in own if one is not None])


def seen(inversion: Inversion) -> Tensor:
    """The pictures of a saved inversion as the model saw them, (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: it holds none.
    """
    if (pictures := inversion.seen) is None:
        raise BadInput("the inversion holds no source picture (it was made from latents)")
    return pictures


def item_seeds(seed: int, digests: Sequence[str]) -> list[int]:
    """One an item: of a seed and the item's content, so that it is the same in any batch."""
    texts = [f"{seed}:{digest}" for digest in digests]
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator each."""
    import torch

    return [torch.Generator().manual_seed(seed) for seed in seeds]


def fitted(model: Any, pictures: Sequence[Any], fit: Any) -> Tensor:
    """One picture an item, PIL or (3, H, W), as the model sees them: (B, 3, H, W) in [0, 1]."""
    import torch

    from unsample.verbs.inputs import as_images

    given: Any = torch.stack(list(pictures)) if isinstance(pictures[0], torch.Tensor) else list(pictures)
    return as_images(model, given, fit).images


def masks_of(model: Any, items: Sequence[Item], fit: Any) -> Tensor | None:
    """(B, 1, H, W) of 0 and 1: fitted as the pictures were, then cut at one half; None: an item has none."""
    import torch
    from PIL import Image

    from unsample.media.masks import mask_of_array

    masks = every(items, "mask")
    if masks is None:
        return None
    size = (model.picture_size[1], model.picture_size[0])
    if all(tuple(m.shape[-2:]) == size for m in masks):
        return torch.stack(masks)
    grey = [Image.fromarray(mask_of_array(m[0]).where).convert("RGB") for m in masks]
    return (fitted(model, grey, fit)[:, :1] >= 0.5).float()


def null(names: Sequence[str] | Mapping[str, Any], count: int, reason: str | None) -> Entries:
    """Entries without a value, and why."""
    return {name: [entry(None, False, reason)] * count for name in names}


def entry(value: float | None, exact: bool, reason: str | None) -> dict[str, Any]:
    """A metric of one picture; `exact` where it is infinitely many dB."""
    return {"value": value, "exact": exact, "reason": reason}
