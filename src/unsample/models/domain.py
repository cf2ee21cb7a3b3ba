"""What the drawn-scenes models know, said once: which words, which sizes, which pictures. No torch.

scenes-sd, scenes-flow, scenes-ddpm and scenes-mixture have seen scenes alone: one drawn object on a ground of one
colour. Of anything else they make a smear that no figure reveals, so a picture or a prompt that is outside is named
before any work. Whether a picture is such a scene is looked at on 32x32 pixels, by rules set on `tune` seeds; `python
-m benchmarks.domain` prints how often they err. On `report` seeds they refuse none of 300 scenes of 64 pixels (PNG,
JPEG 95 and 75, grain 4), none of 32 pixels but 0.3 % at JPEG 75, and 5 % of those with unseen shapes or two objects,
which no model here was trained on. Of scikit-image's photographs and their crops, brought to the models' sizes, they
refuse 99.0 to 100 %; the bounds were set with those in sight. A photograph of more than twice the model's size is
refused by its size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from unsample.datasets.scenes import ATTRIBUTES, COLOURS
from unsample.errors import OutOfDomain

if TYPE_CHECKING:
    from PIL.Image import Image

DRAWN: dict[str, tuple[int, int]] = {
    "scenes-sd": (64, 16),
    "scenes-flow": (64, 8),
    "scenes-ddpm": (32, 4),
    "scenes-mixture": (32, 1),
}
"""The models that know drawn scenes only: the side of their pictures, and what sides are multiples of."""
EXTRA = {"a", "an", "and", "at", "background", "hexagon", "in", "of", "on", "photo", "picture", "the", "two", "with"}
WORDS = frozenset({value for values in ATTRIBUTES.values() for value in values} | EXTRA)
"""Every word that a caption of scenes can hold, and a few that people type."""
REAL_MODELS = (
    "'--model stable-diffusion-v1-5/stable-diffusion-v1-5' (or the folder it was downloaded to), or "
    "'--model google/ddpm-celebahq-256' for faces"
)
MOST_REDUCED = 2.0  # a side may be this many times that of the picture as the model sees it
SHOWN = 5  # words, and pictures, that are named
SIDE = 32  # at which a picture is looked at
GREY = 1.001 / 255  # the channels of a grey picture differ by no more than rounding


def drawn(model: str) -> str | None:
    """Which of the drawn-scenes models a name is, the path of its folder too, its scheduler changed or not; or None."""
    name = PurePath(re.sub(r"\[[^\[\]]*\]$", "", model)).name
    return name if name in DRAWN else None


def reasons_of_prompts(model: str, prompts: Iterable[str | None]) -> list[str]:
    """Why a model does not know these words; none for a model that was trained on more than scenes."""
    if drawn(model) is None:
        return []
    words = dict.fromkeys(w for prompt in prompts for w in re.findall(r"[^\W_]+", (prompt or "").lower()))
    strange = [w for w in words if w not in WORDS]
    if not strange:
        return []
    more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
    listed = ", ".join(repr(w[:40]) for w in strange[:SHOWN])
    what, are = ("word", "is") if len(strange) == 1 else ("words", "are")
    return [f"the prompt's {what} {listed}{more} {are} not among the {len(WORDS)} that it knows"]


def reasons_of_picture(model: str, image: Image, fit: Any, metadata: Mapping[str, Any] | None = None) -> list[str]:
    """Why a model does not know this picture.

    Args:
        model: its name; none for one that was trained on more than scenes.
        image: upright RGB, as it was given.
        fit: how it is brought to the model's size.
        metadata: the settings in its own PNG; what such a model made is not held against it.
    """
    if (name := drawn(model)) is None:
        return []
    reduced = reduction(image.size, *DRAWN[name], fit)
    if reduced > MOST_REDUCED and not _enlarged(image, *DRAWN[name], fit):
        size = "{}x{}".format(*image.size)
        return [f"the picture of {size} is scaled down by {reduced:.1f}, more than {MOST_REDUCED:.0f}"]
    if isinstance(made_by := (metadata or {}).get("model"), str) and drawn(made_by):
        return []
    misfit = misfit_of(image)
    return [f"the picture is not like a scene: {misfit}"] if misfit else []


def reduction(size: tuple[int, int], side: int, multiple: int, fit: Any) -> float:
    """How many times longer a side is than the model will see it: the larger of the two."""
    from unsample.media.pictures import fit_size

    seen = fit_size(*size, side * side, multiple, fit)
    if fit == "aspect":
        return max(size[0] / seen[0], size[1] / seen[1])
    return (min if fit == "crop" else max)(size) / seen[0]


def _enlarged(image: Image, side: int, multiple: int, fit: Any) -> bool:
    """Whether it is a picture of the model's size whose pixels are repeated, so that scaling it down loses nothing."""
    from unsample.media.fitting import once
    from unsample.media.pictures import fit_size

    return once(image, fit_size(*image.size, side * side, multiple, fit)) is not None


