"""How a picture is inverted, checked; and what a saved inversion says of the same, so that the two can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput
from unsample.models.guidance import check_guidance
from unsample.numbers.grid import check_steps
from unsample.preflight import rules
from unsample.wording import of

if TYPE_CHECKING:
    from unsample.media.pictures import Fit
    from unsample.methods import Method


@dataclass(frozen=True)
class Labels:
    """Class labels, and those that guidance leads away from: one for all pictures, or one each; None: not given."""

    classes: tuple[int, ...] | None = None
    negative: tuple[int, ...] | None = None

    def taken(self, pictures: Iterable[int]) -> dict[str, Any]:
        """What a verb is given for some of the pictures, told by their place."""
        places, both = list(pictures), {"class_labels": self.classes, "negative_class_labels": self.negative}
        return {n: None if v is None else [v[k % len(v)] for k in places] for n, v in both.items()}


@dataclass(frozen=True)
class Walk:
    """How to invert; None is what the method says itself.

    Raises:
        BadOption: any of it cannot be.
    """

    method: Method
    steps: int = 50
    guidance_scale: float | None = None
    sampling_guidance_scale: float | None = None
    guidance_schedule: str = "constant"
    strength: float | None = None  # the method's own takes its place
    seed: int = 0
    fit: Fit = "aspect"
    clip: str = "off"
    first_step_radius: bool = False
    labels: Labels = Labels()

    def __post_init__(self) -> None:
        with of("steps"):
            check_steps(self.steps)
        for name in ("guidance_scale", "sampling_guidance_scale"):
            if (scale := getattr(self, name)) is not None:
                with of(name):
                    check_guidance(scale)
        if self.strength is None:
            object.__setattr__(self, "strength", self.method.strength or 1.0)
        rules.check_strength(self.strength, self.steps)
        rules.check_seed(self.seed)
        rules.check_first_step_radius(self.method, self.first_step_radius)

    @property
    def scales(self) -> tuple[float | None, float | None]:
        """Guidance while inverting and while sampling."""
        return self.guidance_scale, self.sampling_guidance_scale

    def arguments(self, pictures: Iterable[int] = (0,)) -> dict[str, Any]:
        """What `unsample.invert` is given beside pictures and prompts, for some pictures, told by their place."""
        same = ("method", "guidance_scale", "sampling_guidance_scale", "guidance_schedule", "strength", "fit", "clip")
        given = {name: getattr(self, name) for name in (*same, "first_step_radius")}
        return given | {"num_inference_steps": self.steps, "generator": self.seed, **self.labels.taken(pictures)}

    def recorded(self, guidable: bool, picture: int = 0) -> dict[str, Any]:
        """What an inversion by it will say of itself, under the names of `recorded`.

        Args:
            guidable: whether the model has something to guide away from.
            picture: whose class labels.
        """
        inverted_at = self.method.inverts_at(self.guidance_scale, guidable)
        own = self.method.sampling_guidance_scale if guidable else None
        sampled_at = self.sampling_guidance_scale
        if sampled_at is None:
            sampled_at = inverted_at if own is None else own
        labels = {name: v and v[0] for name, v in self.labels.taken([picture]).items()}
        return {
            "method": self.method.name,
            "settings": json.loads(json.dumps(self.method.settings)),
            "steps": self.steps,
            "guidance_scale": inverted_at,
            "sampling_guidance_scale": sampled_at,
            "guidance_schedule": self.guidance_schedule,
            "strength": self.strength,
            "seed": self.seed,
            "fit": self.fit,
            "clip": self.clip,
            "first_step_radius": self.first_step_radius,
            **labels,
        }


def recorded(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a saved inversion of one picture says of how it was made, and of what; None where it says nothing."""

    def own(name: str) -> Any:
        return (meta.get(name) or [None])[0]

    return {
        "source": own("source_sha256"),
        "method": meta["method"]["name"],
        "settings": _settings(meta["method"]),
        "steps": meta["num_inference_steps"],
        "guidance_scale": meta["guidance_scale"],
        "sampling_guidance_scale": meta["sampling_guidance_scale"],
        "guidance_schedule": meta.get("guidance_schedule"),
        "strength": meta.get("strength"),
        "seed": own("seeds"),
        "fit": meta.get("fit"),
        "clip": meta["grid"].get("meta", {}).get("clip"),
        "first_step_radius": meta.get("first_step_radius", False),
        **{name: own(name) for name in ("prompt", "negative_prompt", "class_labels", "negative_class_labels")},
    }


def _settings(method: Mapping[str, Any]) -> Any:
    """All settings of a recorded method: those that it got later have the value that stood for them before."""
    try:
        return json.loads(json.dumps(rules.recorded_method(method).settings))
    except BadInput:
        return method["settings"]
