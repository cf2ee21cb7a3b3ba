"""`unsample edit`: a picture, or a saved inversion of one, played back under another prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsample.cli import checks, options, outside, places, record, session, subject, talk
from unsample.cli.flat import But, command
from unsample.cli.invert import inverted, skew_of
from unsample.cli.options import EditOptions, EndOptions, Placement, WalkOptions
from unsample.cli.subject import SubjectFiles
from unsample.edits import Editor
from unsample.errors import BadInput, BadOption, Diverged
from unsample.media.fitting import at_source_size
from unsample.preflight import rules
from unsample.preflight.known import known_model
from unsample.preflight.walk import Labels
from unsample.verbs import api
from unsample.verbs.fidelity import Fidelity

if TYPE_CHECKING:
    from PIL.Image import Image

    from unsample.models.base import Model
    from unsample.verbs.results import Images, Inversion

AS_INVERTED = But(
    leave=("sampling_guidance_scale", "guidance_schedule"), rename={"guidance_scale": "inversion_guidance_scale"}
)


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        edit,
        "unsample edit scene.png --target-prompt 'a blue circle' --grid -o blue.png",
        "unsample edit out/a.safetensors --target-prompt 'a star' --guidance-scale 1,3",
    )


def edit(
    context: typer.Context,
    input: options.EditInput,
    *,
    to: EditOptions,
    model: options.EitherModel = None,
    allow_other_model: options.AllowOther = False,
    place: Placement,
    source_prompt: options.SourcePrompt = None,
    source_class_labels: options.SourceClassLabels = None,
    walk: Annotated[WalkOptions, AS_INVERTED],
    output: options.EditOutput = "edit.png",
    grid: options.Grid = False,
    end: EndOptions,
) -> int:
    """Change a picture by a prompt: invert it, then play it back under another.

    A picture is inverted first, by the options in the panel Inversion. A saved
    inversion is taken as it is, and those options are refused when they
    contradict what it records.
    """
    negative = to.negative_class_labels
    editor = checks.configured_editor(to.editor, to.editor_set)
    targets = target_prompts(to, isinstance(editor, Editor) and not editor.needs_prompt)
    labels = checks.labels(to.class_labels, negative, 1)
    source_labels = checks.labels(source_class_labels, source_class_labels and negative, 1, "source_class_labels")
    wanted = EditSpec(
        targets,
        rules.check_text(to.negative_prompt, "negative_prompt"),
        scales(to.guidance_scale, grid),
        to.guidance_schedule,
        grid,
        places.png_path(output),
        allow_other_model,
        labels,
        editor,
    )
    rules.check_text(source_prompt, "source_prompt")
    where = checks.place(place)
    input = places.the_one(input)
    saved = places.is_inversion(input)
    if not saved:  # options before files
        own = replace(checks.walk(walk), guidance_schedule=to.guidance_schedule or "constant", labels=source_labels)
        own = subject.fitted_to(own, wanted.scales)
    named = None if model is None else known_model(model)
    if saved:
        edited = subject.from_inversion(input, named, walk, source_prompt, _given(context), allow_other_model)
    else:
        edited = subject.from_picture(input, named, own, (source_prompt, to.negative_prompt))
    for target in targets:
        edited.model.check(None, target, name="target_prompt")
    edited.model.check_labels(labels.classes, labels.negative)
    if not saved:
        edited.model.check_labels(source_labels.classes, source_labels.negative, "source_class_labels")
    elif source_class_labels is not None:
        raise BadOption("--source-class-labels is for a picture; an inversion holds its own: leave it out")
    said = (*targets, to.negative_prompt)
    if edited.recorded is not None:
        outside.check(outside.of_inversion(edited.model, edited.recorded, said), end.force)
    elif edited.job is not None:
        outside.check(outside.of_jobs([edited.job], walk.fit, said), end.force)
    if isinstance(editor, Editor):
        rules.check_edits(edited.method, editor)
        rules.check_source_prompt(editor, edited.prompts)
    places.check_outputs(wanted.files(), end.overwrite, [input])
    return _run(edited, wanted, where, end.json)


@dataclass(frozen=True)
class EditSpec:
    """What the edit shall be, and where it goes."""

    prompts: tuple[str | None, ...]  # None: by class labels, or by settings of the editor
    negative_prompt: str | None
    scales: tuple[float | None, ...]  # None: the method's own
    schedule: str | None
    grid: bool
    output: Path
    allow_other_model: bool
    labels: Labels
    editor: Editor | str = "none"  # configured, or auto

    @property
    def sheet(self) -> bool:
        """Whether one sheet of several scales is wanted in place of the edits."""
        return len(self.scales) > 1

    @property
    def figure(self) -> Path:
        """Where `--grid` puts the figure."""
        return self.output.with_name(f"{self.output.stem}-grid.png")

    @property
    def edits(self) -> list[Path]:
        """The file of each prompt's edit, at the model's size."""
        if self.sheet:
            return [self.output] * len(self.prompts)
        stems = places.free_stems([self.output.stem] * len(self.prompts))
        return [self.output.with_name(f"{stem}{self.output.suffix}") for stem in stems]

    def files(self) -> list[Path]:
        """All that may be written; a sheet is alone."""
        if self.sheet:
            return [self.output]
        return [*self.edits, *map(scaled, self.edits), *([self.figure] if self.grid else [])]


def scaled(edit: Path) -> Path:
    """The file of an edit at the source's size."""
    return edit.with_name(f"{edit.stem}-source-size.png")


