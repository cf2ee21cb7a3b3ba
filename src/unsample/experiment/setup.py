"""What is asked of an experiment, beside model and items. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unsample.errors import BadOption, unknown_name
from unsample.methods import Method, get_method

if TYPE_CHECKING:
    from unsample.media.pictures import Fit

STAGES: dict[str, tuple[str, ...]] = {  # what is measured, and the kinds of metric that are asked of it
    "record": ("pair", "ceiling"),
    "noise": ("pair", "ceiling"),
    "recovered": ("recovery", "noise"),
    "edit": ("pair", "edit", "text", "masked"),
}
BASELINES: dict[str, str] = {  # what stands in a method's place, and the stage that it fills
    "identity": "edit",  # the source itself
    "vae(source)": "edit",  # the autoencoder's round trip of the source
    "vae(truth)": "edit",  # the same of the true edit
    "fresh": "edit",  # fresh noise, sampled with the target prompt
    "zero": "recovered",  # an estimate of 0 for the noise that a picture was sampled from
}
EDITORS = ("none",)  # attention editors are to come


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is asked: by which method, at which guidance, measured by what.

    Raises:
        UnknownName: no such method or baseline, no such editor. BadOption: a baseline of edits without an edit.
    """

    method: Method | str  # configured, or the name of a method or of a baseline
    metrics: tuple[str, ...] = ()
    guidance: float | None = 1.0  # of sampling; None: the method's own, else that of inversion
    guidance_schedule: str = "constant"  # of sampling
    inversion_guidance: float | None = None  # None: the method's own, else 1
    steps: int = 50
    strength: float | None = None  # None: the method's own
    only: tuple[str, ...] | None = None  # stages that are measured; None: all
    edit: bool = False  # whether the target prompts are edited to
    edit_guidance: float | None = None  # None: the method's own for edits, else 5
    editor: str = "none"  # what shares attention between source and edit
    negative_prompt: str | None = None
    seed: int = 0
    seeding: Literal["item", "picture"] = "item"  # of `seed` and the item's digest, or as `unsample.invert` seeds
    fit: Fit = "crop"  # of pictures that are no tensors
    clip_model: str = "scenes-clip"  # of the CLIP metrics
    play_noised: bool = False  # whether what a method leaves that stops part way is sampled from as if it were noise

    def __post_init__(self) -> None:
        if self.editor not in EDITORS:
            raise unknown_name("editor", self.editor, EDITORS)
        if isinstance(self.method, str) and self.method not in BASELINES:
            object.__setattr__(self, "method", get_method(self.method))
        if self.seeding not in ("item", "picture"):
            raise unknown_name("seeding", self.seeding, ("item", "picture"))
        if self.baseline and BASELINES[self.baseline] == "edit" and not self.edit:
            raise BadOption(f"{self.baseline} is what edits are read against, and no edit is asked; set edit=True")

    @property
    def baseline(self) -> str | None:
        """The name of the baseline; None for a method."""
        return self.method if isinstance(self.method, str) else None

    @property
    def stages(self) -> list[str]:
        """What is measured."""
        if self.baseline:
            return [BASELINES[self.baseline]]
        wanted = STAGES if self.only is None else self.only
        return [stage for stage in STAGES if stage in wanted and (self.edit or stage != "edit")]
