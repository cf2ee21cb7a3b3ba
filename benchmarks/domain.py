"""How often `unsample.models.domain.misfit_of` errs: scenes that it refuses, and photographs that it lets through.

Scenes are of `report` seeds; photographs are those that scikit-image carries, whole and cropped, brought to the size of
scenes. (A picture of more than twice the model's size is refused whatever it shows; these are what is left.)
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from benchmarks.common import show
from unsample.datasets import Scenes
from unsample.metrics.pixels import as_pil
from unsample.models.domain import misfit_of

PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "cell", "chelsea", "clock_motion", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "ihc", "microaneurysms", "moon", "motorcycle_left", "retina", "rocket"),
)
COUNT, CROPS = 300, 12


def scenes(size: int, quality: int | None = None, **more: object) -> Iterator[Image.Image]:
    """Scenes of `report` seeds, through JPEG of a quality or not."""
    for item in Scenes("report", COUNT, size=size, **more):  # type: ignore[arg-type]
        image = as_pil(item.image[None])[0]
        if quality is not None:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            image = Image.open(buffer).convert("RGB")
        yield image


def crops(image: Image.Image, low: float, size: int) -> Iterator[Image.Image]:
    """Square crops whose side is a share of the shorter one, from `low` to 1."""
    rng = np.random.default_rng(0)
    for _ in range(CROPS):
        side = max(8, int(min(image.size) * rng.uniform(low, 1)))
        x, y = (int(rng.integers(0, free - side + 1)) for free in image.size)
        yield image.crop((x, y, x + side, y + side)).resize((size, size), Image.Resampling.LANCZOS)


def main() -> None:
    rows = []
    variants: dict[str, dict[str, object]] = {
        "PNG": {},
        "JPEG 95": {"quality": 95},
        "JPEG 75": {"quality": 75},
        "grain 4": {"grain": 4},
        "unseen shapes": {"ood": True},
    }
    for size in (64, 32):
        for name, options in variants.items():
            refused = [misfit_of(image) != "" for image in scenes(size, **options)]  # type: ignore[arg-type]
            rows.append((f"scenes {size}, {name}", len(refused), f"{np.mean(refused):.1%}"))
    files = {p.stem: p for p in Path(skimage.data_dir).iterdir()}
    photographs = [Image.open(files[name]).convert("RGB") for name in PHOTOGRAPHS]
    for size in (64, 32):
        whole = [misfit_of(p.resize((size, size), Image.Resampling.LANCZOS)) != "" for p in photographs]
        rows.append((f"photographs {size}, whole", len(whole), f"{np.mean(whole):.1%}"))
        for low, name in ((0.5, "crops of half a side or more"), (0.125, "crops down to an eighth")):
            cropped = [misfit_of(c) != "" for p in photographs for c in crops(p, low, size)]
            rows.append((f"photographs {size}, {name}", len(cropped), f"{np.mean(cropped):.1%}"))
    show("Pictures refused as no scenes", ("pictures", "count", "refused"), rows)


if __name__ == "__main__":
    main()
