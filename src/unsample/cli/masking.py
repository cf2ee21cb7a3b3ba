"""`--mask` and what goes with it: read and checked before any work, and written beside the edit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unsample.cli import talk
from unsample.cli.options import MaskOptions
from unsample.edits import Editor
from unsample.edits.masks import MaskAsked
from unsample.media.fitting import at_source_size

if TYPE_CHECKING:
    from PIL.Image import Image

    from unsample.media.pictures import Fit
    from unsample.verbs.results import Images


def asked(given: MaskOptions) -> MaskAsked | None:
    """The mask that the options describe; of a file, what was taken as it is said.

    Raises:
        BadOption: an option that cannot be. BadInput: a file that cannot be read, or is no mask.
    """
    found = MaskAsked.of(given.mask, given.mask_feather, given.mask_dilate)
    for mask in found.given if found else ():
        for note in mask.notes:
            talk.note(f"{given.mask}: {note}")
    return found


def files(given: MaskOptions, found: MaskAsked | None) -> list[str]:
    """The file of a mask, if it is one."""
    return [given.mask] if found is not None and found.how == "given" and given.mask else []


def steered(editor: Editor, found: MaskAsked | None) -> Editor:
    """The editor that walks: one that looks for the thing that changes, where that is its mask."""
    if found is None or found.how != "thing":
        return editor
    from unsample.edits.within import within

    return within(editor, found.dilate, found.feather)


def row(made: Images) -> dict[str, Any]:
    """What is told of the mask of an edit."""
    each = made.meta.get("mask") or [None]
    return {"mask": each[0], "mask_given": made.meta["mask_given"], "paste": made.meta.get("paste")}


def fitted(made: Images, found: MaskAsked | None) -> list[str]:
    """What was done to a given mask to fit the picture, which its file alone does not say."""
    each = made.meta.get("mask")
    if not each or found is None or found.how != "given":
        return []
    known = {note for mask in found.given for note in mask.notes}
    return [note for note in each[0]["notes"] if note not in known]


def check_words(found: MaskAsked | None, sources: Sequence[str | None], targets: Sequence[str | None]) -> None:
    """The words of a mask stand in the prompts, as far as these are known."""
    from unsample.edits.finding import check_words

    if found is not None and found.how == "attention":
        check_words([(source, target) for source in sources for target in targets], found.words)


def picture(made: Images) -> Image | None:
    """The mask of an edit, greyscale, white where it was edited."""
    from PIL import Image

    if made.mask is None:
        return None
    return Image.fromarray((made.mask[0, 0] * 255).round().byte().numpy())


def maps(made: Images) -> dict[str, Image]:
    """The attention of words, greyscale."""
    from PIL import Image

    own = made.attention_maps[0] if made.attention_maps else {}
    return {word: Image.fromarray((one.clamp(0, 1) * 255).round().byte().numpy()) for word, one in own.items()}


def with_source(larger: Image, source: Image, made: Images, fit: Fit) -> Image:
    """An edit at its source's size, with the source's own pixels outside the mask.

    Args:
        larger: the edit, at the size of `source`, or of its central square after "crop".
        source: the picture.
        made: the edit at the model's size.
        fit: how the source was fitted.
    """
    from PIL import Image

    from unsample.verbs.masking import alpha_of

    alpha = Image.fromarray((alpha_of(made)[0][0, 0] * 255).round().byte().numpy())
    soft = at_source_size(alpha, list(source.size), fit, Image.Resampling.BILINEAR) or alpha
    left, top = (source.width - larger.width) // 2, (source.height - larger.height) // 2
    own = source.crop((left, top, left + larger.width, top + larger.height))
    return Image.composite(larger, own, soft)
