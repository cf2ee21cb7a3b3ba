"""`make models-eval`: what the bundled models reach, on `report` seeds; printed, and written into the model cards.

The cards are made here too, so every number in them comes from this command.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

import unsample
from benchmarks.common import generators, show
from training.build import write_manifest
from training.cards import write_card
from training.run import BUNDLED
from training.scene_fit import explained_threshold, fit_scene
from unsample.datasets import Scenes, render
from unsample.media.files import atomic_write
from unsample.metrics.clip import load_clip
from unsample.metrics.judges import agreement, clip_attribute
from unsample.metrics.pixels import psnr
from unsample.models.base import Condition
from unsample.models.gaussian import GaussianModel

ATTRIBUTES = ("colour", "shape", "background")
STEPS, BATCH = 50, 25


@dataclass(frozen=True)
class Row:
    """A line of the table. `target` is a lower bound."""

    model: str
    measure: str
    value: float
    target: float | None
    count: int
    unit: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target is reached."""
        return "-" if self.target is None else "reached" if self.value >= self.target else "not reached"


def share(found: list[str], wanted: list[str]) -> float:
    """Percent of equal answers."""
    return 100 * agreement(found, wanted)


def vae_rows(count: int) -> list[Row]:
    """Round trip of held-out scenes, mean PSNR."""
    model = unsample.load("scenes-sd")
    x = _rendered(Scenes("report", count), 64)
    with torch.no_grad():
        y = torch.cat([model.decode(model.encode(part)).clamp(0, 1) for part in x.split(BATCH)])
    return [Row("scenes-sd", "VAE round trip, mean PSNR", fmean(psnr(y, x)), 33, count, "dB")]


def clip_rows(count: int) -> list[Row]:
    """Zero-shot accuracy: the true caption against those with one attribute replaced."""
    clip = load_clip(BUNDLED / "scenes-clip")
    scenes = [Scenes("report", count).scene(k) for k in range(count)]
    images = _rendered(Scenes("report", count), 64)
    targets = {"colour": 98.0, "shape": 95.0, "background": 98.0}
    rows = []
    for name in (*ATTRIBUTES, "size", "place", "texture", "background_texture"):
        found = clip_attribute(clip, images, scenes, name)
        value = share(found, [getattr(s, name) for s in scenes])
        rows.append(Row("scenes-clip", f"zero-shot {name}", value, targets.get(name), count, "%"))
    return rows


def text_rows(name: str, scale: float, count: int) -> list[Row]:
    """Held-out captions at a guidance scale, judged by render_fit and by scenes-clip."""
    model, clip = unsample.load(name), load_clip(BUNDLED / "scenes-clip")
    scenes = [Scenes("report", count).scene(k) for k in range(count)]
    images = _samples(model, [s.caption for s in scenes], count, scale)
    fits = [fit.scene for fit in fit_scene(images)]
    targets = {"colour": 92.0, "shape": 85.0, "background": 95.0}
    rows = []
    for attribute in ATTRIBUTES:
        wanted = [getattr(s, attribute) for s in scenes]
        by_render = [getattr(f, attribute) for f in fits]
        by_clip = clip_attribute(clip, images, scenes, attribute)
        found = (
            ("as asked (render_fit)", share(by_render, wanted), targets[attribute]),
            ("as asked (scenes-clip)", share(by_clip, wanted), None),
        )
        rows += [Row(name, f"{attribute} {measure}", value, target, count, "%") for measure, value, target in found]
        rows.append(Row(name, f"{attribute}: the two judges agree", share(by_render, by_clip), None, count, "%"))
    return rows


def ddpm_rows(count: int) -> list[Row]:
    """Samples that a render fit explains, and the known failure of DDIM inversion."""
    model = unsample.load("scenes-ddpm")
    threshold = explained_threshold(32)
    images = _samples(model, None, count, 1.0)
    explained = torch.tensor([fit.explained for fit in fit_scene(images)])
    passed = 100 * float((explained >= threshold.value).double().mean())
    of = {"blurred renders": threshold.renders, "chimeras of two scenes": threshold.chimeras}
    of |= {"pixel-shuffled renders": threshold.shuffled, "noise": threshold.noise}
    rows = [
        Row("scenes-ddpm", "samples that a render fit explains", passed, 80, count, "%"),
        Row("scenes-ddpm", "variance explained: threshold", threshold.value, None, threshold.count),
        Row("scenes-ddpm", "variance explained: median of samples", float(explained.median()), None, count),
    ]
    rows += [Row("scenes-ddpm", f"{kind} above it", 100 * v, None, threshold.count, "%") for kind, v in of.items()]
    rows += _against_posterior(model) + _denoised(model, threshold.value)
    made = unsample.sample(model, num_inference_steps=STEPS, generator=generators(range(64)))
    latent, recon = {}, {}
    for method in ("ddim", "fixed_point"):
        found = unsample.invert(model, latents=made.latents, method=method, num_inference_steps=STEPS)
        again = unsample.reconstruct(model, found)
        latent[method] = float((found.noise - made.noise).square().mean())
        recon[method] = float((again.latents - made.latents).square().mean())
        rows.append(Row("scenes-ddpm", f"{method}: E_latent", latent[method], 0.1 if method == "ddim" else None, 64))
        rows.append(Row("scenes-ddpm", f"{method}: E_recon", recon[method], None, 64))
    rows.append(
        Row("scenes-ddpm", "E_recon, ddim over fixed_point", recon["ddim"] / recon["fixed_point"], 100, 64, "x")
    )
    return rows


