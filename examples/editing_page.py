"""`python examples/editing_page.py`: the figure of docs/editing.md, each editor on each kind of edit.

The scenes are the first of `report` in which each kind of edit comes up (`scenes:6,edit=...`), not the ones that look
best. Inverted by ddim at guidance 1, for ledits by edit_friendly, edited at 1.5 in 50 steps; under each edit stands its
gain: 1 is the true edit, 0 did nothing. Takes about three minutes on one core. `--start N` begins at another scene.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import unsample
from unsample.datasets import Item, open_dataset
from unsample.datasets.edits import KINDS
from unsample.media.figures import sheet
from unsample.metrics.edits import edit_gain

OUT = Path("docs/editing.png")
STEPS, GUIDANCE = 50, 1.5
EDITS: dict[str, dict[str, Any]] = {
    "prompt swap": {"editor": "none"},
    "p2p": {"editor": "p2p"},
    "masactrl": {"editor": "masactrl"},
    "pnp": {"editor": "pnp"},
    "pix2pix_zero": {"editor": unsample.edits.pix2pix_zero(xa_guidance=0.4)},
    "ledits": {"editor": unsample.edits.ledits(threshold=0.75)},
    "within the thing": {"editor": "none", "mask": "thing", "paste": True},
    "auto": {"editor": "auto"},
}


def pil(image: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as an 8-bit picture."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def made(model: Any, inversion: unsample.Inversion, items: Sequence[Item], **asked: Any) -> torch.Tensor:
    """The edits of all items by one editor, (N, 3, H, W)."""
    targets = [item.target_prompt for item in items]
    guidance = {} if asked["editor"] == "auto" else {"guidance_scale": GUIDANCE}
    edits = [
        unsample.edit(model, inversion[k], target, progress=False, **guidance, **asked).images
        for k, target in enumerate(targets)
    ]
    return torch.cat(edits)


def figure(start: int, told: Callable[[str], object] = print) -> Image.Image:
    """A row a kind of edit: source, true edit, and the edit by each editor with its gain."""
    model = unsample.load("scenes-sd")
    items = list(open_dataset(f"scenes:{len(KINDS)},start={start},edit={'+'.join(KINDS)}"))
    source, truth = (torch.stack([getattr(item, name) for item in items]) for name in ("image", "truth"))
    prompts: dict[str, Any] = {"prompt": [item.prompt for item in items], "sampling_guidance_scale": 1.0}
    inversions = {
        method: unsample.invert(model, source, method=method, num_inference_steps=STEPS, progress=False, **prompts)
        for method in ("ddim", "edit_friendly")
    }
    columns = {"source": source, "true edit": truth}
    for name, asked in EDITS.items():
        inversion = inversions["edit_friendly" if name == "ledits" else "ddim"]
        columns[name] = made(model, inversion, items, **asked)
    gains = {name: edit_gain(columns[name], truth, source).total.tolist() for name in EDITS}
    panels, labels = [], []
    for k, item in enumerate(items):
        told(f"{item.changed}: {item.prompt} -> {item.target_prompt}")
        for name, pictures in columns.items():
            panels.append(pil(pictures[k]))
            labels.append(f"{name} {gains[name][k]:.2f}" if name in gains else f"{item.changed}: {name}")
    for name, own in gains.items():
        told(f"{name}: " + ", ".join(f"{item.changed} {g:.2f}" for item, g in zip(items, own, strict=True)))
    return sheet(panels, labels, columns=len(columns), scale=2)


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=int, default=0, help="first scene of report")
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    figure(asked.start).save(asked.output, optimize=True)


if __name__ == "__main__":
    main()
