"""`unsample compare`: several methods on one picture, side by side: a figure and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsample.cli import checks, options, outside, places, record, session, talk
from unsample.cli.flat import But, command
from unsample.cli.invert import skew_of
from unsample.cli.jobs import InvertJob, check_sizes, from_metadata, plan
from unsample.cli.methods import table
from unsample.cli.options import EDIT, METHODS, OUTPUT, EndOptions, Placement, PromptOptions, WalkOptions, argument, opt
from unsample.datasets.item import Item
from unsample.edits import Editor
from unsample.errors import BadOption, Incompatible
from unsample.experiment.cell import run_cells
from unsample.experiment.setup import PLAIN_EDIT, Setup
from unsample.media.files import as_csv, atomic_write
from unsample.preflight import rules
from unsample.preflight.known import known_model
from unsample.preflight.walk import Walk
from unsample.verbs.fidelity import Fidelity, compared

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from unsample.experiment.findings import Findings
    from unsample.models.base import Model
    from unsample.verbs.fidelity import Fidelity
    from unsample.verbs.results import Inversion

COLUMNS = (
    "method",
    "stores",
    "guidance",
    "record_psnr",
    "noise_psnr",
    "std",
    "lag1",
    "nfe",
    "backward",
    "seconds",
    "status",
)
EDIT_COLUMNS = ("edit_guidance", "edit_psnr", "edit_nfe", "edit_status")  # psnr from the source: how much was changed


LEFT_OUT = But(leave=("method", "set", "strength", "clip"))


def add_to(app: typer.Typer) -> None:
    """The verb and its examples."""
    command(
        app,
        compare,
        "unsample compare scene.png --methods ddim,null_text --prompt 'a star'",
        "unsample compare scene.png --target-prompt 'a blue star' --quick",
    )


def compare(
    image: Annotated[str, argument("IMAGE", "A picture.")],
    *,
    methods: Annotated[
        str, opt(METHODS, "NAME[,NAME...]", "'unsample methods' lists them.")
    ] = "ddim,fixed_point,easyinv",
    model: options.ModelName = None,
    place: Placement,
    prompts: PromptOptions,
    target_prompt: Annotated[
        str | None,
        opt(EDIT, "TEXT", "What an edit by each method shall show, in figure and table.", default="no edit"),
    ] = None,
    edit_guidance_scale: Annotated[
        float | None,
        opt(EDIT, "W", "Guidance of the edits.", default="the editor's own, else each method's own for edits, else 5"),
    ] = None,
    editor: Annotated[
        str, opt(EDIT, "NAME", "What edits take of their source: 'unsample editors' lists them; auto: by the prompts.")
    ] = "none",
    editor_set: Annotated[
        list[str] | None, opt(EDIT, "KEY=VALUE", options.EDITOR_SET_HELP, default="the editor's own")
    ] = None,
    set: Annotated[
        list[str] | None,
        opt(
            METHODS,
            "METHOD.KEY=VALUE",
            "A setting of one of the methods; may be repeated.",
            default="the methods' own",
        ),
    ] = None,
    quick: Annotated[bool, opt(METHODS, None, "Each method's quick preset, for a look.", "--quick")] = False,
    walk: Annotated[WalkOptions, LEFT_OUT],
    output: options.Folder = "compared",
    pictures: Annotated[
        bool,
        opt(
            OUTPUT,
            None,
            "Write the pictures of the figure one by one too: source.png, METHOD-reconstruction.png, -noise.png, "
            "-edit.png.",
            "--pictures",
        ),
    ] = False,
    force: options.Force = False,
    raw_csv: options.RawCsv = False,
    end: Annotated[EndOptions, But(leave=("force",))],
) -> int:
    """Invert one picture by several methods and show what each makes of it.

    It writes DIR/compare.png (reconstruction, its difference from the source,
    recovered noise) and DIR/compare.csv. `record` plays back all that a method
    stored, `noise` samples from the recovered noise alone: rank methods within
    a column, not across the two. With --target-prompt each method edits too.
    """
    walks = [checks.walk(walk, name, own) for name, own in chosen(methods, set or [], quick).items()]
    target = EditTarget.checked(target_prompt, edit_guidance_scale, checks.configured_editor(editor, editor_set))
    if target is not None:
        walks = [target.fitted(walk) for walk in walks]
    where = checks.place(place)
    texts = checks.prompts(prompts)
    image = places.the_one(image)
    named = None if model is None else known_model(model)
    job = plan(places.open_pictures([image]), named, texts, Path(output))[0]
    talk.notes(from_metadata([job], model is None, prompts.prompt is None))
    job.model.check(walk.steps, job.prompt, (walk.guidance_scale, walk.sampling_guidance_scale))
    job.model.check(None, target.prompt if target else None, name="target_prompt")
    for one in walks:
        job.model.check_method(one.method, job.prompt)
        rules.check_needs_trajectory(one.method, False)
    if target is not None and isinstance(target.editor, Editor):
        rules.check_source_prompt(target.editor, [job.prompt])
    check_sizes([job], walk.fit)
    outside.check(outside.of_jobs([job], walk.fit, [target.prompt] if target else []), force)
    files = [Path(output) / "compare.png", Path(output) / "compare.csv"]
    alone = _alone(Path(output), walks, target) if pictures else {}
    places.check_outputs([*files, *alone.values()], end.overwrite, [image])
    return _run(job, walks, target, where, files, alone, end.json, raw_csv)


@dataclass(frozen=True)
class EditTarget:
    """What the edits shall show, under which guidance (None: the editor's or the method's own), by which editor."""

    prompt: str
    guidance_scale: float | None
    editor: Editor | str

    @staticmethod
    def checked(prompt: str | None, scale: float | None, editor: Editor | str) -> EditTarget | None:
        """From the options; None where no edit is wanted.

        Raises:
            BadOption: guidance or an editor without a prompt, or one of them cannot be.
        """
        checks.guidance("edit_guidance_scale", scale)
        if prompt is not None:
            return EditTarget(rules.check_text(prompt, "target_prompt") or "", scale, editor)
        named = isinstance(editor, str) or editor.name != PLAIN_EDIT
        if scale is not None or named:
            option = "--edit-guidance-scale" if scale is not None else "--editor"
            raise BadOption(f"{option} is of edits; give --target-prompt too, or leave it out")
        return None

    def fitted(self, walk: Walk) -> Walk:
        """A method whose record holds under one guidance is fitted under that of the edit.

        Raises:
            BadOption: it shall be fitted under another one.
        """
        if not walk.method.edits_as_fitted or self.guidance_scale in (None, walk.sampling_guidance_scale):
            return walk
        if walk.sampling_guidance_scale is not None:
            raise BadOption(
                f"{walk.method.name} edits under the guidance that it was fitted under; --sampling-guidance-scale "
                f"{walk.sampling_guidance_scale:g} and --edit-guidance-scale {self.guidance_scale:g} differ"
            )
        return replace(walk, sampling_guidance_scale=self.guidance_scale)


def chosen(methods: str, settings: Sequence[str], quick: bool) -> dict[str, list[str]]:
    """The methods in order, each with its own settings as `--set` writes them.

    Raises:
        BadOption: a method named twice, a setting of a method that is not compared. UnknownName: no such method.
    """
    from unsample.methods import get_method

    names = [name.strip() for name in methods.split(",") if name.strip()]
    for name in names:
        get_method(name)
    if not names or len({*names}) < len(names):
        raise BadOption(f"--methods takes different names, separated by commas; got {methods!r}")
    found: dict[str, list[str]] = {name: ["preset=quick"] if quick else [] for name in names}
    for pair in settings:
        name, dot, rest = pair.partition(".")
        if not dot or name not in found:
            raise BadOption(f"--set takes METHOD.KEY=VALUE of one of {', '.join(names)}; got {pair!r}")
        found[name].append(rest)
    return found


SOURCE = ("", "source")


def _alone(folder: Path, walks: Sequence[Walk], target: EditTarget | None) -> dict[tuple[str, str], Path]:
    """The files of the pictures that are written one by one, by method and what they show."""
    shown = ("reconstruction", "noise", *(["edit"] if target else []))
    files = {(w.method.name, what): folder / f"{w.method.name}-{what}.png" for w in walks for what in shown}
    return {SOURCE: folder / "source.png"} | files


@dataclass(frozen=True)
class Compared:
    """One method's outcome; `picture` is None where it diverged."""

    row: dict[str, Any]
    picture: Image | None = None
    source: Image | None = None  # as the model saw it
    alone: Image | None = None  # the encoder's own round trip
    noise: Tensor | None = None
    figures: Fidelity | None = None
    edit: Image | None = None


