"""What is asked of an experiment, beside model and items. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from unsample.edits import Editor, get_editor
from unsample.edits.choose import AUTO
from unsample.edits.masks import ATTENTION, MaskAsked
from unsample.errors import unknown_name
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
PLAIN_EDIT = "none"  # the editor that swaps the prompt
NO_MASK = "none"
GIVEN = "given"  # as a mask of an edit: the item's own
MASKS = (NO_MASK, GIVEN, "auto", "attention", "thing")  # where an edit may change the picture; `auto` ... may say more
PASTED = "+paste"  # behind a mask: the source's own pixels outside of it


def check_mask(mask: str) -> str:
    """A mask of an edit by its name, as `unsample.edit` takes it (`attention:circle`); or none, or the item's own.

    Raises:
        UnknownName: none of MASKS. BadOption: it says more that cannot be.
    """
    kind = mask.removesuffix(PASTED)
    if kind.partition(":")[0] not in MASKS or mask == f"{NO_MASK}{PASTED}":
        raise unknown_name("mask", mask, [*MASKS, *(f"{name}{PASTED}" for name in MASKS if name != NO_MASK)])
    if kind.partition(":")[0] in (AUTO, ATTENTION):
        MaskAsked.of(kind)
    return mask


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is asked: by which method, at which guidance, measured by what.

    Raises:
        UnknownName: no such method or baseline, editor, mask, stage.
    """

    method: Method | str  # configured, or the name of a method or of a baseline
    metrics: tuple[str, ...] = ()
    guidance: float | None = 1.0  # of sampling; None: the method's own, else that of inversion
    guidance_schedule: str = "constant"  # of sampling
    inversion_guidance: float | None = None  # None: the method's own, else 1
    steps: int = 50
    strength: float | None = None  # None: the method's own, else 1
    stages: tuple[str, ...] = ("record", "noise", "recovered")  # of STAGES: what is made and measured
    edit_guidance: float | None = None  # None: the method's own for edits, else 5
    editor: Editor | str = PLAIN_EDIT  # what the edit takes of its source: configured, its name, or "auto"
    mask: str = NO_MASK  # see `check_mask`
    negative_prompt: str | None = None
    seed: int = 0
    seeding: Literal["item", "picture"] = "item"  # of `seed` and the item's digest, or as `unsample.invert` seeds
    fit: Fit = "crop"  # of pictures that are no tensors
    clip: str = "off"  # of the inversion: "config" clamps the predicted x0
    first_step_radius: bool = False  # ask whether the first step contracts
    class_labels: int | None = None  # of all pictures
    negative_class_labels: int | None = None
    clip_model: str = "scenes-clip"  # of the CLIP metrics
    play_noised: bool = False  # whether what a method leaves that stops part way is sampled from as if it were noise
    keep_trajectory: bool = False  # of sampling and of inversion: `Findings.sampled`, `Findings.inversion`
    probe: str = ""  # a study (`unsample.studies`) that looks further at what was found: `Findings.probed`
    probe_settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.editor != AUTO:
            object.__setattr__(self, "editor", get_editor(self.editor))
        check_mask(self.mask)
        if isinstance(self.method, str) and self.method not in BASELINES:
            object.__setattr__(self, "method", get_method(self.method))
        if self.seeding not in ("item", "picture"):
            raise unknown_name("seeding", self.seeding, ("item", "picture"))
        for stage in self.stages:
            if stage not in STAGES:
                raise unknown_name("stage", stage, STAGES)

    @property
    def baseline(self) -> str | None:
        """The name of the baseline; None for a method."""
        return self.method if isinstance(self.method, str) else None

    @property
    def edit(self) -> bool:
        """Whether the target prompts are edited to."""
        return "edit" in self.stages

    @property
    def looks_inside(self) -> bool:
        """Whether the edit reads or changes what happens within the network."""
        found = self.mask.partition(PASTED)[0] not in (NO_MASK, GIVEN)
        return found or isinstance(self.editor, str) or self.editor.steer is not None

    @property
    def measured(self) -> list[str]:
        """The stages that are measured, in the order of `STAGES`: of a baseline the one that it fills."""
        asked = [stage for stage in STAGES if stage in self.stages]
        return [s for s in asked if self.baseline is None or s == BASELINES[self.baseline]]

    def asks(self, stage: str, metric: str, known: bool) -> bool:
        """Whether a stage is asked for, or a metric of recovered noise that needs what it makes and can be computed."""
        named = {name.partition("[")[0] for name in self.metrics}
        return stage in self.stages or ("recovered" in self.stages and known and metric in named)
