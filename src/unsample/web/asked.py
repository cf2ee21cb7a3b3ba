"""What the page asks for: read from JSON, and made into commands. Nothing here is judged but its form; the verbs judge.

A picture is inverted by `unsample invert` and edited, by `unsample edit`, from what that wrote: each stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from unsample.errors import BadOption
from unsample.methods import get_method
from unsample.web.commands import Command, Options
from unsample.web.words import named

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(max_length=200)]
Id = Annotated[str, Field(max_length=64)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Settings = Annotated[dict[Name, Text], Field(max_length=64)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
WHERE = ("auto", "attention", "thing")
PLAIN = "none"
OF_FILES = ("file",)  # settings that name a file; the page offers none of them


class Asked(BaseModel):
    """One job. Names and defaults are those of the command line; None is what the method or the editor says itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["run", "compare", "sample"] = "run"
    source: Id | None = None  # of an uploaded file: a picture, or an inversion
    model: Name = "scenes-sd"
    prompt: Text | None = None  # what the picture shows; of a sample, what it shall show
    target_prompt: Text | None = None
    negative_prompt: Text | None = None
    class_labels: Name | None = None
    target_class_labels: Name | None = None
    negative_class_labels: Name | None = None
    method: Name = "ddim"
    settings: Settings = {}
    methods: Annotated[list[Name], Field(max_length=64)] = []
    quick: bool = False
    steps: Whole = 50
    guidance_scale: Number | None = None  # while inverting; of a sample, while sampling
    sampling_guidance_scale: Number | None = None
    edit_guidance_scale: Number | None = None
    guidance_schedule: Name = "constant"
    strength: Number | None = None
    seed: Whole = 0
    fit: Name = "aspect"
    clip: Name = "off"
    first_step_radius: bool = False
    editor: Name = "none"
    editor_settings: Settings = {}
    mask: Text | None = None  # words of `--mask`, or "file"
    mask_file: Id | None = None
    mask_feather: Number = 0.0
    mask_dilate: Whole = 1
    paste: bool = False
    force: bool = False

    @property
    def edits(self) -> bool:
        """Whether something is to be changed: by a prompt, by a class, or by what the editor's settings say."""
        return self.target_prompt is not None or self.target_class_labels is not None or self._told

    @property
    def _told(self) -> bool:
        from unsample.edits import get_editor, parse_settings

        if self.kind != "run" or self.editor == PLAIN or not self.editor_settings:
            return False
        return not get_editor(self.editor, parse_settings(self.editor, self.editor_settings.items())).needs_prompt


_SETS_OUT = frozenset({"kind", "model", "prompt", "negative_prompt", "steps", "guidance_scale", "seed", "force"})
_EDITED = frozenset({"target_prompt", "editor", "editor_settings", "edit_guidance_scale"})
TAKEN = {  # what a job of a kind takes; a run takes all but the methods of a comparison
    "sample": _SETS_OUT | {"class_labels"},
    "compare": _SETS_OUT
    | _EDITED
    | {"source", "methods", "quick", "sampling_guidance_scale", "guidance_schedule", "fit"},
    "run": frozenset(Asked.model_fields) - {"methods", "quick"},
}
KINDS = {"sample": "a drawing", "compare": "a comparison of methods", "run": "an inversion"}
SHOWN = ("method", "steps")  # options that stand in a command although they are the default


def _given(options: Options) -> dict[str, Any]:
    """Without what is the command line's own default, so that a command says what is particular."""
    own = {name: field.default for name, field in Asked.model_fields.items() if name not in (*SHOWN, "model")}
    same = {name for name, value in options.items() if name in own and value == own[name] and value is not None}
    return {name: value for name, value in options.items() if name not in same}


def commands(asked: Asked, source: str | None, mask: str | None, placed: Options) -> list[Command]:
    """The commands of a job.

    Args:
        asked: the job.
        source, mask: the names of its files in the job's folder; an inversion ends in `.safetensors`.
        placed: how models are loaded, as options.

    Raises:
        BadOption: two things that exclude each other, or a file that is missing.
    """
    _check(asked, source, mask)
    if asked.kind == "sample":
        return [Command("sample", None, _sampled(asked, placed))]
    assert source is not None
    if asked.kind == "compare":
        return [Command("compare", source, _compared(asked, placed))]
    stem, saved = Path(source).stem, source.endswith(".safetensors")
    if saved:
        first = Command("reconstruct", source, {"model": asked.model, **placed, "output": "out"})
    else:
        first = Command("invert", source, _inverted(asked, placed) | {"output": "out", "force": asked.force})
    if not asked.edits:
        return [first]
    edited = {"model": asked.model, **placed, **_edited(asked, mask, stem)}
    inversion = source if saved else f"out/{stem}.safetensors"
    return [first, Command("edit", inversion, edited)]


def checked_as(asked: Asked, found: Sequence[Command], mask: str | None, placed: Options) -> list[Command]:
    """The commands by which a job is checked before anything is there that its first command will write."""
    if len(found) < 2 or found[0].verb != "invert":
        return list(found)
    own = _inverted(asked, placed)
    said = {"source_prompt": own.get("prompt"), "source_class_labels": own.get("class_labels")}
    walk = {name: own.get(name) for name in ("method", "set", "steps", "strength", "seed", "fit", "clip")}
    walk |= {"inversion_guidance_scale": own.get("guidance_scale"), "guidance_schedule": asked.guidance_schedule}
    options = {"model": asked.model, **placed, **said, **walk, **_edited(asked, mask, Path(str(found[0].input)).stem)}
    return [found[0], Command("edit", found[0].input, options)]