@torch.no_grad()
def _against_posterior(model: Any, count: int = 200, known: int = 20_000) -> list[Row]:
    """Error of the predicted x0 on held-out scenes, over that of the exact model of `known` training scenes.

    From t = 600 up many of the known scenes could be meant, and the ratio says how far the network is from the best.
    """
    x0, means = (model.encode(_rendered(Scenes(split, n), 32)) for split, n in (("report", count), ("train", known)))
    exact = GaussianModel(means, torch.full_like(means, 1e-6), model.scheduler)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    abar, rows = model.scheduler.alphas_cumprod, []
    for t in (600, 700, 800):
        x = abar[t].sqrt() * x0 + (1 - abar[t]).sqrt() * noise
        ours, best = (  # the error of x0 is that of eps, times sigma / alpha
            float((torch.cat([m.network(part, t, Condition()) for part in x.split(BATCH)]) - noise).square().mean())
            for m in (model, exact)
        )
        rows.append(Row("scenes-ddpm", f"error of x0 at t = {t}, over the posterior mean's", ours / best, None, count))
    return rows


def _denoised(model: Any, threshold: float, count: int = 100) -> list[Row]:
    """Held-out scenes noised to t and denoised from there, that a render fit explains: at which level is it lost?"""
    source = _rendered(Scenes("report", count), 32)
    rows = []
    for t in (100, 300, 500):
        found = unsample.invert(model, source, method="sdedit", num_inference_steps=STEPS, strength=t / 1000)
        made = unsample.reconstruct(model, found).images
        passed = 100 * float(torch.tensor([fit.explained >= threshold for fit in fit_scene(made)]).double().mean())
        rows.append(
            Row("scenes-ddpm", f"scenes denoised from t = {t} that a render fit explains", passed, None, count, "%")
        )
    return rows


def _rendered(scenes: Scenes, size: int) -> Tensor:
    """The pictures (B, 3, H, W) of a part of the data set, drawn in batches."""
    all_ = [scenes.scene(k) for k in range(len(scenes))]
    return torch.cat([render(all_[k : k + 100], size).images for k in range(0, len(all_), 100)])


def _samples(model: object, prompts: list[str] | None, count: int, scale: float) -> Tensor:
    """Pictures from seeds 0, 1, 2, ..., in batches."""
    parts = []
    for k in range(0, count, BATCH):
        seeds = range(k, min(k + BATCH, count))
        given = None if prompts is None else prompts[seeds.start : seeds.stop]
        made = unsample.sample(
            model, given, num_inference_steps=STEPS, guidance_scale=scale, generator=generators(seeds)
        )
        parts.append(made.images)
    return torch.cat(parts)


PARTS: dict[str, tuple[Callable[[int], list[Row]], int]] = {
    "vae": (vae_rows, 512),
    "clip": (clip_rows, 1000),
    "sd": (partial(text_rows, "scenes-sd", 5.0), 500),
    "ddpm": (ddpm_rows, 500),
    "flow": (partial(text_rows, "scenes-flow", 4.0), 500),
}


def table(rows: list[Row]) -> list[tuple[str, ...]]:
    """The rows as text."""
    return [
        (
            r.model,
            r.measure,
            f"{r.value:.4g} {r.unit}".strip(),
            f"{r.target:g}" if r.target else "",
            r.verdict,
            str(r.count),
        )
        for r in rows
    ]


COLUMNS = ("model", "measure", "value", "at least", "verdict", "n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--divide", type=int, default=1, help="use so many times fewer pictures (the table says so)")
    options = parser.parse_args()
    rows = []
    for part in options.parts:
        measure, count = PARTS[part]
        rows += measure(count // options.divide)
    show("The bundled models, on held-out scenes (report seeds)", COLUMNS, table(rows), f"{STEPS} steps")
    for name in dict.fromkeys(row.model for row in rows):
        mine = remembered(BUNDLED / name, [r for r in table(rows) if r[0] == name])
        where = f"torch {torch.__version__}, {platform.machine()}, {date.today().isoformat()}, report seeds"
        write_card(BUNDLED / name, mine, where, histories(BUNDLED / name))
    write_manifest()


def remembered(folder: Path, rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The rows of this run, and those of earlier runs that it did not measure; kept beside the weights."""
    path = folder / "evaluation.json"
    earlier = [tuple(row) for row in json.loads(path.read_text())] if path.exists() else []
    measured = {row[1] for row in rows}
    merged = [row for row in earlier if row[1] not in measured] + rows
    atomic_write(path, lambda temporary: temporary.write_text(json.dumps(merged, indent=1) + "\n"))
    return merged


def histories(folder: Path) -> dict[str, dict[str, object]]:
    """The training histories beside the weights."""
    return {p.stem.removeprefix("training-"): json.loads(p.read_text()) for p in sorted(folder.glob("training-*.json"))}


if __name__ == "__main__":
    main()
