"""Section 4.1 of the report on editing by inversion: one null embedding for all steps against one for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import EDITING, SD, Asked, Cells, Row, Study
from unsample.studies.edited import WITH_RECONSTRUCTION as DRAWN
from unsample.studies.edited import looked_at, mean_of, plan_with_reconstruction, row_with_reconstruction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GUIDANCE = 7.5
EACH, ONE, NONE = "one a step", "one for all", "not fitted"
FITTED = {"null_text": EACH, "null_text[global_embedding=true]": ONE, "ddim": NONE}


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Null-text inversion in both forms, with as many updates, and DDIM inversion under the same guidance."""
    return [plan_with_reconstruction(asked, "edit_embeddings", methods=list(FITTED), guidance=[GUIDANCE])]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and form: its reconstruction and its edit."""
    for cell in cells:
        if cell["method"] in FITTED:
            yield row_with_reconstruction(cell, {"embeddings": FITTED[cell["method"]]})


def figure(rows: Sequence[Row]) -> Figure:
    """What is measured of each form."""
    from unsample.studies.plotting import colour, models_of, panels, short

    figure, axes = panels(len(DRAWN), columns=len(DRAWN), width=2.5, height=2.2, sharey=True)
    forms = list(FITTED.values())
    places = list(range(len(forms)))[::-1]
    for axis, (column, title) in zip(axes, DRAWN.items(), strict=True):
        for k, model in enumerate(models_of(rows)):
            found = (mean_of(rows, column, model=model, embeddings=form) for form in forms)
            means, widths = zip(*found, strict=True)
            at = [place - 0.15 * k for place in places]
            axis.errorbar(means, at, xerr=widths, fmt="o", ms=4, color=colour(k), label=short(model))
        axis.set_title(title, fontsize=8)
        axis.margins(y=0.3)
    axes[0].set_yticks(places, forms)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


STUDY = Study(
    name="edit_embeddings",
    question="Does an unconditional embedding for each step reconstruct better than one for all steps?",
    paper=EDITING,
    shows="Section 4.1",
    models=(SD,),
    num_samples=8,
    steps=20,
    needs=("prompt",),
    plans=plans,
    rows=rows,
    figure=figure,
    probe=looked_at,
    minutes=0.5,
    published="unsample study edit_embeddings --model CompVis/stable-diffusion-v1-4 --num-samples 200 --steps 50",
    about=(
        "Both forms make the same number of updates, ten a step, at the same rate. One for all is that of Mokady et "
        "al. (global null-text inversion): ten sweeps over the steps, each step started at its point of the "
        "trajectory.",
    ),
)
