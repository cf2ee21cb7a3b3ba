"""Structure distance (Tumanyan et al., 2022, arXiv:2201.00424, Sec. 3.1): do two pictures share their layout?

`MSE(S(a), S(b))`, S the cosine self-similarity of the keys of a DINO vision transformer's layer 11 over all its tokens,
heads joined. Pictures are resized to 224 (bilinear, antialiased, shorter side, the longer at most 480) and normalised
as ImageNet. PIE-Bench's code feeds 0-255 values to that normalisation, which expects [0, 1]: `dino_structure_pie` does
the same, to be compared with published tables; `dino_structure` is the right one.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsample.errors import WeightsMissing, first_line
from unsample.metrics.pixels import eight_bit
from unsample.metrics.subject import Settings, Subject
from unsample.metrics.weights import find_folder
from unsample.models.loading import without_bars

if TYPE_CHECKING:
    from torch import Tensor

LAYER, SIDE, LONGEST = 11, 224, 480
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dino_structure(subject: Subject, settings: Settings) -> list[float]:
    """On pictures in [0, 1]."""
    return _distance(subject, settings, 1.0)


def dino_structure_pie(subject: Subject, settings: Settings) -> list[float]:
    """On pictures in [0, 255], as PIE-Bench's code has it."""
    return _distance(subject, settings, 255.0)


def _distance(subject: Subject, settings: Settings, scale: float) -> list[float]:
    model = _loaded(find_folder(settings.dino, settings.weights_dir), settings.device)
    found = []
    for pictures in zip(
        *subject.given("images", "reference"), strict=True
    ):  # one by one: a self-similarity has 785 x 785 values at patch 8
        a, b = (self_similarity(model, prepared(p[None], scale)) for p in pictures)
        found.append(float((a - b).square().mean()))
    return found


def prepared(images: Tensor, scale: float) -> Tensor:
    """(B, 3, H, W) in [0, 1], 8 bit, to the network's input."""
    import torch
    from torch.nn.functional import interpolate

    height, width = images.shape[2:]
    short, long = min(height, width), max(height, width)
    side, longer = SIDE, int(SIDE * long / short)
    if longer > LONGEST:
        side, longer = int(LONGEST * side / longer), LONGEST
    size = (side, longer) if height <= width else (longer, side)
    pixels = eight_bit(images).float() * scale
    if (height, width) != size:
        pixels = interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


def self_similarity(model: Any, pixels: Tensor) -> Tensor:
    """Cosines between the keys of all tokens: (T, T), float64, of one prepared picture."""
    import torch
    from torch.nn.functional import normalize

    kept: list[Tensor] = []
    layer = dict(model.named_modules())[key_layer(model)]
    hook = layer.register_forward_hook(lambda module, given, out: kept.append(out.detach()))
    try:
        with torch.no_grad():
            model(pixel_values=pixels.to(model.device), interpolate_pos_encoding=True)
    finally:
        hook.remove()
    keys = normalize(kept[0][0].double().cpu(), dim=-1)  # (T, D)
    return keys @ keys.T


def key_layer(model: Any) -> str:
    """The name of the linear layer that makes the keys of layer 11; it differs between versions of transformers.

    Raises:
        WeightsMissing: the network has fewer layers, or is no such transformer.
    """
    ends = (f"{LAYER}.attention.k_proj", f"{LAYER}.attention.attention.key")
    found = [name for name, _ in model.named_modules() if name.endswith(ends)]
    if len(found) != 1:
        layers = getattr(model.config, "num_hidden_layers", "unknown")
        raise WeightsMissing(
            f"the structure distance needs the keys of layer {LAYER}; this {type(model).__name__} has {layers} layers"
        )
    return found[0]


@lru_cache(maxsize=1)
@without_bars("transformers")
def _loaded(folder: Path, device: str) -> Any:
    import torch
    from transformers import ViTModel

    try:
        model = ViTModel.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32, add_pooling_layer=False
        )
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise WeightsMissing(f"no vision transformer could be read from {folder.name!r}: {reason}") from error
    return model.eval().requires_grad_(False).to(device)
