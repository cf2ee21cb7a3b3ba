"""The limit that EasyInv states itself, over-denoising: what reconstructions lose of each band of frequencies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies._easyinv import EASYINV, SDXL, named
from unsample.studies.base import EASYINV as PAPER
from unsample.studies.base import SD, Asked, Cells, Row, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

NAME = "easyinv_oversmoothing"
BANDS = 8  # of equal width, from 0 to half a cycle a pixel along an axis
HIGH = 4  # the first band of the upper half
GUIDANCE = (1.0, 7.5)


def band_powers(images: Tensor) -> Tensor:
    """Power of the luminance of pictures (B, 3, H, W) in rings of frequency, (B, BANDS), float64; corners are left out.

    The mean is taken away and a Hann window laid over, so that opposite borders need not meet. The sum over all
    frequencies is the mean square of the windowed picture.
    """
    import torch

    from unsample.models.base import luminance

    grey = luminance(images.double().cpu())[:, 0]
    height, width = grey.shape[-2:]
    hann = [torch.hann_window(side, periodic=True, dtype=torch.float64) for side in (height, width)]
    windowed = (grey - grey.mean((-2, -1), keepdim=True)) * hann[0][:, None] * hann[1][None]
    power = torch.fft.fft2(windowed, norm="forward").abs().square()
    down, across = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    ring = ((down[:, None] ** 2 + across[None] ** 2).sqrt() * 2 * BANDS).floor().long().flatten()
    inside = ring < BANDS
    return torch.zeros(len(grey), BANDS, dtype=torch.float64).index_add(1, ring[inside], power.flatten(1)[:, inside])


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Reconstructions of drawn scenes, at both guidances, each the same both ways."""
    return [
        asked.plan(
            methods=["ddim", "renoise", EASYINV, SDXL],
            datasets={"record": asked.scenes},
            metrics=["psnr"],
            guidance=list(GUIDANCE),
            inversion_guidance="same",
            probe=NAME,
        )
    ]


def probe(found: Findings, settings: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Power by bands of the reconstruction and of the autoencoder's own round trip."""
    if "record" not in found.made or found.ceiling is None:
        return [{}] * len(found.items)
    made, ceiling = band_powers(found.pictures["record"]), band_powers(found.ceiling)
    return [{"made": a, "ceiling": b} for a, b in zip(made.tolist(), ceiling.tolist(), strict=True)]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, guidance, method and band, and one of the upper half: log2 of power over the round trip's."""
    for cell in cells:
        row = {"model": cell["model"], "unit": cell["item"], "w": cell["guidance"], "method": named(cell["method"])}
        if not cell["probed"]:
            yield row | {"band": "high", "log2_power": None}
            continue
        made, ceiling = cell["probed"]["made"], cell["probed"]["ceiling"]
        yield row | {"band": "high", "log2_power": _log2(sum(made[HIGH:]), sum(ceiling[HIGH:]))}
        for k in range(BANDS):
            yield row | {"band": k, "log2_power": _log2(made[k], ceiling[k])}


def _log2(a: float, b: float) -> float | None:
    return math.log2(a / b) if a > 0 and b > 0 else None


def figure(rows: Sequence[Row]) -> Figure:
    """The mean of it over bands, a line a method, a panel a model and guidance."""
    from unsample.studies._easyinv import interval
    from unsample.studies.plotting import colour, models_of, panels, short

    places = [(m, w) for m in models_of(rows) for w in GUIDANCE if any((r["model"], r["w"]) == (m, w) for r in rows)]
    figure, axes = panels(len(places), columns=2, width=4.2, height=2.8)
    for axis, (model, w) in zip(axes, places, strict=True):
        here = [r for r in rows if (r["model"], r["w"]) == (model, w) and r["log2_power"] is not None]
        for k, method in enumerate(dict.fromkeys(r["method"] for r in here)):
            found = [[r["log2_power"] for r in here if (r["method"], r["band"]) == (method, n)] for n in range(BANDS)]
            ends = [interval(values) if values else (math.nan,) * 3 for values in found]
            middle = [(n + 0.5) / (2 * BANDS) for n in range(BANDS)]
            axis.fill_between(
                middle, [e[0] for e in ends], [e[2] for e in ends], color=colour(k), alpha=0.12, linewidth=0
            )
            axis.plot(middle, [e[1] for e in ends], "o-", color=colour(k), markersize=3, label=method)
        axis.axhline(0, color="gray", linewidth=1, linestyle="--")
        axis.set_title(f"{short(model)}, w {w:g}", fontsize=9)
        axis.set_xlabel("cycles a pixel", fontsize=8)
        axis.set_ylabel("log2 of power over the ceiling's", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
    return figure


STUDY = Study(
    name=NAME,
    question="Are EasyInv's reconstructions too smooth?",
    paper=PAPER,
    shows="Limitations: over-denoising",
    models=(SD,),
    num_samples=8,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    minutes=0.1,
    published="unsample study easyinv_oversmoothing --model CompVis/stable-diffusion-v1-4 --steps 50",
    about=(
        "Power of the luminance in rings of frequency, as log2 of its ratio to that of the autoencoder's own round "
        "trip of the picture, so that what the autoencoder smooths is not counted; `high` is the upper half, from a "
        "quarter to half a cycle a pixel. Below 0: smoother than it should be; -1 is half the power.",
    ),
)
