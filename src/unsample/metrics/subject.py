"""What there is to measure, how, and what came out: the three records that every metric speaks in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.datasets.scenes import Scene


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is known of some pictures; a row is a picture, None is not known.

    Pictures are (B, 3, H, W) in [0, 1]; noises and latents (B, C, h, w) on the model's own range, unclamped.
    """

    images: Tensor | None = None  # the result
    reference: Tensor | None = None  # the source
    truth: Tensor | None = None  # the true edit
    mask: Tensor | None = None  # (B, 1, H, W), 1 where the picture is to be edited
    prompts: Sequence[str] | None = None  # what the source shows
    target_prompts: Sequence[str] | None = None  # what the result should show
    targets: Sequence[Scene] | None = None  # scenes only: the scene after the edit
    changed: Sequence[str] | None = None  # scenes only: the attribute that the edit changes
    noise: Tensor | None = None  # the recovered noise
    true_noise: Tensor | None = None
    start: Tensor | None = None  # where the walk began
    start_kind: str = "x0"  # x0 (raw), reencoded or png8: what that start is
    played: Tensor | None = None  # what playing back gave
    between: Tensor | None = None  # what sampling from slerp(true_noise, noise, 1/2) gave

    def __len__(self) -> int:
        """How many pictures."""
        known = (getattr(self, f.name) for f in fields(self) if f.name != "start_kind")
        return next((len(value) for value in known if value is not None), 0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure. A name in brackets after a metric's (`clip_image[/models/clip]`) goes before these."""

    weights_dir: str | None = None  # looked into first; then $UNSAMPLE_WEIGHTS, the caches
    clip: str = "scenes-clip"  # a bundled name, a folder or a hub id; for distributions `pixels` too
    dino: str = "dino-vitb8"  # a folder or a hub id with a transformers ViT of 12 layers
    lpips_net: str = "alex"  # alex, vgg or squeeze, where a metric's own name does not say
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
