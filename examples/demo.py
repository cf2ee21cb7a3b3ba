"""`make demo`: one picture inverted, reconstructed and edited with the bundled model, offline. Figures are printed.

The picture is a scene of which the true edit is known, so the edit is scored against the truth.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from transformers.utils.logging import disable_progress_bar

import unsample
from unsample.datasets import Scenes, render
from unsample.figures import sheet
from unsample.metrics.edits import edit_gain

OUT = Path("out/demo")
SCENE, CHANGE, STEPS, SCALE = 1, {"colour": "red"}, 50, 2.0  # the first large, plain scene


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB."""
    return float(-10 * (a.double() - b.double()).square().mean().log10())


def pil(image: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as an 8-bit picture."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def main() -> None:
    disable_progress_bar()
    OUT.mkdir(parents=True, exist_ok=True)
    scene = Scenes("report", 64).scene(SCENE)
    target = scene.replace(**CHANGE)
    source, truth = (render([s]).images for s in (scene, target))
    pil(source[0]).save(OUT / "source.png")
    model = unsample.load("scenes-sd")
    with torch.no_grad():
        ceiling = model.decode(model.encode(source)).clamp(0, 1)
    print(f"source: {scene.caption}\nedit:   {target.caption}\nthe autoencoder alone: {psnr(ceiling, source):.1f} dB\n")
    panels, labels = [pil(source[0])], ["source"]
    for method in ("ddim", "fixed_point"):
        inversion = unsample.invert(model, OUT / "source.png", scene.caption, method=method, num_inference_steps=STEPS)
        made = unsample.reconstruct(model, inversion)
        edited = unsample.edit(model, inversion, target.caption, guidance_scale=SCALE)
        inversion.save(OUT / f"{method}.safetensors")
        again, noise = psnr(made.images, source), inversion.health[0]
        gain = float(edit_gain(edited.images, truth, source).total)
        low, high = noise["bands"]["std"]
        print(
            f"{method:12} {inversion.nfe[0]:4} network calls, {inversion.seconds:.1f} s; reconstruction {again:.1f} dB "
            f"({psnr(made.images, ceiling):.1f} dB to the autoencoder's); noise std {noise['std']:.3f} (true noise: "
            f"{low:.2f} to {high:.2f}); edit at guidance {SCALE:g}: gain {gain:.2f} (1: the true edit, 0: nothing done)"
        )
        panels += [made.pil()[0], edited.pil()[0]]
        labels += [f"{method}: reconstruction, {again:.1f} dB", f"{method}: edit, gain {gain:.2f}"]
    figure = sheet([*panels, pil(truth[0])], [*labels, "the true edit"], columns=6)
    figure.save(OUT / "figure.png")
    print(f"\nwritten: {OUT}/source.png, {OUT}/figure.png, {OUT}/ddim.safetensors, {OUT}/fixed_point.safetensors")


if __name__ == "__main__":
    main()