def _run(
    job: InvertJob,
    walks: Sequence[Walk],
    target: EditTarget | None,
    where: Placement,
    files: Sequence[Path],
    alone: Mapping[tuple[str, str], Path],
    as_json: bool,
    raw_csv: bool,
) -> int:
    model = session.load(job.model, where)
    found = [_one(model, job, walk, target) for walk in walks]
    written = [files[0]] if _write_figure(job, found, target, files[0]) else []
    written += _write_alone(job, found, target, alone)
    columns = (*COLUMNS, *(EDIT_COLUMNS if target else ()))
    text = as_csv(columns, (f.row for f in found), raw_csv)
    atomic_write(files[1], lambda temporary: temporary.write_text(text, encoding="utf-8"))
    session.warn_out_of_domain(model, [(job.source.path, f.figures) for f in found[:1] if f.figures])
    if as_json:
        talk.document(record.document([model.id] * len(found), None, [f.row for f in found]))
    else:
        talk.answer(table([columns, *([_shown(f.row[c]) for c in columns] for f in found)]))
    talk.say(f"wrote {', '.join(str(f) for f in [*written, files[1]])}")
    return 5 if all(f.picture is None for f in found) else 0


def _one(model: Model, job: InvertJob, walk: Walk, target: EditTarget | None) -> Compared:
    """The experiment on one picture, as a row and pictures."""
    name = walk.method.name
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"method": name, "stores": walk.method.stores, "nonfinite_at": None}
    if target is not None:
        row |= dict.fromkeys(EDIT_COLUMNS) | {"target_prompt": target.prompt}
    wanted = target.prompt if target else None
    item = Item(id=job.source.name, image=job.source.open(), prompt=job.prompt, target_prompt=wanted)
    with talk.naming([f"{job.source.path} ({name})"]):
        try:
            found = run_cells(model, [item], _setup(job, walk, target), progress=None)
        except Incompatible as error:  # the others are worth comparing all the same
            talk.error(f"{name}: {error}")
            return Compared(row | {"status": "refused"})
    row["nonfinite_at"] = found.nonfinite_at[0]
    inversion = found.inversion
    if inversion is None:
        talk.error(f"{name}: {found.reason('record')}")
        return Compared(row | {"status": "diverged"})
    for use, what in (("record", "its record"), ("noise", "its noise alone")):
        if use in found.failures:
            talk.error(f"{name}: {what}: {found.reason(use)}")
    figures = {use: _figures(found, use) for use in ("record", "noise") if use in found.pictures}
    edit = _edit(found, walk, row) if target else None
    outside = [*found.outside[0], *(figures["record"].reasons if "record" in figures else [])]
    row |= {"out_of_domain_reasons": outside, "out_of_domain": bool(outside)}
    row |= {f"{use}_psnr": _decibels(f) for use, f in figures.items()} | _facts(inversion)
    if "record" not in figures:
        return Compared(row | {"status": "diverged"})
    talk.say(
        f"{name}: {figures['record'].spoken()}, {inversion.nfe[0]} nfe, {inversion.seconds:.1f} s{skew_of(inversion)}"
    )
    assert found.ceiling is not None
    picture, source, alone = (session.as_pil(p) for p in (found.pictures["record"], found.source, found.ceiling))
    return Compared(row, picture, source, alone, inversion.noise[0], figures["record"], edit)


