"""Figure 6 of the report on editing by inversion: baselines, DDIM and null-text inversion, and their price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import EDITING, SD, Asked, Cells, Row, Study
from unsample.studies.edited import NAMES, edit_row, looked_at, mean_of, picture_rows, plan_of_edits, strips, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("random_noise", "sdedit", "ddim", "null_text")
GUIDANCE = (1.5, 7.5)  # at which scenes-sd edits best, and the default of diffusers, which is the report's
DRAWN = {
    "ssim": "SSIM to the source",
    "clip_image": "CLIP to the source",
    "clip_text": "CLIP to the target prompt",
    "psnr_truth": "PSNR to the true edit (dB)",
    "times_ddim": "time, over that of ddim",
}


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Each method edits the same scenes at each scale; null-text, which is dear, at the larger one."""
    return [
        plan_of_edits(
            asked,
            "edit_methods",
            methods=[*METHODS[:-1], f"null_text[guidance={GUIDANCE[1]:g}]"],
            guidance=list(GUIDANCE),
        )
    ]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row an edit; `times_ddim` and `passes_times_ddim` are its price over that of ddim on the same picture."""
    found = [edit_row(cell, {"guidance": cell["guidance"]}) for cell in cells]
    paid = {(r["model"], r["unit"], r["guidance"]): r for r in found if r["method"] == "ddim"}
    for row in found:
        yield row | priced(row, paid.get((row["model"], row["unit"], row["guidance"])))
    yield from picture_rows(cells, _label)


def priced(row: Mapping[str, Any], ddim: Mapping[str, Any] | None) -> dict[str, float | None]:
    """What a picture costs, over what it costs with ddim: in time, and in passes, of which one backward is two."""
    if ddim is None or row["method"] not in METHODS:
        return {"times_ddim": None, "passes_times_ddim": None}
    spent, unit = (r["passes"] + 2 * r["backward"] for r in (row, ddim))
    return {
        "times_ddim": row["seconds"] / ddim["seconds"] if row["seconds"] and ddim["seconds"] else None,
        "passes_times_ddim": spent / unit if unit else None,
    }


def _label(cell: Mapping[str, Any]) -> str:
    if cell["method"] in METHODS:
        return f"{cell['method']}\nw = {cell['guidance']:g}"
    return NAMES.get(cell["method"], "")


def figure(rows: Sequence[Row]) -> Figure:
    """The first edits by each method, and what is measured of all of them."""
    from matplotlib.figure import Figure

    from unsample.studies.plotting import colour, models_of

    models = models_of(rows)
    whole = Figure(figsize=(11, 4.5 + 3.1 * len(models)), layout="constrained")
    above, below = whole.subfigures(2, 1, squeeze=False, height_ratios=(1.5, len(models))).flat
    strips(above, rows, ["source", *(f"{m}\nw = {w:g}" for w in GUIDANCE for m in METHODS), "true edit"])
    edits = [row for row in rows if row["kind"] == "edit"]
    axes = [*below.subplots(len(models), len(DRAWN), sharey=True, squeeze=False).flat]
    places = list(range(len(METHODS)))[::-1]
    shown = [(model, column) for model in models for column in DRAWN]
    for axis, (model, column) in zip(axes, shown, strict=True):
        for k, w in enumerate(GUIDANCE):
            found = (mean_of(edits, column, model=model, method=m, guidance=w) for m in METHODS)
            means, widths = zip(*found, strict=True)
            at = [place - 0.2 * k for place in places]
            axis.errorbar(means, at, xerr=widths, fmt="os"[k], ms=4, color=colour(k), label=f"w = {w:g}")
        axis.set_title(titled(DRAWN[column], model, models), fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(places, METHODS)
    axes[-1].legend(fontsize=7, frameon=False, loc="upper right")
    return whole


STUDY = Study(
    name="edit_methods",
    question="Which keeps more of an edited picture, DDIM or null-text inversion, and is it 12.5 times the price?",
    paper=EDITING,
    shows="Figure 6",
    models=(SD,),
    num_samples=12,
    steps=20,
    needs=("prompt",),
    plans=plans,
    rows=rows,
    figure=figure,
    probe=looked_at,
    minutes=0.9,
    published="unsample bench run plans/editing.toml -o RUN",
    about=(
        "plans/editing.toml is the paper's experiment: 200 pictures of GenAI-Bench on Stable Diffusion 1.4.",
        "The report does not say what its baseline is: sdedit (noise at strength 0.8, then the target prompt) and "
        "fresh noise stand for it.",
        "SSIM and CLIP to the source reward an edit that does nothing. So PSNR to the true edit stands beside them, "
        "which scenes have and photographs have not; the rows of method identity are the source itself.",
        "The price is of inversion and one edit. In passes a backward one counts as two, and with T steps null-text "
        "takes at most 15 T forward and 10 T backward where ddim takes 3 T; a second edit of the same picture costs "
        "both 2 T more. Time is wall time of a batch, its share for each picture: "
        "one measurement, so that the claim is about passes.",
    ),
)