def refusal(model: str, found: Sequence[tuple[str, str]]) -> OutOfDomain:
    """The error for (what, reason) of each picture and prompt that is outside."""
    return OutOfDomain(
        f"{spoken(model, found)}; give a model that knows them: {REAL_MODELS}; --force goes on all the same",
        [f"{what}: {reason}" for what, reason in found],
    )


def spoken(model: str, found: Sequence[tuple[str, str]]) -> str:
    """One sentence for (what, reason) of each."""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    listed = "; ".join(f"{what}: {reason}" for what, reason in found[:SHOWN])
    return f"{model} knows drawn scenes only (one object on a ground of one colour), and this is none: {listed}{more}"


# ---------------------------------------------------------------- is a picture a scene?


@dataclass(frozen=True)
class Look:
    """What stands out of the ground, in a picture of 32x32; colours in [0, 1], shares of all pixels."""

    chroma: float  # the largest difference between the channels of a pixel
    ring: float  # share of the border that one colour of scenes explains, in some light and texture
    off: float  # mean distance of the border from that colour
    area: float  # share of the largest connected part that is unlike the border
    scraps: float  # share of what else is unlike it
    edge: float  # share of the border that the part covers
    sides: int  # of the picture that it touches
    outline: float  # its perimeter over the root of its area
    apart: float  # median distance of its inner pixels from every colour of the border
    drift: float  # 90th percentile of the distance of the ground from every colour of the border
    span: float  # how far the ground's brightness spreads about a plane, darkest to brightest
    tails: float  # fourth moment of that, over the square of the second


def misfit_of(image: Image) -> str:
    """What about a picture is not as in any scene, in words; "" where it could be one.

    The bounds were set on scenes of `tune` seeds, of every attribute, 32 and 64 pixels wide, PNG and JPEG, grainy, and
    on crops of the same photographs. Where one number is near its bound, another must not be: `_strain` adds them up.
    """
    look = look_at(image)
    if look.chroma <= GREY:
        return "it is grey all over, and every scene has a tint"
    if look.ring < 0.75 or look.off > 0.055:
        return "its border is not of one colour of scenes"
    if look.area < 0.008 or look.apart < 0.052:
        return "no object stands out of its ground"
    if look.area > 0.245 or look.edge > 0.125 or look.sides > 2:
        return "what stands out of its ground is too large, or lies on its border"
    if look.scraps > 0.05 or look.outline > 11:
        return "what stands out of its ground is not one clear shape"
    return "its ground is neither plain nor of a texture of scenes" if _strain(look) > 1.3 else ""


def _strain(look: Look) -> float:
    """How uneven the ground is for the object that it carries; over 1.3 in no more than 1 of 100 scenes."""
    drift, span, tails = math.log(look.drift + 0.003), math.log(look.span + 0.01), math.log(look.tails + 0.1)
    uneven, wide, peaked = (drift + 4.2) / 0.35, (span + 0.95) / 0.4, (tails - 2) / 1.5
    small, faint = -(math.log(look.area + 0.001) + 3.4) / 0.5, -(math.log(look.apart + 0.01) + 1.9) / 0.5
    return max(
        wide / 1.25, (uneven + wide) / 2.1, (uneven + small) / 2.2, (uneven + faint) / 1.8, (wide + peaked) / 2.2
    )


