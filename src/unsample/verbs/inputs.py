"""What people give to the verbs, as tensors: pictures, prompts, generators. Everything is checked here, before work."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput, BadOption, OutOfDomainWarning
from unsample.models.base import Condition, Model
from unsample.models.domain import DRAWN, reasons_of_picture, reasons_of_prompts, spoken
from unsample.numbers.draws import content_seeds
from unsample.numeric import is_whole
from unsample.preflight import rules
from unsample.preflight.rules import MAX_SEED

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.media.pictures import Fit


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

    fitted = [fit_picture(p, model.picture_size, model.multiple, fit) for p in pictures]
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


def _from_tensor(model: Model, images: Tensor) -> GivenImages:
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
    images = images.expand(-1, 3, -1, -1)
    count = len(images)
    names: list[str] = [f"image-{k}" for k in range(count)]
    outside = [_outside(model, image) for image in images]
    return GivenImages(images, [(width, height)] * count, names, [""] * count, [None] * count, outside)


def _outside(model: Model, image: Tensor) -> list[str]:
    from unsample.metrics.pixels import as_pil

    return reasons_of_picture(model.id, as_pil(image[None])[0], "aspect") if model.id in DRAWN else []


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


@dataclass(frozen=True)
class Prompts:
    """What a picture is conditioned on, as given: text, or embeddings in its place, or class labels."""

    prompt: str | Sequence[str] | None = None
    negative_prompt: str | Sequence[str] | None = None
    prompt_embeds: Tensor | None = None
    negative_prompt_embeds: Tensor | None = None
    class_labels: Tensor | Sequence[int] | int | None = None
    negative_class_labels: Tensor | Sequence[int] | int | None = None

    def count(self) -> int:
        """How many pictures it speaks of; 1 if of any number.

        Raises:
            BadOption: a prompt that is no text, or no prompt in a list.
        """
        if self.prompt_embeds is not None:
            return len(self.prompt_embeds)
        if self.class_labels is not None:
            return len(self.labels())
        if self.prompt is None or isinstance(self.prompt, str):
            return 1
        if not isinstance(self.prompt, list | tuple) or not self.prompt:
            raise BadOption(f"prompt must be a string or a list of them, one a picture; got {self.prompt!r}")
        return len(self.prompt)

    def labels(self, name: str = "class_labels") -> Tensor:
        """`class_labels` or `negative_class_labels`, one a picture: int64."""
        import torch

        given = getattr(self, name)
        try:
            labels = torch.as_tensor(given).reshape(-1)
        except (TypeError, ValueError, RuntimeError):
            labels = torch.empty(0)
        if labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool or len(labels) == 0:
            raise BadOption(f"{name} must be whole numbers, one a picture; got {given!r}")
        return labels.long()

    def texts(self, count: int) -> list[str | None]:
        """The prompt of each of `count` pictures."""
        return [None] * count if self.prompt is None else list(_spread("prompt", self.prompt, count))

    def negatives(self, count: int) -> list[str | None]:
        """The negative prompt of each of `count` pictures."""
        given = self.negative_prompt
        return [None] * count if given is None else list(_spread("negative_prompt", given, count))

    def conditions(self, model: Model, count: int, guidance_scale: float) -> tuple[Condition, Condition | None]:
        """Conditional and unconditional rows for `count` pictures.

        Raises:
            Incompatible: a prompt for a model without text, labels for one without classes.
            BadOption: counts that do not match.
        """

        if self.prompt is not None and self.prompt_embeds is not None:
            raise BadOption("give prompt or prompt_embeds, not both")
        rules.check_takes_prompt(model.id, model.takes_prompt, self.prompt or self.negative_prompt)
        labels, null = self._labels(model, count)
        condition, free = self._texts(model, count, guidance_scale)
        if labels is not None:
            if free is not None and null is None and condition.prompt_embeds is not None:
                null = labels  # guidance is over the text then, and the class is the same on both sides
            free = None if null is None else Condition(None if free is None else free.prompt_embeds, null)
            condition = replace(condition, class_labels=labels)
        return condition, free

    def _labels(self, model: Model, count: int) -> tuple[Tensor | None, Tensor | None]:
        """The class of each picture, and the class that stands for none, if one was given or the model has one."""
        null: int | None = getattr(model, "null_class", None)
        if self.class_labels is None:
            rules.check_classes(model.id, model.num_classes, labelled=False)
            if "class_labels" in getattr(model, "needs", ()):
                raise BadOption(f"the network of {model.id} cannot be asked without class_labels; give them")
            if self.negative_class_labels is not None:
                raise BadOption("negative_class_labels were given without class_labels; give both")
            return None, None
        labels = [self._class(model, "class_labels", model.num_classes, count)]
        if self.negative_class_labels is not None:
            most = None if model.num_classes is None else model.num_classes + (null is not None)
            labels.append(self._class(model, "negative_class_labels", most, count))
        elif null is not None:
            labels.append(labels[0].new_full((count,), null))
        return labels[0], labels[1] if len(labels) > 1 else None

    def _class(self, model: Model, name: str, classes: int | None, count: int) -> Tensor:
        labels = self.labels(name)
        takes = classes or getattr(model, "takes_labels", False)
        rules.check_classes(model.id, None if takes else 0, labelled=True, name=name)
        rules.check_in_range(model.id, classes, labels.tolist(), name)
        return _rows(name, labels.to(model.device), count)

    def all_labels(self, count: int) -> dict[str, Tensor]:
        """`class_labels` and `negative_class_labels`, those that were given, of each of `count` pictures."""
        names = [n for n in ("class_labels", "negative_class_labels") if getattr(self, n) is not None]
        return {name: _rows(name, self.labels(name), count) for name in names}

    def _texts(self, model: Model, count: int, guidance_scale: float) -> tuple[Condition, Condition | None]:
        """The part of the conditions that is text."""
        if not model.takes_prompt:
            return self._embeds(model, count, guidance_scale)
        embeds, negative = self.prompt_embeds, self.negative_prompt_embeds
        if embeds is None:
            embeds = _embed(model, [p or "" for p in self.texts(count)])
        if negative is None and guidance_scale != 1:
            negative = _embed(model, [p or "" for p in self.negatives(count)])
        return self._pair(model, count, embeds, negative)

    def _embeds(self, model: Model, count: int, guidance_scale: float) -> tuple[Condition, Condition | None]:
        """A model without text of its own: embeddings or nothing."""
        if self.prompt_embeds is None and "encoder_hidden_states" in getattr(model, "needs", ()):
            width = config_width(model) or "width"
            raise BadOption(
                f"the network of {model.id} cannot be asked without encoder_hidden_states; give prompt_embeds "
                f"(B, length, {width}) of its text encoder"
            )
        if self.prompt_embeds is None and self.negative_prompt_embeds is None:
            nothing = Condition()
            return nothing, nothing if guidance_scale == 0 else None
        if self.prompt_embeds is None:
            raise BadOption(
                f"negative_prompt_embeds were given without prompt_embeds; {model.id} has no text of its own"
            )
        condition, unconditional = self._pair(model, count, self.prompt_embeds, self.negative_prompt_embeds)
        return condition, Condition() if unconditional is None and guidance_scale == 0 else unconditional

    @staticmethod
    def _pair(
        model: Model, count: int, embeds: Tensor | None, negative: Tensor | None
    ) -> tuple[Condition, Condition | None]:
        named = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
        for name, tensor in named.items():
            _check_width(model, name, tensor)
        if embeds is not None and negative is not None and embeds.shape[1:] != negative.shape[1:]:
            shapes = f"{tuple(embeds.shape)} and {tuple(negative.shape)}"
            raise BadOption(
                f"prompt_embeds and negative_prompt_embeds must have the same length and width; got {shapes}"
            )
        rows = [None if t is None else Condition(_rows(n, t.to(model.device), count)) for n, t in named.items()]
        return rows[0] or Condition(), rows[1]


def _check_width(model: Model, name: str, embeds: Tensor | None) -> None:
    """Embeddings of another text encoder do not fit the network's cross-attention."""
    import torch

    if not isinstance(embeds, torch.Tensor | None):
        raise BadOption(f"{name} must be a tensor (B, length, width); got {type(embeds).__name__}")
    if embeds is not None and (embeds.ndim < 2 or not embeds.is_floating_point()):
        raise BadOption(f"{name} are (B, length, width), floating point; got {tuple(embeds.shape)} {embeds.dtype}")
    width = config_width(model) or getattr(model, "embed_width", None)
    if embeds is not None and width is not None and (embeds.ndim != 3 or embeds.shape[2] != width):
        raise BadOption(f"{name} of {model.id} are (B, length, {width}); got {tuple(embeds.shape)}")


def config_width(model: Model) -> int | None:
    """The width of embeddings that a network's config names."""
    config = getattr(getattr(model, "unet", None), "config", None) or {}
    width = config.get("cross_attention_dim")
    return width if isinstance(width, int) else None


def _embed(model: Model, prompts: list[str]) -> Tensor:
    """Each different prompt is embedded once."""
    import torch

    different = list(dict.fromkeys(prompts))
    for prompt in different:
        rules.check_text(prompt)
    embedded = model.embed(different)
    return embedded[torch.tensor([different.index(p) for p in prompts], device=embedded.device)]


def _rows(name: str, tensor: Tensor, count: int) -> Tensor:
    if len(tensor) not in (1, count):
        raise BadOption(f"{name} has {len(tensor)} rows for {count} pictures; give 1 or {count}")
    return tensor.expand(count, *tensor.shape[1:])


def _spread(name: str, value: str | Sequence[str], count: int) -> Sequence[str]:
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(v, str) for v in values) or len(values) not in (1, count):
        raise BadOption(f"{name} must be one string, or {count} of them for {count} pictures; got {value!r}"[:300])
    return values * count if len(values) == 1 else values


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
