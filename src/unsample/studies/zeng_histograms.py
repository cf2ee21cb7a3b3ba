"""Fig. 3 of Zeng et al.: how three errors spread over pictures, for DDIM inversion, ReNoise and the hybrid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.models.minis import minis
from unsample.studies.base import MIXTURE, REPELLING, TRAILING, ZENG, Asked, Cells, Row, Study, value
from unsample.studies.zeng import COST, PLAIN, called, groups, hybrid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("ddim", "renoise", "hybrid")
METRICS = ("e_latent", "e_recon", "e_interp")


def models() -> tuple[str, ...]:
    """The exact one; and where the first step is long, one of latents and four small ones."""
    return (TRAILING, MIXTURE, *(name + REPELLING for name in minis()[::3]))


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Three methods on pictures that the model made."""
    found = []
    for own in groups(asked):
        methods = [PLAIN[0], PLAIN[3], hybrid(own.models[0], own)]
        found.append(own.plan(methods=methods, metrics=list(METRICS), datasets={"recovered": own.generated}))
    return found


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and method."""
    for cell in cells:
        about = {"model": cell["model"], "unit": cell["item"], "method": called(cell["method"])}
        yield about | {name: value(cell, f"recovered.{name}") for name in METRICS} | {"status": cell["status"]}


def figure(rows: Sequence[Row]) -> Figure:
    """A row of three panels a model: histograms over the logarithm of each error."""
    import math

    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    drawn, axes = panels(3 * len(models), columns=3, height=1.8)
    for k, model in enumerate(models):
        for axis, metric in zip(axes[3 * k : 3 * k + 3], METRICS, strict=True):
            found = {
                method: [
                    math.log10(r[metric]) for r in rows if (r["model"], r["method"]) == (model, method) and r[metric]
                ]
                for method in SHOWN
            }
            every = [v for values in found.values() for v in values] or [0.0]
            low, width = min(every), max(max(every) - min(every), 0.1) / 16
            edges = [low + n * width for n in range(18)]
            for n, (method, values) in enumerate(found.items()):
                axis.hist(values, edges, color=colour(n), alpha=0.55, label=method)
            axis.set_title(f"{short(model)}: log10 {metric.replace('e_', 'E_')}", fontsize=8)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return drawn


STUDY = Study(
    name="zeng_histograms",
    question="How do the three errors spread over pictures?",
    paper=ZENG,
    shows="Figure 3",
    models=models,
    num_samples=8,
    steps=25,
    plans=plans,
    rows=rows,
    figure=figure,
    minutes=2.0,
    published="unsample study zeng_histograms --model google/ddpm-celebahq-256 --num-samples 100 --steps 50",
    about=(*COST, "Means hide what histograms show: a few pictures that run away, or all of them a little."),
)
