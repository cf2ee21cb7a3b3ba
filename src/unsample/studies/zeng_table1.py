"""Table 1 of Zeng et al.: how well each method recovers the noise, the picture, and what lies half way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import ZENG, Asked, Cells, Row, Study, nature, value
from unsample.studies.zeng import COST, ORACLE, PLAIN, called, hybrid, split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("ddim", "pix2pix_zero", "aidi", "renoise", "hybrid", "oracle", "zero", "random_noise")
METRICS = ("e_latent", "e_recon", "e_interp", "cosine", "std")


def plans(asked: Asked) -> list[dict[str, Any]]:
    """All methods on pictures that the model made."""
    found = []
    for own in split(asked):
        methods = [*PLAIN, hybrid(own.models[0], own), ORACLE, "zero", "random_noise"]
        given = {"datasets": {"recovered": own.generated}, "metrics": list(METRICS)}
        found.append(own.plan(methods=methods, **given))
    return found


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and method, in the order of the models asked for."""
    for cell in sorted(cells, key=lambda cell: asked.models.index(cell["model"])):
        about = {"model": cell["model"], "unit": cell["item"], "method": called(cell["method"])}
        found = {name: value(cell, f"recovered.{name}") for name in METRICS}
        yield about | found | {"status": cell["status"], "passes": cell["nfe"], "backward": cell["backward"]}


def figure(rows: Sequence[Row]) -> Figure:
    """E_latent, E_recon and E_interp: a panel a model, the mean of each method over its pictures."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(models), height=2.3, sharey=True, sharex=True)
    for axis, model in zip(axes, models, strict=True):
        for k, metric in enumerate(METRICS[:3]):
            for place, method in enumerate(SHOWN):
                own = [r[metric] for r in rows if r["model"] == model and r["method"] == method]
                own = [v for v in own if v is not None and v > 0]
                if own:
                    label = metric.replace("e_", "E_") if method == "ddim" else None
                    axis.plot(sum(own) / len(own), -place, "os^"[k], color=colour(k), markersize=4, label=label)
        axis.set_xscale("log")
        axis.set_yticks([-k for k in range(len(SHOWN))], SHOWN)
        axis.set_title(short(model), fontsize=9)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


STUDY = Study(
    name="zeng_table1",
    question="Which inversion recovers the noise of a picture, and not only the picture?",
    paper=ZENG,
    shows="Table 1",
    models=nature,
    num_samples=4,
    steps=25,
    plans=plans,
    rows=rows,
    figure=figure,
    published="unsample study zeng_table1 --model google/ddpm-celebahq-256 --num-samples 100 --steps 50",
    about=(
        *COST,
        "The larger bundled models run on half of the pictures.",
        "The rows oracle (the true first step, then the fixed point), zero (an estimate of nothing) and random_noise "
        "say what the numbers are worth; a shrunken estimate has a small E_latent: read cosine and std beside it.",
    ),
)