@dataclass(frozen=True)
class EditJob:
    """One edit, to one prompt at one guidance scale; `made` is None where it diverged."""

    prompt: str | None
    file: Path
    scale: float
    row: dict[str, Any]
    made: Images | None = None
    image: Image | None = None
    figures: Fidelity | None = None


def target_prompts(to: EditOptions, told: bool = False) -> tuple[str | None, ...]:
    """What the edits shall show, from `--target-prompt` and `--prompt`, of which one is enough.

    Args:
        to: what was given.
        told: whether the settings of the editor say what is edited, so that no prompt need do it.

    Raises:
        BadOption: neither of them nor class labels, two that differ, or one that is no text.
    """
    named, alias = to.target_prompt or [], to.prompt or []
    if named and alias and named != alias:
        raise BadOption(
            f"--prompt {alias[0]!r} and --target-prompt {named[0]!r}: both say what the edit shall show; give one of "
            "them, and what the picture shows as --source-prompt"
        )
    if not named and not alias:
        if to.class_labels is None and not told:
            raise BadOption("edit needs --target-prompt, or --class-labels for a model that draws classes")
        return (None,)
    name = "target_prompt" if named else "prompt"
    return tuple(rules.check_text(text, name) or "" for text in named or alias)


def scales(text: str | None, grid: bool) -> tuple[float | None, ...]:
    """`5` or `1,3,5`; (None,) where nothing was given."""
    if text is None:
        return (None,)
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BadOption(f"--guidance-scale takes a number, or several like 1,3,5; got {text!r}") from error
    for value in values:
        checks.guidance("guidance_scale", value)
    if grid and len(values) > 1:
        raise BadOption("--grid shows one guidance scale; give one, or leave --grid out for a sheet of several")
    return values


