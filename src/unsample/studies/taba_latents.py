"""Fig. 2 of TABA: what latents look like, and what is left when the noise is taken away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.models.minis import is_mini
from unsample.studies.base import TABA, Asked, Cells, Row, Study, nature
from unsample.studies.pictures import as_png, from_png
from unsample.studies.points import finite, inverted, three

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

SHOWN = 2  # pictures of each model in the figure
WHAT = ("sample", "noise", "latent", "difference", "remainder")
TITLES = {"difference": "latent - noise", "remainder": "without noise"}
RANGE = 3.0  # of noise and latent, from black to white


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion of pictures that the model made."""
    return [inverted(asked, "taba_latents")]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How smooth the difference is, how alike to the sample, and small pictures of all."""
    from unsample.numbers.health import lag1_correlation

    noise, sample, latent = three(found)
    kept = share(latent, noise)
    every = {"noise": noise, "latent": latent, "difference": latent - noise, "remainder": without(latent, noise)}
    smooth = {name: lag1_correlation(points) for name, points in every.items()}
    like = {name: likeness(points, sample) for name, points in every.items()}
    size = {name: points.double().flatten(1).square().mean(1).sqrt() for name, points in every.items()}
    told = []
    for n in range(len(found.items)):
        onto = Axes(every["difference"][n])
        drawn = {"sample": as_png(found.source[n])}
        for name, points in every.items():
            seen = onto(points[n])
            range_ = RANGE if name in ("noise", "latent") else float(seen.abs().max().clamp(min=1e-9))
            drawn[name] = as_png(seen / (2 * range_) + 0.5)
        figures = {
            name: {"lag1_correlation": float(smooth[name][n]), "likeness": float(like[name][n])}
            | {"rms": float(size[name][n])}
            for name in every
        }
        told.append({"kept": float(kept[n]), "figures": figures, "drawn": drawn})
    return told


def share(latent: Tensor, noise: Tensor) -> Tensor:
    """How much of its noise each latent has kept: the multiple of the noise that is nearest to it, (B,)."""
    x, y = latent.double().flatten(1), noise.double().flatten(1)
    return (x * y).sum(1) / y.square().sum(1)


def without(latent: Tensor, noise: Tensor) -> Tensor:
    """The latents without what they have kept of their noises."""
    kept = share(latent, noise)
    return latent.double() - kept.reshape(-1, *(1 for _ in latent.shape[1:])) * noise.double()


def likeness(points: Tensor, sample: Tensor) -> Tensor:
    """The absolute correlation of each picture's numbers with those of its sample: (B,)."""
    x, y = (each.double().flatten(1) - each.double().flatten(1).mean(1, keepdim=True) for each in (points, sample))
    found: Tensor = ((x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))).abs()
    return found


class Axes:
    """Of (C, h, w) to three colours: as they are, grey, or along the three principal axes of one picture's channels."""

    def __init__(self, points: Tensor) -> None:
        import torch

        self.axes: Tensor | None = None
        if len(points) not in (1, 3):
            flat = points.double().flatten(1)
            _, vectors = torch.linalg.eigh(torch.cov(flat))
            axes = vectors.flip(1)[:, :3].T  # (3, C), the largest first
            signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # so that each looks one way
            self.axes = axes * signs

    def __call__(self, points: Tensor) -> Tensor:
        """(3, h, w)."""
        import torch

        if self.axes is None:
            return points.expand(3, -1, -1)
        return torch.einsum("kc,chw->khw", self.axes, points.double())


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """The figures of each picture; of the first ones the pictures themselves."""
    from unsample.studies.running import cells_by

    for (model,), some in cells_by(finite(cells), "model"):
        for cell in some:
            one = {"model": model, "unit": cell["item"]}
            for which, figures in cell["probed"]["figures"].items():
                kept = cell["probed"]["kept"] if which == "remainder" else None
                yield one | {"kind": "figures", "which": which, "kept": kept} | figures
        for cell in some[:SHOWN]:
            for which in WHAT:
                one = {"model": model, "unit": cell["item"], "kind": "picture", "which": which}
                yield one | {"png": cell["probed"]["drawn"][which]}


def figure(rows: Sequence[Row]) -> Figure:
    """The five of two pictures, a line a model; of the small networks the first seeds."""
    from unsample.studies.plotting import models_of, panels, short

    models = [model for model in models_of(rows) if not is_mini(model) or model.endswith("-0")]
    models = models or models_of(rows)
    shown = {model: [row for row in rows if row["model"] == model and row["kind"] == "picture"] for model in models}
    columns = max(map(len, shown.values()))
    figure, axes = panels(len(models) * columns, columns=columns, width=1.05, height=1.1)
    for line, model in enumerate(models):
        for place, axis in enumerate(axes[line * columns : (line + 1) * columns]):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if place < len(shown[model]):
                row = shown[model][place]
                axis.imshow(from_png(row["png"]), interpolation="nearest")
                if line == 0:
                    axis.set_title(TITLES.get(row["which"], row["which"]), fontsize=9)
        axes[line * columns].set_ylabel(short(model).replace(" ", "\n", 1), fontsize=8)
    return figure


STUDY = Study(
    name="taba_latents",
    question="Can the picture be seen in its latent?",
    paper=TABA,
    shows="Fig. 2",
    models=nature,
    num_samples=8,
    steps=20,
    plans=plans,
    probe=probe,
    rows=rows,
    figure=figure,
    minutes=0.3,
    published="unsample study taba_latents --model CompVis/ldm-celebahq-256 --num-samples 8 --steps 100",
    about=(
        "Noise and latent are shown from -3 (black) to 3 (white), the others from minus to plus their own largest"
        " value. Where the network works on four channels, all are shown along the principal axes of the difference's"
        " channels.",
        "Where a latent has kept little of its noise, the difference is that noise with its sign changed, and shows"
        " nothing else. So beyond the paper `remainder` is the latent without the multiple of the noise that is nearest"
        " to it; `kept` is that multiple, 1 of a latent that is the noise.",
        "`likeness` is the absolute correlation with the sample over all numbers of a picture, where the network works;"
        " `lag1_correlation` is that of neighbouring pixels, 0 of true noise.",
    ),
)
