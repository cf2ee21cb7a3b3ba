"""Editing held-out scenes with one attribute changed, where the true edit is known.

Rows: the methods at two guidance scales, and what they must be read against: `identity` (the source itself), the
autoencoder's round trip of source and truth (the ceiling), and fresh noise with the target prompt.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import unsample
from benchmarks.tables import batch, generators, load, show
from unsample.datasets import Scenes, render
from unsample.datasets.edits import CHANGED, changed
from unsample.metrics.clip import load_clip
from unsample.metrics.edits import edit_gain
from unsample.metrics.judges import agreement, clip_attribute, fit_attribute
from unsample.models.loading import BUNDLED_FOLDER

COUNT, STEPS, BATCH = 64, 50, 16
SCALES = (3.0, 5.0)


class Table:
    """The data, the judges, and the rows so far."""

    def __init__(self) -> None:
        self.model = load("scenes-sd")
        self.batch = batch(self.model, BATCH)
        self.clip = load_clip(BUNDLED_FOLDER / "scenes-clip")
        self.scenes = [Scenes("report", COUNT).scene(k) for k in range(COUNT)]
        self.names, self.targets = zip(*(changed(s, k) for k, s in enumerate(self.scenes)), strict=True)
        self.source, self.truth = render(self.scenes).images, render(self.targets).images
        self.rows: list[tuple[object, ...]] = []

    def judged(self, images: Tensor) -> tuple[float, float, float]:
        """Share of pictures with the new attribute by both judges, and how far they agree."""
        by_render, by_clip, wanted = [], [], []
        for name in CHANGED:
            rows = [k for k, n in enumerate(self.names[: len(images)]) if n == name]
            if not rows:
                continue
            targets = [self.targets[k] for k in rows]
            by_render += fit_attribute(images[rows], targets, name)
            by_clip += clip_attribute(self.clip, images[rows], targets, name)
            wanted += [getattr(t, name) for t in targets]
        return agreement(by_render, wanted), agreement(by_clip, wanted), agreement(by_render, by_clip)

    def figures(self, images: Tensor, count: int = COUNT) -> dict[str, float]:
        """A row: edits of the first `count` scenes."""
        images = images.float().cpu().clamp(0, 1)[:count]
        gain = edit_gain(images, self.truth[:count], self.source[:count])
        had = (self.source - self.truth)[:count].double().square().flatten(1).sum(1)
        pooled = [float((g * had).sum() / had.sum()) for g in (gain.total, gain.inside, gain.outside)]
        names = ("render_fit", "scenes-clip", "judges agree", "edit_gain", "inside", "outside", "median gain")
        return dict(zip(names, [*self.judged(images), *pooled, float(gain.total.median())], strict=True))

    def add(self, name: str, images: Tensor) -> None:
        """A row."""
        self.rows.append((name, *(f"{v:.3f}" for v in self.figures(images).values())))

    def edited(self, method: str, scale: float | None, count: int, more: dict[str, Any]) -> Tensor:
        """The first scenes inverted at w = 1 and edited at one scale; None: the method's own."""
        parts = []
        for k in range(0, count, self.batch):
            rows = slice(k, min(k + self.batch, count))
            prompts, wanted = ([s.caption for s in scenes[rows]] for scenes in (self.scenes, self.targets))
            given: dict[str, Any] = {"method": method, "num_inference_steps": STEPS, **more}
            inversion = unsample.invert(self.model, self.source[rows], prompts, **given)
            parts.append(unsample.edit(self.model, inversion, wanted, guidance_scale=scale).images)
        return torch.cat(parts)

    def fresh(self, scale: float) -> Tensor:
        """Fresh noise with the target prompt: the floor of preservation."""
        captions = [t.caption for t in self.targets]
        parts = [
            unsample.sample(self.model, captions[k : k + self.batch], num_inference_steps=STEPS, guidance_scale=scale,
                            generator=generators(range(k, k + self.batch))).images
            for k in range(0, COUNT, self.batch)
        ]  # fmt: skip
        return torch.cat(parts)

    def through_vae(self, images: Tensor) -> Tensor:
        """The autoencoder's round trip."""
        with torch.no_grad():
            return self.model.decode(self.model.encode(images.to(self.model.device)))


def main() -> None:
    table = Table()
    table.add("identity", table.source)
    table.add("vae(source)", table.through_vae(table.source))
    table.add("vae(truth)", table.through_vae(table.truth))
    for scale in SCALES:
        table.add(f"fresh noise, w = {scale:g}", table.fresh(scale))
        for method in ("ddim", "fixed_point"):
            table.add(f"{method}, w = {scale:g}", table.edited(method, scale, COUNT, {}))
    columns = ("row", "render_fit", "scenes-clip", "judges agree", "edit_gain", "inside", "outside", "median gain")
    note = f"{COUNT} scenes of report, {STEPS} steps, inverted at w = 1; gains pooled over pixels; median of pictures"
    show("Editing one attribute (colour, shape, background), scenes-sd", columns, table.rows, note)


if __name__ == "__main__":
    main()