def _given(context: typer.Context) -> frozenset[str]:
    """The options that stood on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")


# ---------------------------------------------------------------- with torch


def _run(subject: SubjectFiles, wanted: EditSpec, where: Placement, as_json: bool) -> int:
    model = session.load(subject.model, where)
    with talk.naming([subject.path]):
        inversion = _inversion(model, subject, wanted)
        pairs = [(p, f, w) for p, f in zip(wanted.prompts, wanted.edits, strict=True) for w in wanted.scales]
        edits = [_edit(model, inversion, subject, wanted, *pair) for pair in pairs]
        if all(e.made is None for e in edits):
            raise Diverged(f"{subject.path}: every edit diverged, at {edits[0].row['diverged_at']}; try other guidance")
        if wanted.sheet:
            written = [_write_sheet(inversion, subject, wanted, edits)]
        else:
            written = [file for e in edits if e.image is not None for file in _write_edit(inversion, subject, e)]
            if wanted.grid:
                written.append(_write_grid(model, inversion, subject, wanted, edits))
    talk.say(f"wrote {', '.join(str(f) for f in written)}")
    session.warn_out_of_domain(model, [(subject.path, e.figures) for e in edits[:1] if e.figures])
    return record.ended(as_json, [model.id] * len(edits), subject.method.name, [e.row for e in edits])


def _inversion(model: Model, subject: SubjectFiles, wanted: EditSpec) -> Inversion:
    if subject.recorded is not None:
        return session.open_inversion(model, subject.path, wanted.allow_other_model)
    assert subject.job is not None
    assert subject.walk is not None
    try:
        inversion = inverted(model, [subject.job], subject.walk)
    except Diverged as error:
        raise Diverged(f"{subject.path}: {error}") from error
    for text in record.noted(inversion):
        talk.note(f"{subject.path}: {text}")
    talk.say(f"{subject.path}: inverted, {inversion.nfe[0]} nfe, {inversion.seconds:.1f} s{skew_of(inversion)}")
    return inversion


def _edit(
    model: Model,
    inversion: Inversion,
    subject: SubjectFiles,
    wanted: EditSpec,
    prompt: str | None,
    file: Path,
    asked: float | None,
) -> EditJob:
    from unsample.verbs.playing import edit_guidance

    own = wanted.editor.edit_guidance_scale if isinstance(wanted.editor, Editor) else None
    own = None if subject.method.edits_as_fitted else own
    scale = edit_guidance(model, inversion, own if asked is None else asked, wanted.labels.negative)
    about: dict[str, Any] = {"input": subject.path, "inversion": subject.path if subject.recorded else None}
    about |= {"health": inversion.health[0], "guidance_scale": scale, "prompt": prompt}
    to = f" to {prompt!r}" if len(wanted.prompts) > 1 else ""
    try:
        made = api.edit(
            model,
            inversion,
            prompt,
            editor=wanted.editor,
            guidance_scale=asked,
            guidance_schedule=wanted.schedule,
            negative_prompt=wanted.negative_prompt,
            allow_other_model=wanted.allow_other_model,
            **wanted.labels.taken([0]),
        )
    except Diverged as error:
        said = f"the edit{to} at guidance {scale:g} diverged at {error.lost_at[0]}; nothing was written for it"
        talk.error(f"{subject.path}: {said}")
        return EditJob(prompt, file, scale, record.lost("edit", error, 0, **about))
    figures, cost = session.measured(model, inversion, made.images), record.cost(made, 0)
    scale, chosen = made.meta["guidance_scale"], made.meta.get("auto")
    about |= {"guidance_scale": scale, "editor": made.meta.get("editor"), "editor_notes": made.meta.get("editor_notes")}
    if chosen:
        talk.note(f"{subject.path}: auto: {chosen}")
        about |= {"auto": chosen}
    talk.say(
        f"{subject.path}: edited{to} at guidance {scale:g}, {figures.spoken(' from the source')}, {made.nfe[0]} nfe, "
        f"{made.seconds:.1f} s"
    )
    about |= {"picture": file, "figures": figures, "status": inversion.status[0], "inversion_nfe": inversion.nfe[0]}
    row = record.row("edit", **about, **cost, outside=record.outside_of(made.meta, 0), notes=record.noted(inversion))
    return EditJob(prompt, file, scale, row, made, session.as_pil(made.images), figures)


def _write_edit(inversion: Inversion, subject: SubjectFiles, edit: EditJob) -> list[Path]:
    """An edit at the model's size, and at the source's where that is another."""
    from unsample.media.pictures import write_png

    assert edit.made is not None
    assert edit.image is not None
    about, larger = edit.made.settings(0) | {"input": subject.path}, None
    if inversion.source is not None:  # refuses a size that cannot be, before anything is written
        larger = at_source_size(edit.image, inversion.meta["source_sizes"][0], inversion.meta.get("fit"))
    write_png(edit.image, edit.file, about)
    edit.row["edit_source_size"] = None if larger is None else str(scaled(edit.file))
    if larger is None:
        return [edit.file]
    write_png(larger, scaled(edit.file), about | {"size": larger.size})
    return [edit.file, scaled(edit.file)]


def _write_grid(
    model: Model, inversion: Inversion, subject: SubjectFiles, wanted: EditSpec, edits: Sequence[EditJob]
) -> Path:
    """The figure, a row for each edit that did not diverge."""
    from unsample.media.figures import edit_figure
    from unsample.media.pictures import write_png

    again = session.as_pil(api.reconstruct(model, inversion, allow_other_model=wanted.allow_other_model).images)
    kept = [(e, e.image) for e in edits if e.image is not None]
    labels = [f"edit: {e.prompt}" if len(wanted.prompts) > 1 else "edit" for e, _ in kept]
    figure = edit_figure(source_picture(inversion, subject), again, *(image for _, image in kept), labels=labels)
    about = _together([e for e, _ in kept], subject, "source, reconstruction, edit, difference")
    write_png(figure, wanted.figure, about)
    for e, _ in kept:
        e.row["figure"] = str(wanted.figure)
    return wanted.figure


def _write_sheet(inversion: Inversion, subject: SubjectFiles, wanted: EditSpec, edits: Sequence[EditJob]) -> Path:
    """A row a prompt: the source, and the edit at each guidance scale."""
    from PIL import Image

    from unsample.media.figures import sheet
    from unsample.media.pictures import write_png

    kept = [e for e in edits if e.image is not None]
    blank = Image.new("RGB", kept[0].image.size if kept[0].image else (1, 1), "white")
    several = len(wanted.prompts) > 1
    shown: list[tuple[str, Image.Image]] = []
    for k, e in enumerate(edits):
        first = k % len(wanted.scales) == 0
        if first and inversion.source is not None:
            shown.append(("source", source_picture(inversion, subject)))
        to = f": {e.prompt}" if first and several else ""
        shown.append((f"guidance {e.scale:g}{to}" if e.image else f"guidance {e.scale:g}: diverged", e.image or blank))
    figure = sheet([image for _, image in shown], [label for label, _ in shown], len(shown) // len(wanted.prompts))
    write_png(figure, wanted.output, _together(kept, subject, None) | {"guidance_scales": [e.scale for e in kept]})
    return wanted.output


def _together(edits: Sequence[EditJob], subject: SubjectFiles, figure: str | None) -> dict[str, Any]:
    """The settings of a figure of several edits: what they share, all the prompts, and what it shows."""
    assert edits[0].made is not None
    prompts = list(dict.fromkeys(e.prompt for e in edits))
    own = {"size", *(["prompt"] if len(prompts) > 1 else []), *([] if figure else ["guidance_scale"])}
    about = {k: v for k, v in edits[0].made.settings(0).items() if k not in own} | {"input": subject.path}
    return about | ({"prompts": prompts} if len(prompts) > 1 else {}) | ({"figure": figure} if figure else {})


def source_picture(inversion: Inversion, subject: SubjectFiles) -> Image:
    """The source as the model saw it."""
    from PIL import Image

    if inversion.source is None:
        raise BadInput(f"{subject.path} holds no source picture (it was made from latents); leave --grid out")
    return Image.fromarray(inversion.source[0].numpy())
