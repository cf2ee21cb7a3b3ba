"""EasyInv's Figures 3 and 4: pictures with large white areas, of which ReNoise is said to make black ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies._easyinv import EASYINV, means
from unsample.studies.base import EASYINV as PAPER
from unsample.studies.base import SD, Asked, Cells, Row, Study, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

NAME = "easyinv_white"
GROUNDS = ("own", "white")
BRIGHT, DARK = 0.5, 0.5  # a black picture: its source is above BRIGHT in the mean, and it is below DARK of that
WHITE = 0.85  # of every channel, where a pixel counts as white
GUIDANCE = (1.0, 7.5)
RATE = 0.065  # of the published steps of ReNoise's regulariser


def blackened(source: Tensor, images: Tensor) -> list[dict[str, float]]:
    """How bright pictures (B, 3, H, W) are beside their sources, whether they came out black, and how white those are.

    `brightness` is the ratio of mean values; `black` is 1 where a bright source has less than half of its brightness
    left; `white_share` is the share of the source's pixels that are white.
    """
    before, after = (p.double().flatten(1).mean(1) for p in (source, images))
    white = (source.amin(1) > WHITE).double().flatten(1).mean(1)
    black = (before > BRIGHT) & (after < DARK * before)
    return [
        {"brightness": float(a / b), "black": float(dark), "white_share": float(share)}
        for a, b, dark, share in zip(after, before, black, white, strict=True)
    ]


def overshooting(own: Tensor, other: Tensor) -> list[float]:
    """The share of the 4 x 4 patches of eps (B, C, H, W) whose published step towards another eps raises its loss."""
    from unsample.numbers.solvers.regularise import GRADIENT_LIMIT, patch_kl_gradient, patch_kl_loss, patches

    a, b = patches(own), patches(other)
    moved = a - RATE * patch_kl_gradient(a, b).clamp(-GRADIENT_LIMIT, GRADIENT_LIMIT)
    return [float(v) for v in (patch_kl_loss(moved, b) > patch_kl_loss(a, b)).double().flatten(1).mean(1)]


def _first_eps(found: Findings) -> tuple[Tensor, Tensor]:
    """What the network predicts at the first level above the picture, and there for the picture with forward noise."""
    import torch

    import unsample
    from unsample.experiment.findings import item_seeds, seeded

    assert found.inversion is not None
    assert found.inversion.latents is not None
    setup, clean = found.setup, found.inversion.latents
    grid = found.model.grid(setup.steps)
    (a, b), (s, t) = grid.alpha[:2], grid.sigma[:2]
    chance = seeded(item_seeds(setup.seed + 1, [item.digest() for item in found.items]))
    noise = torch.stack([torch.randn(clean.shape[1:], generator=g) for g in chance]).to(clean)

    def predicted(x: Tensor) -> Tensor:
        up = unsample.invert(
            found.model,
            latents=x,
            prompt=found.prompts(),
            method="ddim",
            num_inference_steps=setup.steps,
            guidance_scale=setup.inversion_guidance,
            strength=min(1.0, 1.5 / setup.steps),
            progress=False,
        ).noise
        return (up - b / a * x) / (t - b / a * s)

    return predicted(clean), predicted(b * clean + t * noise)


def plans(asked: Asked) -> list[dict[str, Any]]:
    """The same scenes on their own grounds and on plain white ones."""
    return [
        asked.plan(
            methods=["ddim", "renoise", EASYINV],
            datasets={"record": spec, "recovered": spec},
            metrics=["psnr", "ssim", "noise_std"],
            guidance=list(GUIDANCE),
            inversion_guidance="same",
            probe=NAME,
        )
        for spec in (asked.scenes, f"{asked.scenes},ground=white")
    ]


def probe(found: Findings, settings: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """How bright the reconstructions are; of ReNoise, where its regulariser's published steps would overshoot."""
    if "record" not in found.pictures:
        return [{}] * len(found.items)
    told: list[dict[str, float]] = blackened(found.source, found.pictures["record"])
    if getattr(found.setup.method, "name", "") == "renoise" and found.setup.inversion_guidance == 1:
        shares = overshooting(*_first_eps(found))
        told = [each | {"overshooting": share} for each, share in zip(told, shares, strict=True)]
    return told


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a scene, ground, guidance and method; the unit is the scene, whatever its ground."""
    for cell in cells:
        row = {"model": cell["model"], "unit": cell["item"].replace("-white-", "-"), "ground": GROUNDS[cell["plan"]]}
        row |= {"w": cell["guidance"], "method": cell["method"], "T": cell["steps"], "status": cell["status"]}
        row |= {name: value(cell, f"record.{name}") for name in ("psnr", "ssim")}
        row["noise_std"] = value(cell, "recovered.noise_std")
        yield row | dict(cell["probed"])


def figure(rows: Sequence[Row]) -> Figure:
    """PSNR on both grounds, a panel a model and guidance."""
    placed = [row | {"place": f"{row['model']}, w {row['w']:g}"} for row in rows]
    return means(placed, "psnr", "method", "PSNR, dB", series="ground", across="place")


STUDY = Study(
    name=NAME,
    question="Does ReNoise fail on pictures with large white areas, and does EasyInv not?",
    paper=PAPER,
    shows="Figures 3 and 4",
    models=(SD,),
    num_samples=8,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: 2 * len(GROUNDS),
    needs=("table",),
    minutes=0.6,
    published="unsample study easyinv_white --model CompVis/stable-diffusion-v1-4 --steps 50",
    about=(
        "Each scene is inverted on its own ground and, the same object, on a plain white one (the data set "
        "`scenes:N,ground=white`), so that what white costs is a paired difference.",
        "unsample's ReNoise does not take steps of its regulariser that raise the loss they descend; the authors' code "
        "takes them, and on a nearly constant eps they overshoot. `overshooting` is the share of patches of the first "
        "eps of an inversion (at guidance 1) where they would. A picture counts as black where less than half of its "
        "brightness is left.",
    ),
)
