"""Table 1 of Zeng et al.: how well each method recovers the noise, the picture, and what lies half way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import DDPM, MIXTURE, SD, TRAILING, ZENG, Asked, Cells, Row, Study, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("ddim", "pix2pix_zero", "fixed_point", "renoise", "hybrid", "random_noise", "oracle", "zero")
METRICS = ("e_latent", "e_recon", "e_interp", "cosine", "std")


def plans(asked: Asked) -> list[dict[str, Any]]:
    """All methods on pictures that the model made."""
    return [asked.plan(methods=list(METHODS), metrics=list(METRICS), datasets={"recovered": asked.generated})]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and method."""
    for cell in cells:
        about = {"model": cell["model"], "unit": cell["item"], "method": cell["method"], "status": cell["status"]}
        found = {name: value(cell, f"recovered.{name}") for name in METRICS}
        yield about | found | {"passes": cell["nfe"], "backward": cell["backward"]}


def figure(rows: Sequence[Row]) -> Figure:
    """E_latent of each method, a panel a model."""
    from unsample.studies.plotting import models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(models), sharey=True)
    for axis, model in zip(axes, models, strict=True):
        found = {m: [r["e_latent"] for r in rows if r["model"] == model and r["method"] == m] for m in METHODS}
        found = {m: [v for v in values if v is not None] for m, values in found.items()}
        named = [m for m, values in found.items() if values]
        axis.boxplot([found[m] for m in named], orientation="horizontal", tick_labels=named, showfliers=False)
        axis.set_title(short(model), fontsize=9)
        axis.set_xlabel("E_latent", fontsize=8)
    return figure


STUDY = Study(
    name="zeng_table1",
    question="Which inversion recovers the noise of a picture, and not only the picture?",
    paper=ZENG,
    shows="Table 1",
    models=(DDPM, SD, TRAILING, MIXTURE),
    num_samples=16,
    plans=plans,
    rows=rows,
    figure=figure,
    published="unsample study zeng_table1 --model google/ddpm-celebahq-256 --num-samples 100",
)
