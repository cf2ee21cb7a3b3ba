"""Watermarks put into the noise of pictures and found again by inversion: `python examples/watermarks.py`.

`count` pictures of scenes-sd without a mark, as many with each of two marks, all from the same prompts and noises; each
is saved, as PNG and as JPEG of quality 75, opened, and inverted without its prompt, as who finds a picture would. How
well the marks tell the two apart is printed as the tables of docs/detection.md, and drawn as ROC curves (with the extra
`plot`). Below them: how well `dire` and `aeroblade` tell the pictures of the model from scenes that a program drew.
The noises that were found are kept in the folder, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unsample
from unsample.datasets import Scenes, render
from unsample.metrics import Settings, Subject
from unsample.metrics.pixels import encoded_alone
from unsample.watermarks import GaussianShading, TreeRing

SHAPE, BATCH = (4, 16, 16), 20
KEYS = {
    "tree_ring": TreeRing.drawn(SHAPE, radius=7, channel=0, seed=0),
    "gaussian_shading": GaussianShading.drawn(SHAPE, side_copies=4, seed=0),
}
SAVED: dict[str, dict[str, Any]] = {"PNG": {"format": "PNG"}, "JPEG 75": {"format": "JPEG", "quality": 75}}


def saved(images: torch.Tensor, how: str) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [0, 1] as a file of that kind gives them back."""
    back = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()).save(file, **SAVED[how])
        with Image.open(file) as opened:
            back.append(torch.frombuffer(bytearray(opened.convert("RGB").tobytes()), dtype=torch.uint8))
    return torch.stack(back).reshape(len(images), *images.shape[2:], 3).permute(0, 3, 1, 2).float() / 255


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive lies below a negative, ties counting half: the area under the ROC curve."""
    a, b = torch.tensor(positive, dtype=torch.float64)[:, None], torch.tensor(negative, dtype=torch.float64)[None]
    return float(((a < b).double() + (a == b).double() / 2).mean())


def found_at(positive: Sequence[float], negative: Sequence[float], rate: float) -> float:
    """The share of positives below the level that at most `rate` of the negatives lie below."""
    level = sorted(negative)[int(rate * len(negative))]
    return sum(p < level for p in positive) / len(positive)


class Run:
    """What the pictures and noises are, made once and kept in a folder."""

    def __init__(self, folder: Path, count: int, steps: int, guidance_scale: float) -> None:
        self.folder, self.count, self.steps, self.guidance_scale = folder, count, steps, guidance_scale
        self.total = count
        self.scenes = [Scenes("report", count).scene(k) for k in range(count)]
        self.model = unsample.load("scenes-sd")
        folder.mkdir(parents=True, exist_ok=True)

    def size(self, start: int) -> int:
        """How many pictures a batch has."""
        return min(BATCH, self.total - start)

    def kept(self, name: str, make: Callable[[slice], torch.Tensor]) -> torch.Tensor:
        """(count, ...), made a batch at a time where the folder does not hold it."""
        parts = []
        for start in range(0, self.count, BATCH):
            file = self.folder / f"{name}-{self.steps}-{self.guidance_scale:g}-{start}-{self.size(start)}.safetensors"
            if not file.is_file():
                save_file({"part": make(slice(start, start + self.size(start))).contiguous()}, file)
                print(f"{name}: {start + self.size(start)} of {self.total}", flush=True)
            parts.append(load_file(file)["part"])
        return torch.cat(parts)

    def pictures(self, mark: str | None) -> torch.Tensor:
        """The model's own pictures, their noise with a mark or without."""

        def make(rows: slice) -> torch.Tensor:
            seeds = range(self.count)[rows]
            noise = torch.stack([torch.randn(SHAPE, generator=torch.Generator().manual_seed(k)) for k in seeds])
            return unsample.sample(
                self.model,
                [scene.caption for scene in self.scenes[rows]],
                noise=noise if mark is None else KEYS[mark].embed(noise),
                guidance_scale=self.guidance_scale,
                num_inference_steps=self.steps,
            ).images

        return self.kept(f"pictures-{mark}", make)

    def noise(self, pictures: torch.Tensor, name: str) -> torch.Tensor:
        """The noise that DDIM inversion finds without a prompt."""

        def make(rows: slice) -> torch.Tensor:
            return unsample.invert(self.model, pictures[rows], num_inference_steps=self.steps).noise

        return self.kept(f"noise-{name}", make)

    def again(self, pictures: torch.Tensor, name: str) -> torch.Tensor:
        """What comes back of pictures that are inverted and reconstructed without a prompt."""

        def make(rows: slice) -> torch.Tensor:
            inversion = unsample.invert(self.model, pictures[rows], num_inference_steps=self.steps)
            return unsample.reconstruct(self.model, inversion).images

        return self.kept(f"again-{name}", make)


