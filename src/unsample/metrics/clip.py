"""What CLIP (Radford et al., 2021, arXiv:2103.00020) says of pictures and texts: cosines of unit vectors.

Pictures are 8 bit, resized by Pillow's bicubic and normalised as the model's own `preprocessor_config.json` says, so
that no image processor (and no torchvision) is needed. Texts are cut at the model's length. The model is a bundled
name, a folder or a hub id in the local cache; nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import WeightsMissing, first_line
from unsample.metrics.pixels import as_pil
from unsample.metrics.remember import Remembered
from unsample.metrics.subject import Settings, Subject
from unsample.metrics.weights import find_folder
from unsample.models.loading import without_bars

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

SCALE = 100.0  # of CLIPScore as torchmetrics and PIE-Bench have it; Hessel et al. (arXiv:2104.08718) take 2.5


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes the network's input."""

    shortest: int | None  # resize so that the shorter side is this, keeping the aspect ratio
    size: tuple[int, int] | None  # or resize to this (height, width)
    crop: tuple[int, int] | None  # then cut the middle (height, width)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int  # Pillow's number: 2 bilinear, 3 bicubic

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, 3, h, w), normalised."""
        import numpy as np
        import torch

        prepared = [np.asarray(self._fitted(p), dtype=np.float32) / 255 for p in as_pil(images)]
        pixels = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std

    def _fitted(self, image: Image) -> Image:
        width, height = image.size
        if self.shortest is not None:
            short, long = sorted((width, height))
            longer = int(self.shortest * long / short)
            target = (self.shortest, longer) if width <= height else (longer, self.shortest)
        else:
            target = (self.size[1], self.size[0]) if self.size else image.size
        if target != image.size:
            image = image.resize(target, self.resample)
        if self.crop is None:
            return image
        left, top = (image.width - self.crop[1]) // 2, (image.height - self.crop[0]) // 2
        return image.crop((left, top, left + self.crop[1], top + self.crop[0]))


def preparation(folder: Path, side: int) -> Preparation:
    """Read `preprocessor_config.json`; what it leaves open is CLIP's own default."""
    path = folder / "preprocessor_config.json"
    config: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    size = config.get("size", {"shortest_edge": side}) if config.get("do_resize", True) else {}
    if isinstance(size, int):
        size = {"shortest_edge": size}
    crop = config.get("crop_size", side) if config.get("do_center_crop", True) else None
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    return Preparation(
        shortest=size.get("shortest_edge"),
        size=(size["height"], size["width"]) if "height" in size else None,
        crop=(crop["height"], crop["width"]) if crop else None,
        mean=tuple(config.get("image_mean", (0.48145466, 0.4578275, 0.40821073))),
        std=tuple(config.get("image_std", (0.26862954, 0.26130258, 0.27577711))),
        resample=config.get("resample", 3),
    )


@without_bars("transformers")
def load_clip(folder: str | Path) -> tuple[Any, Any]:
    """A `CLIPModel` in float32, for inference, and its tokenizer, from a transformers folder.

    Raises:
        WeightsMissing: no such folder, or it holds no CLIP.
    """
    import torch
    from transformers import AutoTokenizer, CLIPModel

    try:
        model = CLIPModel.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"no CLIP model could be read from {str(folder)!r}: {first_line(error)}") from error
    return model.eval().requires_grad_(False), tokenizer


class Clip:
    """A CLIP model with its tokenizer; `images` and `texts` give features that are not normalised."""

    def __init__(self, folder: Path, device: str) -> None:
        model, self.tokenizer = load_clip(folder)
        config: Any = model.config
        self.model = model.to(device)
        self.prepare = preparation(folder, config.vision_config.image_size)
        self.length = config.text_config.max_position_embeddings
        self.images = Remembered(self._images)

    def _images(self, images: Tensor) -> Tensor:
        """(B, D), float32."""
        import torch

        with torch.no_grad():
            pixels = self.prepare(images).to(self.model.device)
            return tensor_of(self.model.get_image_features(pixel_values=pixels)).float().cpu()

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(B, D), float32."""
        import torch

        given = {"padding": "max_length", "truncation": True, "max_length": self.length, "return_tensors": "pt"}
        tokens = self.tokenizer(list(texts), **given)
        tokens = {key: tokens[key].to(self.model.device) for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            return tensor_of(self.model.get_text_features(**tokens)).float().cpu()


def tensor_of(features: Any) -> Tensor:
    """The tensor itself, or what transformers 5 wraps it in."""
    return getattr(features, "pooler_output", features)


@lru_cache(maxsize=2)
def _loaded(folder: Path, device: str) -> Clip:
    return Clip(folder, device)


def load(settings: Settings) -> Clip:
    """The model of the settings.

    Raises:
        WeightsMissing: it is nowhere here, or no CLIP.
    """
    return _loaded(find_folder(settings.clip, settings.weights_dir), settings.device)


def _cosine(a: Tensor, b: Tensor) -> list[float | str]:
    """Row by row, float64; in words where one of the two is zero."""
    p, q = a.double(), b.double()
    scale = p.norm(dim=1) * q.norm(dim=1)
    products = (p * q).sum(1)
    return [float(x / s) if s > 0 else "one of the two vectors is zero" for x, s in zip(products, scale, strict=True)]


def wanted(subject: Subject) -> Sequence[str]:
    """What the result should show: the target prompts, or the prompts where nothing was to be edited."""
    return next(texts for texts in subject.given("target_prompts", "prompts") if texts is not None)


def clip_image(subject: Subject, settings: Settings) -> list[float | str]:
    """Cosine between the result and its source."""
    clip = load(settings)
    images, reference = subject.given("images", "reference")
    return _cosine(clip.images(images), clip.images(reference))


def clip_text(subject: Subject, settings: Settings) -> list[float | str]:
    """Cosine between the result and what it should show."""
    clip = load(settings)
    return _cosine(clip.images(*subject.given("images")), clip.texts(wanted(subject)))


def clip_score(subject: Subject, settings: Settings) -> list[float | str]:
    """`100 max(cos, 0)`, picture by picture."""
    return [_scored(value) for value in clip_text(subject, settings)]


def clip_text_edited(subject: Subject, settings: Settings) -> list[float | str]:
    """`clip_score` of the picture with everything outside the mask blackened (PIE-Bench)."""
    clip = load(settings)
    images, mask = subject.given("images", "mask")
    inside = (images.double() * 255).round() / 255 * mask
    scores = [_scored(v) for v in _cosine(clip.images(inside), clip.texts(wanted(subject)))]
    none = "the mask is empty: nothing was to be edited"
    return [v if bool(m.any()) else none for m, v in zip(mask, scores, strict=True)]


def clip_direction(subject: Subject, settings: Settings) -> list[float | str]:
    """Cosine between the change of the picture and the change of the text (StyleGAN-NADA, arXiv:2108.00946, Eq. 2)."""
    from torch.nn.functional import normalize

    clip = load(settings)
    result, source = (normalize(clip.images(p), dim=1) for p in subject.given("images", "reference"))
    after, before = (normalize(clip.texts(t), dim=1) for t in subject.given("target_prompts", "prompts"))
    values = _cosine(result - source, after - before)
    none = "the picture or its text did not change: there is no direction"
    return [none if isinstance(v, str) else v for v in values]


def _scored(value: float | str) -> float | str:
    return value if isinstance(value, str) else SCALE * max(value, 0.0)
