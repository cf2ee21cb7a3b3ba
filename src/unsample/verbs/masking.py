"""The mask of an edit, at the sizes of its state and its pictures, and what is recorded of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unsample.edits import masks
from unsample.edits.masks import MaskAsked
from unsample.errors import BadInput, BadOption, Incompatible, UnsampleWarning
from unsample.models.base import Model
from unsample.verbs.results import Images, Inversion
from unsample.wording import argument

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Masks:
    """Of T edits: `state` (T, 1, h, w) and `shown` (T, 1, H, W) in [0, 1], a record each, and what each cost."""

    state: Tensor
    shown: Tensor
    records: list[dict[str, Any]]
    nfe: list[int] = field(default_factory=list)


def check_shows(model: Model, asked: MaskAsked | None) -> None:
    """A mask is of pictures.

    Raises:
        Incompatible: a model that makes none.
    """
    if asked is not None and not getattr(model, "shows", True):
        raise Incompatible(
            f"{model.id} makes no pictures, and a mask is of the pixels of one; leave {argument('mask')} out"
        )


def seen_size(model: Model, inversion: Inversion) -> tuple[int, int]:
    """Width and height of the pictures as the model sees them."""
    if inversion.source is not None:
        return inversion.source.shape[2], inversion.source.shape[1]
    rows, columns = inversion.noise.shape[2:]
    width, height = model.picture_size
    return columns * width // model.sample_shape[2], rows * height // model.sample_shape[1]


def of_given(asked: MaskAsked, model: Model, inversion: Inversion, source_of: Sequence[int]) -> Masks:
    """The masks that were given, one for all edits or one for each of them."""
    import torch

    seen, meta = seen_size(model, inversion), inversion.meta
    each = masks.one_each(asked.given, len(source_of))
    known = [list(seen)] * len(inversion) if inversion.source is None else meta.source_sizes or [list(seen)]
    sizes = [known[s] for s in source_of]
    found = [masks.fitted(m, (size[0], size[1]), seen, meta.fit) for m, size in zip(each, sizes, strict=True)]
    records = [{"sha256": m.sha256, "notes": list(notes)} for m, (_, notes) in zip(each, found, strict=True)]
    return _finished(asked, torch.cat([mask for mask, _ in found]), inversion, records)


def _finished(
    asked: MaskAsked, mask: Tensor, inversion: Inversion, records: Sequence[dict[str, Any]], nfe: Sequence[int] = ()
) -> Masks:
    """Grown, feathered, and at the size of the state, with what is recorded of each; an empty one is said."""
    state = (inversion.noise.shape[2], inversion.noise.shape[3])
    shown = masks.softened(mask.cpu().double(), asked.dilate, asked.feather, state)
    about = {"how": asked.how, "feather": asked.feather, "dilate": asked.dilate}
    shares = shown.flatten(1).mean(1).tolist()
    rows = [about | {"share": min(share, 1.0)} | dict(own) for share, own in zip(shares, records, strict=True)]
    if empty := [k for k, share in enumerate(shares) if share == 0]:
        warning = UnsampleWarning(
            "mask",
            lambda name: (
                f"edit: the mask of {', '.join(map(name, empty))} is empty: nothing is edited, and the result "
                "is the reconstruction of the source"
            ),
            empty,
        )
        warnings.warn(warning, stacklevel=4)
    return Masks(masks.at_state(shown, state), shown.float(), rows, list(nfe))


def check_paste(inversion: Inversion) -> None:
    """The source's own pixels are there.

    Raises:
        BadInput: the inversion was made from latents, and holds no picture.
    """
    if inversion.source is None:
        name = argument("paste")
        raise BadInput(
            f"{name} puts the source's own pixels around the edit, and this inversion holds no picture (made from "
            f"latents); leave {name} out, or invert the picture"
        )


def with_source_pixels(made: Images, inversion: Inversion) -> Images:
    """An edit with the source's own pixels outside its mask, and the record of it.

    Args:
        made: with its mask; its pictures are those of `inversion`, one a picture.
        inversion: a picture each.
    """
    if made.mask is None or inversion.source is None:
        raise BadOption(
            f"{argument('paste')} keeps the source's pixels outside a mask, and this edit has none; give "
            f"{argument('mask')}"
        )
    records = made.meta.mask or [None] * len(made)
    feather = next((r.feather for r in records if r is not None), 0.0)
    state = (made.latents.shape[2], made.latents.shape[3])
    alpha, edge = masks.paste_alpha(made.mask.double(), feather, state)
    source = (inversion.source.permute(0, 3, 1, 2).to(made.images) / 255).to(made.images)
    pictures = masks.pasted(made.images, source, alpha.to(made.images))
    meta = made.meta.model_copy(update={"paste": edge})
    return replace(made, images=pictures, meta=meta)
