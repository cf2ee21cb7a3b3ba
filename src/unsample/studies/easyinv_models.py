"""EasyInv's Figures 3 and 4 side by side: the method on models of several families."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies._easyinv import EASYINV, SDXL, means, named
from unsample.studies.base import DDPM, FLOW, SD, Asked, Cells, Row, Study, value
from unsample.studies.base import EASYINV as PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GUIDANCE = (1.0, 7.5)


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Both published settings beside DDIM inversion; guidance where the model takes prompts."""
    return [
        asked.plan(
            methods=["ddim", EASYINV, SDXL],
            datasets={"record": asked.scenes, "recovered": asked.scenes},
            metrics=["psnr", "ssim", "noise_std"],
            guidance=list(GUIDANCE),
            inversion_guidance="same",
        )
    ]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, guidance and method."""
    for cell in cells:
        row = {"model": cell["model"], "unit": cell["item"], "w": cell["guidance"], "method": named(cell["method"])}
        row |= {"status": cell["status"]} | {name: value(cell, f"record.{name}") for name in ("psnr", "ssim")}
        yield row | {"noise_std": value(cell, "recovered.noise_std")}


def figure(rows: Sequence[Row]) -> Figure:
    """PSNR, a panel a model."""
    placed = [row | {"w": f"w {row['w']:g}"} for row in rows]
    return means(placed, "psnr", "method", "PSNR, dB", series="w")


STUDY = Study(
    name="easyinv_models",
    question="Does EasyInv reconstruct better than DDIM inversion on models of several families?",
    paper=PAPER,
    shows="Figures 3 and 4",
    models=(SD, FLOW, DDPM),
    num_samples=8,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    minutes=0.5,
    published="unsample study easyinv_models --model stabilityai/stable-diffusion-xl-base-1.0 --steps 50",
    about=(
        "A latent diffusion model, a flow in latents, and a diffusion model on pixels, which takes no prompt. "
        "On a flow the method called `ddim` is Euler's step, which EasyInv blends in the same way.",
        "`easyinv` has the paper's setting for Stable Diffusion 1.4, `easyinv_sdxl` that for SDXL. Guidance is the "
        "same both ways; `noise_std` is that of the noise found.",
    ),
)
