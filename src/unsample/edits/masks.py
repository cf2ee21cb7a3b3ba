"""Masks of an edit: where the picture may change. What is asked of one, and how it comes to the size of the state.

A mask is read at its own size, fitted as the picture was, grown by whole cells of the state (a cell is the block of
pixels that one number of the latents stands for: an undilated mask leaves a halo of what was there), feathered in
pixels of the picture, and averaged over cells: 1 is edited, 0 is the source, and what lies between is blended. Only
`MaskAsked.of` is needed before any work, and imports no torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unsample.errors import BadInput, BadOption
from unsample.numeric import is_real, is_whole
from unsample.wording import argument, given

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.media.masks import Mask

How = Literal["given", "auto", "attention", "thing"]
AUTO, ATTENTION, THING = "auto", "attention", "thing"
STRENGTH = 0.5
PASTE_CELLS = 0.25  # of a cell: the least standard deviation of the edge that source pixels are pasted with
REACH = 3  # standard deviations after which a feather has ended
NEARLY = 1e-9  # what averages of ones miss of one


@dataclass(frozen=True)
class MaskAsked:
    """Which mask an edit shall have."""

    how: How
    given: tuple[Mask, ...] = ()
    strength: float = STRENGTH  # of the steps: how far the source is noised to find it
    words: tuple[str, ...] = ()  # whose attention it is; empty: of the words that change
    feather: float = 0.0  # standard deviation, in pixels of the picture as the model sees it
    dilate: int = 1  # cells of the state

    @staticmethod
    def of(mask: Any, feather: float = 0.0, dilate: int = 1) -> MaskAsked | None:
        """What is asked; None: no mask.

        Args:
            mask: None; "auto" or "auto:STRENGTH"; "attention" or "attention:WORD[,WORD...]"; "thing"; else the path of
                a picture, a PIL picture, an array or tensor (H, W), (B, H, W) or (B, 1, H, W), or a list of them. What
                this has given before is kept, with its own feather and dilation.
            feather: of its edge.
            dilate: by how many cells it grows.

        Raises:
            BadOption: a feather or dilation that cannot be, or one of no mask. BadInput: what is no mask.
        """
        if isinstance(mask, MaskAsked):
            return mask
        if not is_real(feather) or not 0 <= feather < math.inf:
            raise BadOption(
                f"{argument('mask_feather')} must be a finite number of pixels, at least 0; got {feather!r}"
            )
        if not is_whole(dilate) or dilate < 0:
            raise BadOption(f"{argument('mask_dilate')} must be a whole number of cells, at least 0; got {dilate!r}")
        if mask is None:
            if feather != 0 or dilate != 1:
                name = given("mask_feather", feather) if feather else given("mask_dilate", dilate)
                raise BadOption(f"{name} is of a mask, and there is none; give {argument('mask')}")
            return None
        about: dict[str, Any] = {"feather": float(feather), "dilate": int(dilate)}
        how, _, rest = mask.partition(":") if isinstance(mask, str) else ("", "", "")
        if how == AUTO:
            return MaskAsked("auto", strength=_strength(mask, rest), **about)
        if isinstance(mask, str) and mask == THING:
            return MaskAsked("thing", **about)
        if how == ATTENTION:
            return MaskAsked("attention", words=_words(mask, rest), **about)
        return MaskAsked("given", tuple(_read(mask)), **about)


def _strength(text: str, rest: str) -> float:
    """Of `auto:0.7`."""
    try:
        strength = STRENGTH if text == AUTO else float(rest)
    except ValueError:
        strength = 0.0
    if not 0 < strength <= 1:
        raise BadOption(f"{given('mask', text)}: how far the source is noised is above 0 and at most 1, as {AUTO}:0.7")
    return strength


def _words(text: str, rest: str) -> tuple[str, ...]:
    """Of `attention:large circle,star`."""
    words = tuple(word.strip() for word in rest.split(","))
    if text != ATTENTION and not all(words):
        raise BadOption(f"{given('mask', text)} names no word; {ATTENTION}:WORD does, or {ATTENTION} alone")
    return () if text == ATTENTION else words


def _read(mask: Any) -> list[Mask]:
    """One mask, or one a picture."""
    import numpy as np
    from PIL.Image import Image

    from unsample.media.masks import Mask, mask_of_array, mask_of_picture, open_mask

    if isinstance(mask, list | tuple):
        return [one for item in mask for one in _read(item)]
    if isinstance(mask, Mask):
        return [mask]
    if isinstance(mask, str | os.PathLike):
        return [open_mask(mask)]
    if isinstance(mask, Image):
        return [mask_of_picture(mask)]
    values = np.asarray(mask.detach().cpu()) if hasattr(mask, "detach") else mask
    if not isinstance(values, np.ndarray):
        kind = type(mask).__name__
        raise BadInput(f"a mask is 'auto', 'attention', a path, a PIL picture, an array or a tensor; got {kind}")
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (2, 3) or values.size == 0:
        raise BadInput(f"an array of masks is (H, W), (B, H, W) or (B, 1, H, W); got {values.shape}")
    rows = values[None] if values.ndim == 2 else values
    return [mask_of_array(row, "mask" if len(rows) == 1 else f"mask {k}") for k, row in enumerate(rows)]


# ---------------------------------------------------------------- with torch


def fitted(
    mask: Mask, source: tuple[int, int], seen: tuple[int, int], fit: str | None
) -> tuple[Tensor, tuple[str, ...]]:
    """A mask (1, 1, H, W) in [0, 1] at the size at which a model sees a picture, and what was done to it.

    Args:
        mask: at any size.
        source, seen: width and height of the picture, its own and as the model sees it.
        fit: how the picture was brought from one to the other; what "pad" adds is not edited.
    """
    import torch
    from torch.nn.functional import pad

    where, notes = torch.from_numpy(mask.where).double()[None, None], mask.notes
    if mask.size == seen:
        return where, notes
    if mask.size != source:
        notes = (*notes, "resized from {}x{} to the picture's {}x{}".format(*mask.size, *source))
        where = _averaged(where, source)
    if fit == "crop":
        side = min(source)
        left, top = ((length - side) // 2 for length in source)
        where = where[..., top : top + side, left : left + side]
    if fit != "pad":
        return _averaged(where, seen), notes
    scale = min(seen[0] / source[0], seen[1] / source[1])
    inner = [max(1, math.floor(side * scale + 0.5)) for side in source]
    left, top = ((whole - part) // 2 for whole, part in zip(seen, inner, strict=True))
    edges = (left, seen[0] - inner[0] - left, top, seen[1] - inner[1] - top)
    return pad(_averaged(where, (inner[0], inner[1])), edges), notes


def softened(mask: Tensor, dilate: int, feather: float, state: tuple[int, int]) -> Tensor:
    """A mask (B, 1, H, W), grown by cells of a state of (h, w), then with a Gaussian edge."""
    from torch.nn.functional import max_pool2d

    if dilate:
        down, across = (min(n, max(1, round(dilate * n / m))) for n, m in zip(mask.shape[2:], state, strict=True))
        mask = max_pool2d(mask, (2 * down + 1, 2 * across + 1), 1, (down, across))
    return feathered(mask, feather)


def feathered(mask: Tensor, deviation: float) -> Tensor:
    """A mask (B, 1, H, W), float64, under a Gaussian of that many pixels, which ends at three standard deviations."""
    import torch
    from torch.nn.functional import conv2d, pad

    if not deviation:
        return mask
    if deviation > min(mask.shape[2:]):
        told = "{}x{}".format(*reversed(mask.shape[2:]))
        raise BadOption(
            f"{given('mask_feather', deviation)} is more than the picture's side ({told}); give fewer pixels"
        )
    reach = math.ceil(REACH * deviation)
    at = torch.arange(-reach, reach + 1, dtype=mask.dtype, device=mask.device)
    weights = torch.exp(-((at / deviation) ** 2) / 2)
    weights = weights / weights.sum()
    mask = conv2d(pad(mask, (reach, reach, 0, 0), mode="replicate"), weights[None, None, None])
    return _exact(conv2d(pad(mask, (0, 0, reach, reach), mode="replicate"), weights[None, None, :, None]))


def at_state(mask: Tensor, state: tuple[int, int]) -> Tensor:
    """A mask (B, 1, H, W) at the size (h, w) of the state: the share of each cell that is edited."""
    return _averaged(mask, (state[1], state[0]))


def paste_alpha(mask: Tensor, feather: float, state: tuple[int, int]) -> tuple[Tensor, float]:
    """How much of the edit is shown over the source's own pixels (B, 1, H, W), and its edge's standard deviation.

    It is the mask, whose edge is feathered over a quarter of a cell where it is harder than that.
    """
    least = PASTE_CELLS * min(n / m for n, m in zip(mask.shape[2:], state, strict=True))
    return (mask, feather) if feather >= least else (feathered(mask, least), least)


def pasted(edit: Tensor, source: Tensor, alpha: Tensor) -> Tensor:
    """Pictures (B, 3, H, W): the edit where alpha is 1, the source's own pixels where it is 0."""
    import torch

    alpha = alpha.to(edit)
    return torch.where(alpha <= 0, source, torch.where(alpha >= 1, edit, source + alpha * (edit - source)))


def _averaged(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """At another size (width, height): the mean over the area of each pixel."""
    from torch.nn.functional import interpolate

    return mask if tuple(mask.shape[:1:-1]) == size else _exact(interpolate(mask, (size[1], size[0]), mode="area"))


def _exact(mask: Tensor) -> Tensor:
    """With what is 1 but for rounding put to 1."""
    return mask.masked_fill(mask > 1 - NEARLY, 1.0)


def one_each(masks: Sequence[Any], count: int) -> list[Any]:
    """A mask for each of `count` edits.

    Raises:
        BadOption: neither one nor as many as there are edits.
    """
    if len(masks) not in (1, count):
        raise BadOption(f"{argument('mask')} holds {len(masks)} masks, and there are {count} edits; give 1 or one each")
    return list(masks) * count if len(masks) == 1 else list(masks)