def look_at(image: Image) -> Look:
    """Measure a picture of any size."""
    import numpy as np
    from PIL.Image import Resampling

    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Resampling.BOX), dtype=np.float64) / 255
    flat = pixels.reshape(-1, 3)
    border = np.ones((SIDE, SIDE), bool)
    border[2:-2, 2:-2] = False
    to_palette = np.sqrt(np.stack([_squared(flat[border.ravel()], shades) for shades in _palette()]) / 3)
    nearest = to_palette[np.minimum(to_palette, 0.15).mean(1).argmin()]
    kept = flat[border.ravel()][nearest < 0.06]
    distance = np.sqrt(_squared(flat, kept if len(kept) else flat) / 3).reshape(SIDE, SIDE)
    unlike = distance > 0.05
    part = _largest(unlike)
    inner = ~_grown(~part)
    core = inner if inner.sum() >= 4 else part
    outside = ~_grown(part)
    spread = _about_a_plane(pixels.mean(2), outside)
    deviation = max(float(spread.std()), 0.004)
    outline = (part[1:] != part[:-1]).sum() + (part[:, 1:] != part[:, :-1]).sum()
    return Look(
        chroma=float(np.ptp(pixels, axis=2).max()),
        ring=float((nearest < 0.06).mean()),
        off=float(np.minimum(nearest, 0.15).mean()),
        area=float(part.mean()),
        scraps=float((unlike & outside).mean()),
        edge=float(part[border].mean()),
        sides=sum(bool(side.any()) for side in (part[0], part[-1], part[:, 0], part[:, -1])),
        outline=float(outline / np.sqrt(max(part.sum(), 1))),
        apart=float(np.median(distance[core])) if core.any() else 0.0,
        drift=float(np.percentile(distance[~part], 90)) if not part.all() else 1.0,
        span=float(np.ptp(spread)),
        tails=float(((spread / deviation) ** 4).mean()),
    )


@lru_cache
def _palette() -> Any:
    """Each colour of scenes in every light and strength of texture: (12, shades, 3)."""
    import numpy as np

    colours = np.array(list(COLOURS.values()))
    towards = (colours @ [0.299, 0.587, 0.114] < 0.35)[:, None].astype(float)  # as scenes are textured
    strength, light = np.linspace(0, 0.45, 10)[None, :, None], np.linspace(0.88, 1.12, 5)
    textured = colours[:, None] + (towards - colours)[:, None] * strength
    return np.clip(textured[:, :, None] * light[:, None], 0, 1).reshape(len(colours), -1, 3)


def _squared(points: Any, among: Any) -> Any:
    """Squared distance (N,) of colours (N, 3) to the nearest of (M, 3)."""
    import numpy as np

    products = (points**2).sum(1)[:, None] + (among**2).sum(1)[None] - 2 * points @ among.T
    return np.maximum(products.min(1), 0)


def _grown(mask: Any) -> Any:
    """With the four neighbours of each pixel."""
    import numpy as np

    wide = np.pad(mask, 1)
    return wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:] | mask


def _largest(mask: Any) -> Any:
    """The largest connected part of a mask."""
    import numpy as np

    label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        wide = np.pad(label, 1)
        near = (label, wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
        grown = np.where(mask, np.maximum.reduce(near), 0)
        if (grown == label).all():
            break
        label = grown
    if not mask.any():
        return mask
    sizes = np.bincount(label.ravel())
    sizes[0] = 0
    return label == sizes.argmax()


def _about_a_plane(grey: Any, where: Any) -> Any:
    """Brightness (N,) of some pixels, less the plane that fits it best: the light of a scene."""
    import numpy as np

    if where.sum() <= 20:
        return np.zeros(1)
    rows, columns = np.nonzero(where)
    plane = np.stack([np.ones(len(rows)), rows / (SIDE - 1), columns / (SIDE - 1)], 1)
    weights = np.linalg.lstsq(plane, grey[where], rcond=None)[0]
    return grey[where] - plane @ weights
