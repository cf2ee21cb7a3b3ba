"""What people give to the verbs, as tensors: pictures, latents, generators. All is checked here, before any work."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption, OutOfDomainWarning
from unsample.models.base import Model, luminance
from unsample.models.domain import drawn, reasons_of_picture, reasons_of_prompts, spoken
from unsample.numbers.draws import content_seeds, draw_noise
from unsample.numeric import is_whole
from unsample.preflight import rules
from unsample.preflight.rules import MAX_SEED
from unsample.verbs.prompts import Prompts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.media.pictures import Fit
    from unsample.numbers.grid import Grid

GREYED = "its colours were dropped: the model sees greys alone (luminance, ITU-R BT.601)"


@dataclass(frozen=True)
class GivenImages:
    """Pictures as the model will see them: (B, 3, H, W) in [0, 1], and what they were."""

    images: Tensor
    sizes: list[tuple[int, int]]  # width, height of the originals
    names: list[str]
    notes: list[str]
    sha256: list[str | None]  # of the pictures as they were given; None for tensors
    outside: list[list[str]]  # why each is outside what the model knows


def as_images(model: Model, images: Any, fit: Fit = "aspect") -> GivenImages:
    """Pictures from a path, a PIL image, a numpy array, a list of them, or a tensor (B, C, H, W) in [0, 1].

    Files, PIL images and arrays (of the shapes and types of `unsample.media.arrays`; 8 bits are kept) are brought to
    the model's pixel count; a tensor is taken as it is.

    Raises:
        BadInput: a file that cannot be used, a tensor out of range, or pictures that do not share one size.
    """
    import numpy as np
    import torch

    from unsample.media.arrays import pictures_in

    if isinstance(images, torch.Tensor):
        return _of_its_size(model, _from_tensor(model, images))
    items = list(images) if isinstance(images, list | tuple) else [images]
    if not items:
        raise BadInput("no picture was given; give at least one")
    items = [one for item in items for one in (pictures_in(item) if isinstance(item, np.ndarray) else [item])]
    return _of_its_size(model, _from_pictures(model, [_picture(item, k) for k, item in enumerate(items)], fit))


def _of_its_size(model: Model, given: GivenImages) -> GivenImages:
    """A closed form knows its own size alone; networks take others."""
    height, width = given.images.shape[2:]
    only = model.picture_size if model.family == "gaussian" else None
    rules.check_size(model.id, only, (width, height))
    return given


def _picture(item: Any, index: int) -> Any:
    import numpy as np
    from PIL import Image

    from unsample.media.arrays import picture_of
    from unsample.media.pictures import Picture, from_pil, open_picture

    if isinstance(item, Picture):
        return item
    if isinstance(item, Image.Image):
        return from_pil(item, f"image-{index}")
    if isinstance(item, np.ndarray):
        return picture_of(item, f"image-{index}")
    if isinstance(item, str | Path):
        return open_picture(item)
    known = "a path, a PIL image, a numpy array (H, W, C) or a tensor (B, C, H, W) in [0, 1]"
    raise BadInput(f"a picture is {known}; got {type(item).__name__}")


def _from_pictures(model: Model, pictures: Sequence[Any], fit: Fit) -> GivenImages:
    import numpy as np
    import torch

    from unsample.media.pictures import fit_picture

    fitted = [_seen(model, *fit_picture(p, model.picture_size, model.multiple, fit)) for p in pictures]
    shapes = {image.size for image, _ in fitted}
    if len(shapes) > 1:
        raise BadInput(
            f"pictures of one call must share a size; after fitting to {model.id} they have "
            f"{', '.join(f'{w}x{h}' for w, h in sorted(shapes))}; invert them one by one, or use fit='crop' or 'pad'"
        )
    pixels = torch.stack([torch.from_numpy(np.asarray(image).copy()) for image, _ in fitted])  # (B, H, W, 3)
    notes = ["; ".join([*p.notes, *([note] if note else [])]) for p, (_, note) in zip(pictures, fitted, strict=True)]
    sizes = [p.pixels.size for p in pictures]
    names, hashes = [p.name for p in pictures], [p.sha256 for p in pictures]
    outside = [reasons_of_picture(model.id, p.pixels, fit, p.metadata) for p in pictures]
    return GivenImages(pixels.permute(0, 3, 1, 2).float() / 255, sizes, names, notes, hashes, outside)


def _seen(model: Model, image: Any, note: str) -> tuple[Any, str]:
    """A fitted picture as the model sees it, in grey where it has one channel, and what was done to it."""
    grey = image.convert("L").convert("RGB") if model.grey else image
    if grey.tobytes() == image.tobytes():
        return image, note
    return grey, "; ".join([*([note] if note else []), GREYED])


def _from_tensor(model: Model, images: Tensor) -> GivenImages:
    import torch

    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.numel() == 0 or not images.is_floating_point():
        raise BadInput(
            f"a tensor of pictures is (B, 3, H, W), floating point, in [0, 1]; got {tuple(images.shape)} {images.dtype}"
        )
    if not bool(images.isfinite().all()) or float(images.min()) < 0 or float(images.max()) > 1:
        low, high = float(images.min()), float(images.max())
        raise BadInput(
            f"pictures must be finite and in [0, 1]; found {low:.3g} to {high:.3g} (latents= takes any range)"
        )
    height, width = images.shape[2:]
    if height % model.multiple or width % model.multiple:
        raise BadInput(f"sides of a tensor must be multiples of {model.multiple} for {model.id}; got {width}x{height}")
    given = images.expand(-1, 3, -1, -1)
    images = luminance(given).clamp(0, 1).expand(-1, 3, -1, -1) if model.grey else given
    notes = ["" if torch.equal(one, was) else GREYED for one, was in zip(images, given, strict=True)]
    count = len(images)
    names: list[str] = [f"image-{k}" for k in range(count)]
    outside = [_outside(model, image) for image in images]
    return GivenImages(images, [(width, height)] * count, names, notes, [None] * count, outside)


def _outside(model: Model, image: Tensor) -> list[str]:
    from unsample.metrics.pixels import as_pil

    return reasons_of_picture(model.id, as_pil(image[None])[0], "aspect") if drawn(model.id) else []


def outside_domain(model: Model, prompts: Prompts, count: int, pictures: GivenImages | None = None) -> list[list[str]]:
    """Why each picture, by itself or by its words, is outside what the model knows; one warning for all of them."""
    pairs = zip(prompts.texts(count), prompts.negatives(count), strict=True)
    words = [reasons_of_prompts(model.id, pair) for pair in pairs]
    reasons = [[*(pictures.outside[k] if pictures else ()), *own] for k, own in enumerate(words)]
    found = [(k, reason) for k, own in enumerate(reasons) for reason in own]
    if found:
        knows = "load one that knows them, such as stable-diffusion-v1-5/stable-diffusion-v1-5"
        warning = OutOfDomainWarning(
            "out_of_domain",
            lambda name: f"{spoken(model.id, [(name(k), reason) for k, reason in found])}; {knows}",
            dict(found),
        )
        warnings.warn(warning, stacklevel=3)
    return reasons


def as_latents(model: Model, latents: Any) -> Tensor:
    """Latents as they are, checked."""
    import torch

    if not isinstance(latents, torch.Tensor):
        raise BadInput(f"latents must be a tensor; got {type(latents).__name__}")
    channels = model.sample_shape[0]
    if latents.ndim != 4 or latents.shape[1] != channels or latents.numel() == 0 or not latents.is_floating_point():
        raise BadInput(f"latents of {model.id} are (B, {channels}, H, W); got {tuple(latents.shape)} {latents.dtype}")
    if not bool(latents.isfinite().all()):
        raise BadInput("latents must be finite")
    return latents


def as_trajectory(trajectory: Tensor, x0: Tensor, grid: Grid) -> Tensor:
    """A recorded sampling run, checked against what is inverted."""
    wanted = (grid.num_steps + 1, *x0.shape)
    if tuple(trajectory.shape) != wanted:
        raise BadInput(
            f"trajectory must be {wanted}, noisiest first, one point a grid point; got {tuple(trajectory.shape)}"
        )
    if not bool(trajectory.isfinite().all()):
        raise BadInput("trajectory must be finite")
    return trajectory.to(x0)


def fresh_noise(
    model: Model, count: int, generator: Any, height: int | None, width: int | None
) -> tuple[Tensor, list[int]]:
    """Noise for `count` pictures (of one, for as many as there are generators) of that size, and their seeds."""
    generators = as_generators(generator, generators_given(generator) if count == 1 else count)
    return draw_noise(generators, shape_of(model, height, width)), [g.initial_seed() for g in generators]


def shape_of(model: Model, height: int | None, width: int | None) -> tuple[int, int, int]:
    """The shape of the state for a picture of that size, which is checked."""
    for name, side in (("height", height), ("width", width)):
        if side is not None and (not isinstance(side, int) or side < 8 or side % model.multiple):
            raise BadOption(f"{name} must be a multiple of {model.multiple}, at least 8, for {model.id}; got {side!r}")
    return model.shape_of(height, width)


def as_generators(generator: Any, count: int, rows: Tensor | None = None) -> list[torch.Generator]:
    """One generator a picture.

    A list holds one a picture, each a `torch.Generator`, which is used as it is, or a whole number. One generator for a
    batch is split into per-picture seeds drawn from it; one for a single picture is that picture's. A whole number
    seeds: with `rows` (B, ...) by that number and each picture's own content (`draws.content_seeds`), without them the
    k-th picture by that number + k, as `unsample sample --seed` does. Nothing is 0 with `rows`, and drawn anew without.
    """
    import torch

    generator = _plain(generator)
    if isinstance(generator, list):
        if len(generator) != count:
            raise BadOption(f"generator must be one, or a list of {count}, one a picture; got {len(generator)}")
        each = [None if rows is None else rows[k : k + 1] for k in range(count)]
        return [_generator(g, 0, row) for g, row in zip(generator, each, strict=True)]
    if rows is None and generator is None:
        return [torch.Generator().manual_seed(secrets.randbelow(2**32)) for _ in range(count)]
    if isinstance(generator, torch.Generator) and count > 1:
        split = torch.randint(0, 2**32, (count,), generator=generator, device=generator.device).tolist()
        return [torch.Generator().manual_seed(s) for s in split]
    given = 0 if generator is None else generator
    if rows is None:
        return [_generator(given, k, None) for k in range(count)]
    return [_generator(given, 0, rows[k : k + 1]) for k in range(count)]


def seeds_given(generator: Any, count: int) -> list[int] | None:
    """The whole numbers by which `count` pictures were seeded; None where generators were given."""
    generator = 0 if generator is None else _plain(generator)
    each = generator if isinstance(generator, list) else [generator] * count
    return [int(g) for g in each] if all(is_whole(g) for g in each) else None


def generators_given(generator: Any) -> int:
    """Of how many pictures a list of generators or seeds speaks; 1 where it is no list."""
    generator = _plain(generator)
    return max(1, len(generator)) if isinstance(generator, list) else 1


def _plain(generator: Any) -> Any:
    """Arrays and tensors of seeds as Python's numbers, in a list too."""
    if isinstance(generator, list | tuple | range):
        return [_plain(g) for g in generator]
    return generator.tolist() if hasattr(generator, "tolist") else generator


def _generator(given: Any, place: int, row: Tensor | None) -> torch.Generator:
    """One picture's: a generator as it is, or one seeded by a whole number and its content, else its place."""
    import torch

    if isinstance(given, torch.Generator):
        return given
    if not is_whole(given):
        raise BadOption(
            "generator must be a torch.Generator or a whole number, or a list of them, one a picture; got "
            f"{type(given).__name__}"
        )
    if not 0 <= given <= MAX_SEED - place:
        shown = int(given) if int(given).bit_length() < 99 else f"one of {int(given).bit_length()} bits"
        raise BadOption(f"a seed must be from 0 to {MAX_SEED - place}; got {shown}")
    return torch.Generator().manual_seed(int(given) + place if row is None else content_seeds(row, int(given))[0])
