"""What the network's number type costs an inversion: float64, float32 and bfloat16."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import OURS, SD, Asked, Cells, Row, Study, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DTYPES = ("float64", "float32", "bfloat16")
METHODS = ("ddim", "fixed_point", "edict", "belm", "rex[solver=euler]")
METRICS = ("e_latent", "e_recon", "e_recon_record")
DRAWN = {"e_latent": "E_latent", "e_recon": "E_recon, of the noise", "e_recon_record": "E_recon, of the whole record"}


def plans(asked: Asked) -> list[dict[str, Any]]:
    """A plan a type: it is one for a whole plan."""
    return [
        asked.plan(methods=list(METHODS), metrics=list(METRICS), datasets={"recovered": asked.generated}, dtype=dtype)
        for dtype in DTYPES
    ]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, method and type; the picture is made from the same noise in each type, by the network itself."""
    for cell in cells:
        about = {"model": cell["model"], "unit": cell["item"], "method": cell["method"]}
        about |= {"dtype": DTYPES[cell["plan"]], "status": cell["status"]}
        yield about | {name: value(cell, f"recovered.{name}") for name in METRICS}


def figure(rows: Sequence[Row]) -> Figure:
    """Medians of the three errors by method and type."""
    from statistics import median

    from unsample.studies.plotting import colour, logarithmic, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(DRAWN) * len(models), columns=len(DRAWN), width=3.4, height=2.6, sharey=True)
    places = list(range(len(METHODS)))[::-1]
    shown = [(model, column) for model in models for column in DRAWN]
    for axis, (model, column) in zip(axes, shown, strict=True):
        for k, dtype in enumerate(DTYPES):
            found = [
                [r[column] for r in rows if (r["model"], r["method"], r["dtype"]) == (model, method, dtype)]
                for method in METHODS
            ]
            middle = [median([v for v in values if v] or [math.nan]) for values in found]
            at = [place + 0.2 * (1 - k) for place in places]
            axis.plot(middle, at, "os^"[k], ms=4, color=colour(k), label=dtype)
        logarithmic(axis)
        axis.set_title(f"{short(model)}: {DRAWN[column]}", fontsize=8)
    axes[0].set_yticks(places, [method.partition("[")[0] for method in METHODS])
    axes[0].legend(fontsize=6)
    return figure


STUDY = Study(
    name="precision",
    question="Does it matter in which number type the network runs, to the noise and to the round trip?",
    paper=OURS,
    shows="float64, float32 and bfloat16",
    models=(SD,),
    num_samples=4,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    minutes=1.0,
    about=(
        "The type is the network's. The state is float32 beside a network of float32 or bfloat16 and float64 beside "
        "one of float64, and reversible methods are carried in float64 between the network's calls in every case. An "
        "error of exactly 0 is not drawn on a logarithmic axis.",
    ),
)
