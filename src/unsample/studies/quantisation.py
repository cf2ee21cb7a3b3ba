"""What is lost before an inversion begins: 8-bit pixels, JPEG, and the autoencoder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.experiment.saving import damaged
from unsample.studies.base import DDPM, MIXTURE, OURS, SD, Asked, Cells, Row, Study, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

METHODS = ("ddim", "fixed_point[num_iters=4]")
KEPT = "latents"  # what the model ended with, as it is
DAMAGES = ("float pixels", "8 bit", "jpeg 95", "jpeg 75")
STARTS = (KEPT, *DAMAGES)
DRAWN = {"start_error": "error of the start", "e_latent": "E_latent", "e_recon": "E_recon"}


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Pictures that the model makes; the probe inverts them again from what is left of them in files."""
    return [
        asked.plan(
            methods=list(METHODS),
            metrics=["e_latent", "e_recon"],
            datasets={"recovered": asked.generated},
            probe="quantisation",
        )
    ]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each damage: how far the start is off, and the errors of noise and round trip that follow."""
    import torch

    import unsample
    from unsample.models.calling import evaluating
    from unsample.studies.points import space

    setup, model = found.setup, found.model
    if isinstance(setup.method, str) or found.sampled is None or found.true_noise is None:
        return [{}] * len(found.items)
    true, noise = found.sampled.latents, found.true_noise
    prompts = found.prompts()
    told: list[dict[str, Any]] = [{"space": space(found)} for _ in found.items]
    for damage in DAMAGES:
        with torch.no_grad(), evaluating(model):
            start = model.encode(damaged(found.source, damage).to(model.device)).to(true)
        inversion = unsample.invert(
            model, latents=start, prompt=prompts, method=setup.method, num_inference_steps=setup.steps, progress=False
        )
        played = unsample.reconstruct(model, inversion, use="noise", progress=False)
        for name, errors in {
            "start_error": squared(start, true),
            "e_latent": squared(inversion.noise, noise),
            "e_recon": squared(played.latents, true),
        }.items():
            for each, error in zip(told, errors, strict=True):
                each.setdefault(damage, {})[name] = error
    return told


def squared(found: Tensor, true: Tensor) -> list[float]:
    """The mean squared error of each sample, in float64."""
    return [float(v) for v in (found.double() - true.to(found.device).double()).square().flatten(1).mean(1)]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, method and start."""
    for cell in cells:
        about = {"model": cell["model"], "unit": cell["item"], "method": cell["method"], "status": cell["status"]}
        about["space"] = cell["probed"].get("space") if cell["probed"] else None
        whole = {name: value(cell, f"recovered.{name}") for name in ("e_latent", "e_recon")}
        yield about | {"start": KEPT, "start_error": 0.0} | whole
        for damage in DAMAGES if about["space"] else ():
            yield about | {"start": damage} | cell["probed"][damage]


def figure(rows: Sequence[Row]) -> Figure:
    """Medians of the errors by what was inverted."""
    from statistics import median

    from unsample.studies.plotting import colour, logarithmic, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(DRAWN) * len(models), columns=len(DRAWN), width=3.2, height=2.4, sharey=True)
    places = list(range(len(STARTS)))[::-1]
    shown = [(model, column) for model in models for column in DRAWN]
    for axis, (model, column) in zip(axes, shown, strict=True):
        for k, method in enumerate(METHODS):
            found = [
                [r[column] for r in rows if (r["model"], r["method"], r["start"]) == (model, method, start)]
                for start in STARTS
            ]
            middle = [median([v for v in values if v] or [math.nan]) for values in found]
            axis.plot(middle, [p - 0.15 * k for p in places], "os"[k], ms=4, color=colour(k), label=method)
        logarithmic(axis)
        axis.set_title(f"{short(model)}: {DRAWN[column]}", fontsize=8)
    axes[0].set_yticks(places, STARTS)
    axes[0].legend(fontsize=6)
    return figure


def _added(asked: Asked) -> int:
    """Inversion and playback of each damage, by both methods."""
    return len(DAMAGES) * asked.steps * (1 + 4 + len(METHODS))


STUDY = Study(
    name="quantisation",
    question="What do 8-bit pixels, JPEG and the autoencoder cost an inversion, beside what the method costs?",
    paper=OURS,
    shows="damage to the start",
    models=(SD, DDPM, MIXTURE),
    num_samples=8,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=_added,
    minutes=1.7,
    about=(
        "float pixels are the decoded picture, cut to [0, 1] and not rounded: of a latent model what its autoencoder "
        "alone loses, of a model on pixels what lies outside of the range. JPEG is of 8-bit pixels with colours at "
        "half the size. Errors are held against the latents and the noise that the picture was made from.",
    ),
)
