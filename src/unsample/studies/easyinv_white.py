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
    """How bright the reconstructions are."""
    if "record" not in found.pictures:
        return [{}] * len(found.items)
    return blackened(found.source, found.pictures["record"])


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
    published="unsample study easyinv_white --model CompVis/stable-diffusion-v1-4 --steps 50",
    about=(
        "Each scene is inverted on its own ground and, the same object, on a plain white one (the data set "
        "`scenes:N,ground=white`), so that what white costs is a paired difference.",
        "unsample's ReNoise does not take steps of its regulariser that raise the loss they descend; the authors' code "
        "takes them, and on a nearly constant eps they overshoot. A picture counts as black where less than half of "
        "its brightness is left.",
    ),
)
