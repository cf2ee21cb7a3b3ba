"""The files of an edit: at the model's size and the source's, its mask, the figure, and the sheet of several scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.cli import masking, session, talk
from unsample.cli.subject import SubjectFiles
from unsample.errors import BadInput
from unsample.media.fitting import at_source_size
from unsample.verbs import api

if TYPE_CHECKING:
    from PIL.Image import Image

    from unsample.cli.edit import EditJob, EditSpec
    from unsample.models.base import Model
    from unsample.verbs.results import Inversion


def scaled(edit: Path) -> Path:
    """The file of an edit at the source's size."""
    return edit.with_name(f"{edit.stem}-source-size.png")


def masked(edit: Path) -> Path:
    """The file of the mask that was found for an edit."""
    return edit.with_name(f"{edit.stem}-mask.png")


def write_edit(inversion: Inversion, subject: SubjectFiles, wanted: EditSpec, edit: EditJob) -> list[Path]:
    """An edit at the model's size, and at the source's where that is another; the mask that was found for it."""
    from unsample.media.pictures import write_png

    assert edit.made is not None
    assert edit.image is not None
    about, larger, written = edit.made.settings(0) | {"input": subject.path}, None, [edit.file]
    if inversion.source is not None:  # refuses a size that cannot be, before anything is written
        larger = at_source_size(edit.image, inversion.meta["source_sizes"][0], inversion.meta.get("fit"))
    write_png(edit.image, edit.file, about)
    edit.row["edit_source_size"] = None if larger is None else str(scaled(edit.file))
    if larger is not None:
        if wanted.paste:
            larger = _pasted(larger, subject, edit)
        write_png(larger, scaled(edit.file), about | {"size": larger.size})
        written.append(scaled(edit.file))
    edit.row["mask_picture"] = None
    if wanted.finds_mask and (mask := masking.picture(edit.made)) is not None:
        write_png(mask, masked(edit.file), about | {"figure": "mask: white was edited"})
        edit.row["mask_picture"] = str(masked(edit.file))
        written.append(masked(edit.file))
    return written


def _pasted(larger: Image, subject: SubjectFiles, edit: EditJob) -> Image:
    """With the source's own pixels at their own size, which the picture has, and a saved inversion has not."""
    if subject.job is None or subject.walk is None:
        talk.note(
            f"{subject.path} holds its source as the model saw it: in {scaled(edit.file)} its pixels are enlarged too; "
            "give the picture itself to have its own"
        )
        return larger
    assert edit.made is not None
    return masking.with_source(larger, subject.job.source.open().pixels, edit.made, subject.walk.fit)


def write_grid(
    model: Model, inversion: Inversion, subject: SubjectFiles, wanted: EditSpec, edits: Sequence[EditJob]
) -> Path:
    """The figure, a row for each edit that did not diverge."""
    from unsample.media.figures import edit_figure
    from unsample.media.pictures import write_png

    kept = [(e, e.image, e.made) for e in edits if e.image is not None and e.made is not None]
    again = kept[0][2].reconstruction
    if again is None:
        again = api.reconstruct(model, inversion, allow_other_model=wanted.allow_other_model).images
    labels = [f"edit: {e.prompt}" if len(wanted.prompts) > 1 else "edit" for e, _, _ in kept]
    masks, maps = [masking.picture(made) for _, _, made in kept], [masking.maps(made) for _, _, made in kept]
    figure = edit_figure(
        source_picture(inversion, subject),
        session.as_pil(again[:1]),
        *(image for _, image, _ in kept),
        labels=labels,
        masks=masks,
        maps=maps,
    )
    shown = ["source", "reconstruction", *(["mask"] if any(masks) else []), "edit", "difference"]
    shown += ["attention maps"] if any(maps) else []
    write_png(figure, wanted.figure, _together([e for e, _, _ in kept], subject, ", ".join(shown)))
    for e, _, _ in kept:
        e.row["figure"] = str(wanted.figure)
    return wanted.figure


def write_sheet(inversion: Inversion, subject: SubjectFiles, wanted: EditSpec, edits: Sequence[EditJob]) -> Path:
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
