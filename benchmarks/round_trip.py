"""Round trip on held-out scenes at guidance 1: latent error, PSNR against the encoder's own round trip and the source.

`record` plays back what the method stored, `noise` samples plainly from the recovered noise; for methods that store the
noise alone the two agree. For generated pictures, whose noise is known, the error of the noise stands beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

import unsample
from benchmarks.tables import generators, show
from unsample.datasets import Scenes
from unsample.methods import Method
from unsample.metrics.recovery import mse

COUNT, STEPS, BATCH = 64, 50, 16
METHODS = ("ddim", "fixed_point")


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(B,) in dB, inf for equal pictures."""
    return -10 * (a.double() - b.double()).square().flatten(1).mean(1).log10()


def one(model: object, method: str | Method, items: list) -> dict[str, dict[str, Tensor]]:
    """The figures of one batch, from the record and from the noise alone."""
    images = torch.stack([item.image for item in items])
    prompt = [item.prompt for item in items] if model.takes_prompt else None
    inversion = unsample.invert(model, images, prompt, method=method, num_inference_steps=STEPS)
    with torch.no_grad():
        ceiling = model.decode(inversion.latents).clamp(0, 1)
    common = {"std": inversion.noise.flatten(1).std(1), "nfe": torch.tensor(inversion.nfe).double()}
    common["ceiling"] = psnr(ceiling, images)
    made = {use: unsample.reconstruct(model, inversion, use=use) for use in ("record", "noise")}
    return {
        use: common
        | {"latent_mse": mse(m.latents, inversion.latents)}
        | {"against_encoder": psnr(m.images, ceiling), "against_source": psnr(m.images, images)}
        for use, m in made.items()
    }


def known_noise(model: object, method: str) -> float:
    """Mean squared error of the recovered noise of pictures that the model made itself."""
    prompt = [item.prompt for item in Scenes("report", BATCH)] if model.takes_prompt else None
    made = unsample.sample(model, prompt, num_inference_steps=STEPS, generator=generators(range(BATCH)))
    found = unsample.invert(model, latents=made.latents, prompt=prompt, method=method, num_inference_steps=STEPS)
    return float(mse(found.noise, made.noise).mean())


def main() -> None:
    for name in ("scenes-sd", "scenes-ddpm"):
        model = unsample.load(name)
        data = list(Scenes("report", COUNT, size=model.picture_size[0]))
        rows, latent = [], {}
        for method in METHODS:
            parts = [one(model, method, data[k : k + BATCH]) for k in range(0, COUNT, BATCH)]
            for use in ("record", "noise"):
                f = {key: torch.cat([p[use][key] for p in parts]) for key in parts[0][use]}
                latent[method] = float(f["latent_mse"].mean())
                figures = [float(f[k].median()) for k in ("against_encoder", "against_source", "ceiling")]
                noise = known_noise(model, method) if use == "record" else "-"
                rows.append(
                    (method, use, int(f["nfe"].mean()), f"{latent[method]:.3e}", *(f"{v:.2f}" for v in figures),
                     f"{float(f['std'].mean()):.3f}", noise)
                )  # fmt: skip
        columns = (
            "method",
            "from",
            "nfe",
            "latent MSE",
            "dB to D(z0)",
            "dB to source",
            "ceiling dB",
            "noise std",
            "noise MSE, known",
        )
        ratio = latent["ddim"] / latent["fixed_point"]
        note = (
            f"{COUNT} scenes of report, {STEPS} steps, w = 1; dB are medians; latent MSE of ddim over fixed_point: "
            f"{ratio:.3g} (at least 100); last column: {BATCH} pictures that the model made"
        )
        show(f"Round trip, {name}", columns, rows, note)


if __name__ == "__main__":
    main()