def watermarks(run: Run) -> dict[str, tuple[list[float], list[float]]]:
    """By mark and kind of file: p of the pictures with it, and of those without."""
    found = {}
    for mark, key in KEYS.items():
        for how in SAVED:
            values = []
            for kind in (mark, None):
                noise = run.noise(saved(run.pictures(kind), how), f"{kind}-{how.replace(' ', '')}")
                score = unsample.measure([f"{mark}_p"], Subject(noise=noise), Settings(key=key))[f"{mark}_p"]
                values.append([float(value) for value in score.values if value is not None])
            found[f"{mark} | {how}"] = (values[0], values[1])
    return found


def made_or_drawn(run: Run) -> dict[str, tuple[list[float], list[float]]]:
    """By metric: values of pictures that the model made, and of scenes that were drawn; what cannot be had is said."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    kinds = {"made": saved(run.pictures(None), "PNG"), "drawn": saved(render(run.scenes[: run.count]).images, "PNG")}
    subjects = {}
    for kind, pictures in kinds.items():
        again = saved(run.again(pictures, kind), "PNG")
        alone = encoded_alone(run.model, pictures).clamp(0, 1)
        subjects[kind] = {
            "dire": Subject(images=again, reference=pictures),
            "aeroblade[squeeze]": Subject(images=pictures, autoencoded=alone),
        }
    for name in subjects["made"]:
        scores = [unsample.measure([name], subjects[kind][name])[name] for kind in kinds]
        if reason := scores[0].reasons[0]:
            print(f"{name}: left out: {reason}")
        else:
            found[name] = tuple([float(v) for v in score.values if v is not None] for score in scores)  # type: ignore[assignment]
    return found


def table(title: str, rows: dict[str, tuple[list[float], list[float]]], p: bool) -> str:
    """Markdown."""
    heads = [*title.split(" | "), "AUC", "found at 1 % false alarms"] + (
        ["p < .01 with", "p < .01 without"] if p else []
    )
    lines = [heads, ["---"] * len(heads)]
    for name, (positive, negative) in rows.items():
        cells = [f"{auc(positive, negative):.3f}", f"{100 * found_at(positive, negative, 0.01):.0f} %"]
        if p:
            cells += [f"{100 * sum(v < 0.01 for v in side) / len(side):.0f} %" for side in (positive, negative)]
        lines.append([*name.split(" | "), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(rows: dict[str, tuple[list[float], list[float]]], file: Path) -> None:
    """The ROC curves."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5, 4), layout="constrained")
    for name, (positive, negative) in rows.items():
        levels = [0.0, *sorted({*positive, *negative})]
        shares = [[sum(v <= level for v in side) / len(side) for level in levels] for side in (negative, positive)]
        style = "--" if "JPEG" in name else "-"
        axis.step(*shares, style, where="post", label=f"{name.replace(' | ', ', ')}: {auc(positive, negative):.3f}")
    axis.set(xlabel="false alarms", ylabel="marks found", xlim=(0, 1), ylim=(0, 1.01))
    axis.legend(title="area", fontsize=8, title_fontsize=8, loc="lower right")
    figure.savefig(file, dpi=110)


def main() -> None:
    """See the header."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="pictures with each mark, and without")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=Path("out/watermarks"))
    asked = parser.parse_args()
    run = Run(asked.folder, asked.count, asked.steps, asked.guidance_scale)
    for run.count in range(BATCH, asked.count, BATCH):  # batch by batch, so that a run that is stopped has whole ones
        watermarks(run)
    run.count = asked.count
    marks = watermarks(run)
    print(f"\n{table('mark | saved as', marks, p=True)}\n")
    print(table("metric", made_or_drawn(run), p=False))
    try:
        draw(marks, asked.folder / "roc.png")
    except ImportError:
        print("\nno figure: pip install 'unsample[plot]'")


if __name__ == "__main__":
    main()