def _setup(job: InvertJob, walk: Walk, target: EditTarget | None) -> Setup:
    """What is asked of the experiment: seeded as `unsample invert` seeds, so that the figures are the same."""
    return Setup(
        method=walk.method,
        guidance=walk.sampling_guidance_scale,
        guidance_schedule=walk.guidance_schedule,
        inversion_guidance=walk.guidance_scale,
        steps=walk.steps,
        stages=("record", "noise", *(["edit"] if target else [])),
        edit_guidance=target.guidance_scale if target else None,
        editor=target.editor if target else PLAIN_EDIT,
        negative_prompt=job.negative_prompt,
        seed=walk.seed,
        seeding="picture",
        fit=walk.fit,
        play_noised=True,
    )


def _figures(found: Findings, stage: str) -> Fidelity:
    """How near a stage's picture is to its source."""
    from unsample.metrics.pixels import eight_bit, psnr

    assert found.ceiling is not None
    ceiling = psnr(eight_bit(found.ceiling), eight_bit(found.source))
    return compared(found.pictures[stage], found.source, ceiling)[0]


def _edit(found: Findings, walk: Walk, row: dict[str, Any]) -> Image | None:
    """The edit by one method, its columns put into the row; none where the method cannot edit, or diverged."""
    name, scale = walk.method.name, found.edit_guidance
    if walk.method.refuses_edit and "edit" not in found.made:
        talk.say(f"{name}: cannot edit: {walk.method.refuses_edit}")
        row["edit_status"] = "refused"
        return None
    row["edit_guidance"] = scale
    if "edit" in found.failures:
        talk.error(f"{name}: its edit: {found.reason('edit')}")
        row["edit_status"] = "refused" if isinstance(found.failures["edit"], Incompatible) else "diverged"
        return None
    figures, nfe = _figures(found, "edit"), found.made["edit"].nfe[0]
    if chosen := found.made["edit"].meta.get("auto"):
        talk.note(f"{name}: auto: {chosen}")
    talk.say(f"{name}: edited at guidance {scale:g}, {figures.spoken(' from the source')}, {nfe} nfe")
    row |= {"edit_psnr": _decibels(figures), "edit_nfe": nfe, "edit_status": "ok"}
    row |= {"editor": found.made["edit"].meta.get("editor")}
    return session.as_pil(found.pictures["edit"])