def _check(asked: Asked, source: str | None, mask: str | None) -> None:
    for settings in (asked.settings, asked.editor_settings):
        _pairs(settings)
    for name, field in Asked.model_fields.items():
        if name not in TAKEN[asked.kind] and getattr(asked, name) != field.default:
            raise BadOption(f"{named(name)}: {KINDS[asked.kind]} takes none; leave it out")
    if asked.kind != "sample" and source is None:
        raise BadOption("there is no picture yet; drop one, choose one, or have one drawn from a caption")
    if asked.kind == "compare" and str(source).endswith(".safetensors"):
        raise BadOption("methods are compared on a picture, and this is an inversion; drop the picture")
    if asked.kind == "compare" and not asked.methods:
        raise BadOption("no method to compare was chosen; choose at least one")
    if asked.mask is not None and asked.mask != "file" and asked.mask.partition(":")[0] not in WHERE:
        raise BadOption(f"a mask is a drawn one, or {', '.join(WHERE)}; got {asked.mask[:40]!r}")
    if not asked.edits and (asked.editor != PLAIN or asked.mask is not None or asked.paste):
        what = f"editor {asked.editor[:40]}" if asked.editor != PLAIN else "a mask"
        raise BadOption(f"{what} is of edits; say what the edit shall show, or leave it out")
    if (asked.mask == "file") is not (mask is not None):
        raise BadOption("the mask is to be a drawn one, and none was sent; draw it, or choose another")


def _pairs(settings: dict[str, str]) -> list[str]:
    """As `--set` takes them; no setting names a file, since that would be one of the server.

    Raises:
        BadOption: one that does.
    """
    for name, value in settings.items():
        if (
            name.rpartition(".")[2] in OF_FILES
            or value.lstrip().startswith("@")
            or re.search(r"[/\\\0]", value)
            or "=" in name
        ):
            raise BadOption(f"setting {name[:40]!r} is not to name a file of the server; give the value itself")
    return [f"{name}={value}" for name, value in settings.items()]


def _inverted(asked: Asked, placed: Options) -> dict[str, Any]:
    names = ("method", "steps", "guidance_scale", "guidance_schedule", "strength", "seed", "fit", "clip")
    own = {name: getattr(asked, name) for name in names}
    sampling = asked.sampling_guidance_scale
    if asked.edits and asked.edit_guidance_scale is not None and get_method(asked.method).edits_as_fitted:
        if sampling not in (None, asked.edit_guidance_scale):
            raise BadOption(
                f"{asked.method} edits under the guidance that it was fitted under; {sampling:g} of the reconstruction "
                f"and {asked.edit_guidance_scale:g} of the edit differ"
            )
        sampling = asked.edit_guidance_scale
    options = {
        "model": asked.model,
        **placed,
        "prompt": asked.prompt,
        "negative_prompt": asked.negative_prompt,
        "class_labels": asked.class_labels,
        "negative_class_labels": asked.negative_class_labels,
        **{"method": own.pop("method"), "set": _pairs(asked.settings), "steps": own.pop("steps")},
        **own,
        "sampling_guidance_scale": sampling,
        "first_step_radius": asked.first_step_radius,
    }
    return _given(options)


def _edited(asked: Asked, mask: str | None, stem: str) -> dict[str, Any]:
    masked = asked.mask is not None
    options = {
        "target_prompt": asked.target_prompt,
        "class_labels": asked.target_class_labels,
        "negative_prompt": asked.negative_prompt,
        "negative_class_labels": asked.negative_class_labels,
        "editor": asked.editor,
        "editor_set": _pairs(asked.editor_settings),
        "guidance_scale": asked.edit_guidance_scale,
        "mask": mask if asked.mask == "file" else asked.mask,
        "mask_feather": asked.mask_feather if masked else None,
        "mask_dilate": asked.mask_dilate if masked else None,
        "paste": asked.paste,
        "output": f"out/{stem}-edit.png",
        "force": asked.force,
    }
    return _given(options)


def _compared(asked: Asked, placed: Options) -> dict[str, Any]:
    edits = asked.target_prompt is not None
    options = {
        "methods": ",".join(asked.methods),
        "model": asked.model,
        **placed,
        **{name: getattr(asked, name) for name in ("prompt", "negative_prompt", "target_prompt")},
        "editor": asked.editor if edits else None,
        "editor_set": _pairs(asked.editor_settings) if edits else None,
        "edit_guidance_scale": asked.edit_guidance_scale if edits else None,
        "quick": asked.quick,
        **{name: getattr(asked, name) for name in ("steps", "guidance_scale", "sampling_guidance_scale")},
        **{name: getattr(asked, name) for name in ("guidance_schedule", "seed", "fit")},
        "output": "compared",
        "pictures": True,
        "force": asked.force,
    }
    return _given(options)


def _sampled(asked: Asked, placed: Options) -> dict[str, Any]:
    return {
        "model": asked.model,
        **placed,
        **{name: getattr(asked, name) for name in ("prompt", "negative_prompt", "class_labels", "steps")},
        **{name: getattr(asked, name) for name in ("guidance_scale", "seed")},
        "output": "scene.png",
        "force": asked.force,
    }
