"""What there is to measure, how, and what came out: the three records that every metric speaks in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.scenes import Scene
    from unsample.watermarks.keys import Key


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is known of some pictures; a row is a picture, None is not known.

    Pictures are (B, 3, H, W) in [0, 1], or numpy arrays as in `unsample.media.arrays`, which become that; noises and
    latents (B, C, h, w) on the model's own range, unclamped.
    """

    images: Tensor | None = None  # the result
    reference: Tensor | None = None  # the source
    truth: Tensor | None = None  # the true edit
    ceiling: Tensor | None = None  # the autoencoder's own round trip of the source: what no inversion can pass
    autoencoded: Tensor | None = None  # what an autoencoder alone makes of `images`
    mask: Tensor | None = None  # (B, 1, H, W) of 0 and 1, 1 is to be edited; others are read by `unsample.media.masks`
    prompts: Sequence[str] | None = None  # what the source shows
    target_prompts: Sequence[str] | None = None  # what the result should show
    targets: Sequence[Scene] | None = None  # scenes only: the scene after the edit
    changed: Sequence[str] | None = None  # scenes only: the attribute that the edit changes
    noise: Tensor | None = None  # the recovered noise
    true_noise: Tensor | None = None
    start: Tensor | None = None  # where the walk began
    start_kind: str = "x0"  # x0 (raw), reencoded or png8: what that start is
    played: Tensor | None = None  # latents that the noise alone led to
    replayed: Tensor | None = None  # latents that the record led to
    between: Tensor | None = None  # what sampling from slerp(true_noise, noise, 1/2) gave

    def __post_init__(self) -> None:
        """Bring arrays to tensors, and the mask to 0 and 1.

        Raises:
            BadInput: an array that is no picture, or no mask.
        """
        for name in ("images", "reference", "truth", "ceiling", "autoencoded"):
            if type(given := getattr(self, name)).__module__ == "numpy":
                object.__setattr__(self, name, _pictures(given, name))
        if self.mask is not None:
            object.__setattr__(self, "mask", _zeros_and_ones(self.mask))

    def given(self, *names: str) -> list[Any]:
        """Fields that the row of a metric `needs`: `measure` has seen to it that they are known."""
        return [getattr(self, name) for name in names]

    def __len__(self) -> int:
        """How many pictures."""
        known = (getattr(self, f.name) for f in fields(self) if f.name != "start_kind")
        return next((len(value) for value in known if value is not None), 0)


def _pictures(array: Any, name: str) -> Tensor:
    import numpy as np
    import torch

    from unsample.media.arrays import floats_of, pictures_in

    return torch.from_numpy(np.stack([floats_of(one) for one in pictures_in(array, name)]))


def _zeros_and_ones(mask: Any) -> Tensor:
    """Masks (B, 1, H, W) as floats of 0 and 1; from tensors and arrays, also (B, H, W, 1), (B, H, W) or (H, W)."""
    import numpy as np
    import torch

    from unsample.media.masks import RULE, mask_of_array

    if isinstance(mask, torch.Tensor):
        if mask.ndim == 4 and mask.is_floating_point() and bool(((mask == 0) | (mask == 1)).all()):
            return mask
        mask = (mask.float() if mask.is_floating_point() else mask).detach().cpu().numpy()
    array = np.asarray(mask)
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.size == 0:
        raise BadInput(f"masks are (B, 1, H, W); got {array.shape} {array.dtype}; {RULE}")
    found = [mask_of_array(one, f"mask {k}") for k, one in enumerate(array)]
    for k, read in enumerate(found):
        if read.notes and 0 < read.where.mean() < 1:
            warnings.warn(f"mask {k}: {read.notes[0]}", stacklevel=4)
    return torch.from_numpy(np.stack([read.where for read in found])[:, None].astype("float32"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure. A name in brackets after a metric's (`clip_image[/models/clip]`) goes before these."""

    weights_dir: str | None = None  # looked into first; then $UNSAMPLE_WEIGHTS, the caches
    clip: str = "scenes-clip"  # a bundled name, a folder or a hub id; for distributions `pixels` too
    dino: str = "dino-vitb8"  # a folder or a hub id with a transformers ViT of 12 layers
    lpips_net: str = "alex"  # alex, vgg or squeeze, where a metric's own name does not say
    key: str | Key | None = None  # of a watermark that is looked for: a file, or the key itself
    device: str = "cpu"  # where networks run


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric of some pictures: an entry a picture, or one for all of them where it is a metric of sets.

    A value that is None has a reason, except that of equal pictures: infinitely many dB are None with `exact` True.
    """

    name: str  # with what it depends on: fd[scenes-clip]
    values: list[float | None]
    exact: list[bool]
    reasons: list[str | None]
    unit: str
    n: int  # pictures measured
    details: Mapping[str, Any] = field(default_factory=dict)  # an interval, a floor, the weights used


@dataclass(frozen=True)
class Found:
    """What a metric's own function answers: for each picture a number, or in words why there is none."""

    values: Sequence[float | str]
    details: Mapping[str, Any] = field(default_factory=dict)