def _facts(inversion: Inversion) -> dict[str, Any]:
    health = inversion.health[0]
    guidance = inversion.meta["sampling_guidance_scale"]
    cost = {
        "guidance": guidance,
        "nfe": inversion.nfe[0],
        "backward": inversion.backward[0],
        "seconds": inversion.seconds,
    }
    return {"std": health["std"], "lag1": health["lag1_correlation"], **cost, "status": inversion.status[0]} | {
        "nonfinite_at": inversion.nonfinite_at[0]
    }


def _decibels(figures: Fidelity) -> float | str | None:
    return "exact" if figures.psnr is not None and math.isinf(figures.psnr) else figures.psnr


def _write_figure(job: InvertJob, found: Sequence[Compared], target: EditTarget | None, path: Path) -> bool:
    """The source, then a row a method: reconstruction, difference (one factor for all), recovered noise, edit.

    Whether it was written: there is nothing to show where every method diverged.
    """
    from PIL import Image

    from unsample.media.figures import difference, noise_picture, sheet
    from unsample.media.pictures import write_png

    kept = [f for f in found if f.picture is not None]
    if not kept:
        return False
    source, alone = kept[0].source, kept[0].alone
    assert source is not None
    assert alone is not None
    held = kept[0].figures.ceiling if kept[0].figures else None
    ceiling = "exact" if held is None or math.isinf(held) else f"{held:.1f} dB"
    factors = [difference(source, f.picture)[1] for f in kept if f.picture]
    factor = min((n for n in factors if n), default=1)
    blank = Image.new("RGB", source.size, "white")
    panels: list[tuple[str, Image.Image]] = [("source", source), (f"encoder alone: {ceiling}", alone), ("", blank)]
    if target is not None:
        panels.append((f"to edit to: {target.prompt}", blank))
    for f in kept:
        assert f.picture is not None
        assert f.noise is not None
        decibels = f.row["record_psnr"]
        name = f"{f.row['method']}: " + (decibels if isinstance(decibels, str) else f"{decibels or 0:.1f} dB")
        heat = difference(source, f.picture, factor)[0]
        std = f"noise, std {f.row['std']:.2f}"
        panels += [
            (name, f.picture),
            (f"difference x{factor}", heat),
            (std, noise_picture(f.noise.tolist(), source.size)),
        ]
        if target is not None:
            scale = "" if f.row["edit_guidance"] is None else f", guidance {f.row['edit_guidance']:g}"
            by = (f.row.get("editor") or {}).get("name", PLAIN_EDIT)
            label = f"edit{'' if by == PLAIN_EDIT else f' by {by}'}{scale}"
            panels.append((label if f.edit else f"{label}: {f.row['edit_status']}", f.edit or blank))
    figure = sheet([p for _, p in panels], [label for label, _ in panels], columns=4 if target else 3)
    about: dict[str, Any] = {"verb": "compare", "input": job.source.path, "methods": [f.row["method"] for f in found]}
    if target is not None:
        about |= {"target_prompt": target.prompt} | editor_told(target.editor)
    write_png(figure, path, about)
    return True


def _write_alone(
    job: InvertJob, found: Sequence[Compared], target: EditTarget | None, files: Mapping[tuple[str, str], Path]
) -> list[Path]:
    """The pictures of the figure one by one; of a method that diverged there are none."""
    from unsample.media.figures import noise_picture
    from unsample.media.pictures import write_png

    shown: dict[tuple[str, str], Image | None] = {SOURCE: next((f.source for f in found if f.source), None)}
    for f in found:
        noise = None if f.noise is None or f.picture is None else noise_picture(f.noise.tolist(), f.picture.size)
        shown |= {(f.row["method"], "reconstruction"): f.picture, (f.row["method"], "noise"): noise}
        shown[f.row["method"], "edit"] = f.edit
    for f in found:
        f.row["pictures"] = {what: str(file) for (name, what), file in files.items() if name == f.row["method"]
                             and shown.get((name, what))}  # fmt: skip
    written = []
    for (name, what), file in files.items():
        if (image := shown.get((name, what))) is not None:
            about: dict[str, Any] = {"verb": "compare", "input": job.source.path, "figure": what}
            about |= {"method": name} if name else {}
            about |= {"prompt": target.prompt} if target is not None and what == "edit" else {"prompt": job.prompt}
            write_png(image, file, {k: v for k, v in about.items() if v is not None})
            written.append(file)
    return written


def editor_told(editor: Editor | str) -> dict[str, Any]:
    """An editor as the settings of a picture tell it, where there is one; auto as a word."""
    if isinstance(editor, str):
        return {"editor": editor}
    return {} if editor.name == PLAIN_EDIT else {"editor": editor.name, "editor_settings": dict(editor.settings)}


def _shown(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
