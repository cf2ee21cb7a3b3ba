"""`make demo`: a picture inverted, reconstructed and edited with the bundled model, offline. Figures are printed.

The picture is a scene of which the true edit is known, so the edit is scored against the truth. It was chosen on the
seeds that settings may be chosen on (`python examples/demo.py --choose` does it again, in minutes): of the first 64
scenes of `tune`, each with the change that the data set `scenes` makes to it, those that `ddim` loses at guidance 7.5
(under 21 dB) and edits at guidance 1.5 with a gain of at least 0.9; of these the one whose edit is nearest to the true
edit. It shows what methods differ in at its clearest, then, and not what is usual: `docs/methods.md` has the tables.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import unsample
from unsample.datasets import Scenes, render
from unsample.datasets.edits import changed
from unsample.media.figures import noise_picture, sheet
from unsample.metrics.edits import edit_gain

OUT = Path("out/demo")
SCENE, COUNT, STEPS, GUIDANCE, EDIT_GUIDANCE = 56, 64, 50, 7.5, 1.5
LOST, LEAST_GAIN = 21.0, 0.9
AUTO_EDITS = {"colour": "blue", "place": "left"}  # beside the scene's own edit, by editor="auto"


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB."""
    return float(-10 * (a.double() - b.double()).square().mean().log10())


def pil(image: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as an 8-bit picture."""
    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def noise(inversion: unsample.Inversion) -> Image.Image:
    """The recovered noise of one picture, at the size of the picture."""
    return noise_picture(inversion.noise[0].tolist(), (64, 64))


def choose(model: Any, batch: int = 16) -> int:
    """The scene of the rule above."""
    found = []
    for first in range(0, COUNT, batch):
        rows = range(first, first + batch)
        scenes = [Scenes("tune", COUNT).scene(k) for k in rows]
        targets = [changed(scene, k)[1] for k, scene in zip(rows, scenes, strict=True)]
        source, truth = (render(some).images for some in (scenes, targets))
        inversion = unsample.invert(model, source, [s.caption for s in scenes], num_inference_steps=STEPS)
        again = unsample.reconstruct(model, inversion, guidance_scale=GUIDANCE).images
        edited = unsample.edit(model, inversion, [t.caption for t in targets], guidance_scale=EDIT_GUIDANCE).images
        gains = edit_gain(edited, truth, source).total.tolist()
        for k, a, s, e, t, gain in zip(rows, again, source, edited, truth, gains, strict=True):
            if psnr(a, s) < LOST and gain >= LEAST_GAIN:
                found.append((psnr(e, t), k))
    return max(found)[1]


def main() -> None:
    warnings.filterwarnings("ignore", message=".*expect the reconstruction to drift")  # it is what is shown
    model = unsample.load("scenes-sd")
    if "--choose" in sys.argv[1:]:
        print(f"scene {choose(model)} of tune")
        return
    OUT.mkdir(parents=True, exist_ok=True)
    scene = Scenes("tune", COUNT).scene(SCENE)
    target = changed(scene, SCENE)[1]
    source, truth = (render([s]).images for s in (scene, target))
    pil(source[0]).save(OUT / "source.png")
    with torch.no_grad():
        ceiling = model.decode(model.encode(source)).clamp(0, 1)
    print(f"source: {scene.caption}\nedit:   {target.caption}\nthe autoencoder alone: {psnr(ceiling, source):.1f} dB\n")

    inversions, played = {}, {}
    for method in ("ddim", "fixed_point", "negative_prompt"):
        given = {"method": method, "num_inference_steps": STEPS}
        inv = inversions[method] = unsample.invert(model, OUT / "source.png", scene.caption, **given)
        inv.save(OUT / f"{method}.safetensors")
        again = [unsample.reconstruct(model, inv, guidance_scale=w).images for w in (1, GUIDANCE)]
        played[method] = [(images, psnr(images, source)) for images in again]
        health = inv.health[0]
        low, high = health["bands"]["std"]
        at = ", ".join(f"{p:.1f} dB at {w:g}" for (_, p), w in zip(played[method], (1, GUIDANCE), strict=True))
        print(
            f"{method:15} {inv.nfe[0]:3} network calls, {inv.seconds:.1f} s; noise std {health['std']:.3f} "
            f"(true noise: {low:.2f} to {high:.2f}); reconstruction by guidance: {at}"
        )
    edited = unsample.edit(model, inversions["fixed_point"], target.caption, guidance_scale=EDIT_GUIDANCE)
    edited.save(OUT / "edit.png")
    gain, near = float(edit_gain(edited.images, truth, source).total), psnr(edited.images, truth)
    print(
        f"\nedit by fixed_point at guidance {EDIT_GUIDANCE:g}: {near:.1f} dB to the true edit, gain {gain:.2f} "
        "(1: the true edit, 0: nothing done)"
    )

    changes = {name: scene.replace(**{name: value}) for name, value in AUTO_EDITS.items()}
    chosen, near_by = {}, {}
    for name, other in changes.items():
        made = unsample.edit(model, inversions["ddim"], other.caption, editor="auto")
        made.save(OUT / f"{name}.png")
        true = render([other]).images
        chosen[name], near_by[name] = made.images, psnr(made.images, true)
        own = float(edit_gain(made.images, true, source).total)
        print(f"{made.meta['auto']}: {near_by[name]:.1f} dB to the true edit, gain {own:.2f}")

    stds = {method: inv.health[0]["std"] for method, inv in inversions.items()}
    lost, held = played["ddim"][1], played["negative_prompt"][1]
    panels = [
        ("source", pil(source[0])),
        (f"edit: {target.background} background, {near:.1f} dB", pil(edited.images[0])),
        *((f"edit: {AUTO_EDITS[name]}, {near_by[name]:.1f} dB", pil(images[0])) for name, images in chosen.items()),
        ("source again; true edits:", pil(source[0])),
        (f"{target.background} background", pil(truth[0])),
        *((AUTO_EDITS[name], pil(render([other]).images[0])) for name, other in changes.items()),
        (f"ddim: noise of std {stds['ddim']:.2f}", noise(inversions["ddim"])),
        (f"fixed_point: noise of std {stds['fixed_point']:.2f}", noise(inversions["fixed_point"])),
        (f"ddim: {lost[1]:.1f} dB at guidance {GUIDANCE:g}", pil(lost[0][0])),
        (f"negative_prompt: {held[1]:.1f} dB at {GUIDANCE:g}", pil(held[0][0])),
    ]
    figure = sheet([image for _, image in panels], [label for label, _ in panels], columns=4, scale=4)
    figure.save(OUT / "figure.png")
    print(f"\nwritten to {OUT}/: figure.png, source.png, edit.png, and the inversions as .safetensors")


if __name__ == "__main__":
    main()
