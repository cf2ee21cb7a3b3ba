"""The mask of an edit, at the sizes of its state and its pictures, and what is recorded of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unsample.edits import finding, masks
from unsample.edits.masks import MaskAsked
from unsample.errors import BadInput, BadOption, Incompatible, UnsampleWarning
from unsample.models.base import Model
from unsample.models.guidance import Predict
from unsample.verbs.playing import prompts_of
from unsample.verbs.results import Images, Inversion
from unsample.verbs.running import Run, state_dtype
from unsample.wording import argument

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Masks:
    """Of T edits: `state` (T, 1, h, w) and `shown` (T, 1, H, W) in [0, 1], a record each, and maps of words."""

    state: Tensor
    shown: Tensor
    records: list[dict[str, Any]]
    maps: Sequence[Mapping[str, Tensor]] = ()


def check_mask(
    asked: MaskAsked | None,
    model: Model,
    inversion: Inversion,
    targets: Sequence[str | None],
    source_of: Sequence[int],
) -> None:
    """Whether there can be such a mask, before any work.

    Raises:
        Incompatible: a model that makes no pictures. BadOption: another number of masks than of edits, or words that
            cannot be.
    """
    if asked is None:
        return
    if not getattr(model, "shows", True):
        raise Incompatible(
            f"{model.id} makes no pictures, and a mask is of the pixels of one; leave {argument('mask')} out"
        )
    if asked.how == "given":
        masks.one_each(asked.given, len(source_of))
    if asked.how == "attention":
        sources = [inversion.meta.prompt[s] for s in source_of]
        finding.check_attends(model)
        finding.check_words(list(zip(sources, targets, strict=True)), asked.words)


def masks_of(asked: MaskAsked, run: Run, inversion: Inversion, source_of: Sequence[int]) -> Masks:
    """The masks of the edits of `run`."""
    if asked.how == "given":
        return of_given(asked, run.model, inversion, source_of)
    return of_found(asked, run, inversion, source_of)


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


def of_found(asked: MaskAsked, run: Run, inversion: Inversion, source_of: Sequence[int]) -> Masks:
    """Masks that are found in what the model says of the noised sources; counted to the edits of `run`."""
    from torch.nn.functional import interpolate

    # attention is read while the network answers, which a model that remembers its answers would not do again
    model = getattr(run.model, "bare", run.model) if asked.how == "attention" else run.model
    own, _ = prompts_of(inversion).conditions(model, len(inversion), 1.0)
    scales = run.predict.scales if model.guidance == "distilled" else 1.0
    source = Predict(model, run.grid, own, None, scales, len(inversion))
    target = Predict(model, run.grid, run.condition, None, scales, len(source_of), run.cost)
    latents = _latents(model, inversion)
    content = latents if inversion.source is None else inversion.source
    pair = finding.Pair(source, target, source_of, latents, content, asked.strength)
    maps: list[dict[str, Tensor]]
    note = f"from {finding.NOISES} noises at timestep {run.grid.timesteps[pair.point]:g}"
    if asked.how == "auto":
        mask, maps = finding.differing(pair), []
    else:
        targets = run.prompts.texts(len(source_of))
        prompts = [(inversion.meta.prompt[s] or "", t or "") for s, t in zip(source_of, targets, strict=True)]
        mask, maps = finding.attended_by(pair, prompts, asked.words)
    for k, s in enumerate(source_of):
        run.cost.nfe[k] += source.cost.nfe[s]
    width, height = seen_size(model, inversion)
    words = [{"words": list(m)} for m in maps] or [{}] * len(source_of)
    records = [{"notes": [note]} | own for own in words]
    return replace(_finished(asked, interpolate(mask, (height, width), mode="nearest"), inversion, records), maps=maps)


def _latents(model: Model, inversion: Inversion) -> Tensor:
    """The sources in the model's own range, (S, C, h, w)."""
    dtype = state_dtype(model, inversion.noise)
    if inversion.latents is not None:
        return inversion.latents.to(model.device, dtype)
    if (seen := inversion.seen) is None:
        raise BadInput(
            "a mask is found in the source, and this inversion was made from latents, which are not saved; give a "
            "mask, or the inversion as invert returned it"
        )
    return model.encode(seen.to(model.device)).to(dtype)


def _finished(asked: MaskAsked, mask: Tensor, inversion: Inversion, records: Sequence[dict[str, Any]]) -> Masks:
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
    return Masks(masks.at_state(shown, state), shown.float(), rows)


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


def alpha_of(made: Images) -> tuple[Tensor, float]:
    """How much of an edit is shown over the source's own pixels, (T, 1, H, W), and its edge's deviation in pixels."""
    assert made.mask is not None
    feather = next((r.feather for r in made.meta.mask or () if r is not None), 0.0)
    return masks.paste_alpha(made.mask.double(), feather, (made.latents.shape[2], made.latents.shape[3]))


def with_record(made: Images, asked: MaskAsked | None) -> Images:
    """An edit whose editor made its mask, with what is recorded of that; others as they are."""
    if made.mask is None or made.meta.mask is not None:
        return made
    about: dict[str, Any] = {"how": "editor", "feather": 0.0, "dilate": 0}
    if asked is not None:
        about = {"how": asked.how, "feather": asked.feather, "dilate": asked.dilate}
    records = [about | {"share": min(share, 1.0)} for share in made.mask.flatten(1).mean(1).tolist()]
    return replace(made, meta=type(made.meta).model_validate(made.meta | {"mask": records}))


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
    alpha, edge = alpha_of(made)
    source = (inversion.source.permute(0, 3, 1, 2).to(made.images) / 255).to(made.images)
    pictures = masks.pasted(made.images, source, alpha.to(made.images))
    meta = made.meta.model_copy(update={"paste": edge})
    return replace(made, images=pictures, meta=meta)
