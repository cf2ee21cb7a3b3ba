"""Figure 2 of the report on editing by inversion: what the scale of guidance does to an edit by DDIM inversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import EDITING, SD, Asked, Cells, Row, Study
from unsample.studies.edited import NAMES, edit_row, looked_at, mean_of, picture_rows, plan_of_edits, strips

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALES = (1.0, 1.5, 3.0, 5.0, 7.5, 10.0, 15.0)
DRAWN = {
    "clip_text": "CLIP, picture and target prompt",
    "attribute": "share with the wanted attribute",
    "ssim": "SSIM to the source",
    "psnr_truth": "PSNR to the true edit (dB)",
}


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion without guidance, and edits at each scale."""
    return [
        plan_of_edits(
            asked,
            "edit_guidance",
            methods=["ddim"],
            guidance=list(SCALES),
        )
    ]


def _label(cell: Mapping[str, Any]) -> str:
    return f"w = {cell['guidance']:g}" if cell["method"] == "ddim" else NAMES.get(cell["method"], "")


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row an edit, and of what stands beside it: source, autoencoder alone, fresh noise."""
    for cell in cells:
        yield edit_row(cell, {"guidance": cell["guidance"]})
    yield from picture_rows(cells, _label)


def figure(rows: Sequence[Row]) -> Figure:
    """The first edits at each scale, and what is measured of all of them."""
    from matplotlib.figure import Figure

    from unsample.studies.plotting import colour, models_of, short

    whole = Figure(figsize=(11, 7.2), layout="constrained")
    above, below = whole.subfigures(2, 1, squeeze=False, height_ratios=(1.6, 1)).flat
    strips(above, rows, ["source", *(f"w = {w:g}" for w in SCALES), "true edit"])
    edits = [row for row in rows if row["kind"] == "edit"]
    for axis, (column, title) in zip(below.subplots(1, len(DRAWN)), DRAWN.items(), strict=True):
        for k, model in enumerate(models_of(edits)):
            found = [mean_of(edits, column, model=model, method="ddim", guidance=w) for w in SCALES]
            means, widths = zip(*found, strict=True)
            axis.errorbar(SCALES, means, widths, color=colour(k), marker="o", ms=3, lw=1, label=short(model))
        axis.set_title(title, fontsize=8)
        axis.set_xlabel("guidance scale w of the edit", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    below.axes[0].legend(fontsize=7, frameon=False)
    return whole


STUDY = Study(
    name="edit_guidance",
    question="Does a larger guidance scale bring an edit by DDIM inversion nearer to its prompt, and at what price?",
    paper=EDITING,
    shows="Figure 2",
    models=(SD,),
    num_samples=16,
    steps=20,
    needs=("prompt",),
    plans=plans,
    rows=rows,
    figure=figure,
    probe=looked_at,
    minutes=1.0,
    published="unsample study edit_guidance --model CompVis/stable-diffusion-v1-4 --num-samples 200 --steps 50",
    about=(
        "Scenes stand for the report's photographs of GenAI-Bench: their true edit is known, so that 'better' can be "
        "told from 'more like the prompt'. plans/editing.toml runs DDIM and null-text inversion on GenAI-Bench itself.",
        "The report shows one picture, by default and after adjusting the scale, and gives neither scale: 7.5 is the "
        "default of diffusers, 15 twice that, 1 is without guidance.",
        "SSIM is the report's own: grey pictures, one window over all. attribute says whether the closest render of "
        "the edit has the wanted value of what was to change.",
    ),
)
