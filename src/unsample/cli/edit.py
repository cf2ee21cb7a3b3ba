"""`unsample edit`: a picture, or a saved inversion of one, played back under another prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsample.cli import (
    checks,
    collection,
    edit_files,
    masking,
    options,
    outside,
    places,
    record,
    session,
    subject,
    talk,
)
from unsample.cli.collection import CollectionOptions
from unsample.cli.flat import But, command
from unsample.cli.invert import inverted, skew_of
from unsample.cli.options import EditOptions, EndOptions, MaskOptions, Placement, WalkOptions
from unsample.cli.subject import SubjectFiles
from unsample.edits import Editor
from unsample.edits.masks import MaskAsked
from unsample.errors import BadOption, Diverged
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
    masks: MaskOptions,
    model: options.EitherModel = None,
    allow_other_model: options.AllowOther = False,
    place: Placement,
    source_prompt: options.SourcePrompt = None,
    source_class_labels: options.SourceClassLabels = None,
    walk: Annotated[WalkOptions, AS_INVERTED],
    output: options.EditOutput = "edit.png",
    grid: options.Grid = False,
    batch_size: options.CollectionBatch = "auto",
    many: CollectionOptions,
    end: EndOptions,
) -> int:
    """Change a picture by a prompt: invert it, then play it back under another.

    A picture is inverted first, by the options in the panel Inversion. A saved
    inversion is taken as it is, and those options are refused when they
    contradict what it records. Of a collection, --output is a folder, for shards
    of pictures (.tar) and index.parquet, and rows may have target prompts.
    """
    size = checks.batch_size(batch_size)
    if collection.wanted([input], many):
        asked = collection.EditOf(to, masks, source_prompt, source_class_labels, grid, _given(context))
        folder = Path(output if "output" in asked.given else "edits")
        ending = collection.Ending(folder, end.force, end.overwrite, end.json)
        return collection.edit(input, model, place, asked, walk, allow_other_model, many, size, ending)
    if batch_size != "auto":
        raise BadOption("--batch-size is of a collection; leave it out for one picture")
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
        masking.asked(masks),
        masks.paste,
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
        editor = masking.steered(editor, wanted.masked)
        rules.check_edits(edited.method, editor, wanted.masked is not None)
        rules.check_source_prompt(editor, edited.prompts)
        rules.check_paste(masks.paste, editor, wanted.masked is not None)
    masking.check_words(wanted.masked, edited.prompts, targets)
    places.check_outputs(wanted.files(), end.overwrite, [input, *masking.files(masks, wanted.masked)])
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
    masked: MaskAsked | None = None
    paste: bool = False

    @property
    def finds_mask(self) -> bool:
        """Whether a mask may be found, which is then written."""
        return self.editor == "auto" if self.masked is None else self.masked.how != "given"

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
        masks = map(edit_files.masked, self.edits if self.finds_mask else ())
        return [*self.edits, *map(edit_files.scaled, self.edits), *masks, *([self.figure] if self.grid else [])]


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
    _check_editor(model, subject, wanted)
    with talk.naming([subject.path]):
        inversion = _inversion(model, subject, wanted)
        pairs = [(p, f, w) for p, f in zip(wanted.prompts, wanted.edits, strict=True) for w in wanted.scales]
        edits = [_edit(model, inversion, subject, wanted, *pair) for pair in pairs]
        for note in next((masking.fitted(e.made, wanted.masked) for e in edits if e.made), []):
            talk.note(f"the mask: {note}")
        if all(e.made is None for e in edits):
            raise Diverged(f"{subject.path}: every edit diverged, at {edits[0].row['diverged_at']}; try other guidance")
        if wanted.sheet:
            written = [edit_files.write_sheet(inversion, subject, wanted, edits)]
        else:
            written = [
                file
                for e in edits
                if e.image is not None
                for file in edit_files.write_edit(inversion, subject, wanted, e)
            ]
            if wanted.grid:
                written.append(edit_files.write_grid(model, inversion, subject, wanted, edits))
    talk.say(f"wrote {', '.join(str(f) for f in written)}")
    session.warn_out_of_domain(model, [(subject.path, e.figures) for e in edits[:1] if e.figures])
    return record.ended(as_json, [model.id] * len(edits), subject.method.name, [e.row for e in edits])


def _check_editor(model: Model, subject: SubjectFiles, wanted: EditSpec) -> None:
    """The editor goes with the model and the prompts; asked before the inversion, which may be long."""
    if not isinstance(wanted.editor, Editor) or wanted.labels.classes is not None:
        return
    editor = masking.steered(wanted.editor, wanted.masked)
    if editor.check is not None:
        for own in subject.prompts:
            editor.check(model, [(own or "", (own if target is None else target) or "") for target in wanted.prompts])


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
            mask=wanted.masked,
            paste=wanted.paste,
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
    about |= masking.row(made)
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
