"""What the studies of editing have in common: how an edit is looked at, its row, and strips of pictures.

The report holds an edit against its *source* (SSIM with one window, CLIP), since photographs have no true edit; scenes
have one, which the metrics of the benchmark hold it against. Both stand in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import Asked, Cells, Row, value
from unsample.studies.pictures import as_png, from_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from unsample.experiment.findings import Findings

METRICS = ("psnr", "clip_text", "edit_gain", "attribute_render_fit")  # psnr: to the true edit
SHOWN = 3  # pictures in a figure
NAMES = {"identity": "source", "vae(truth)": "true edit"}  # rows of the benchmark that are no edits, in strips
WITH_RECONSTRUCTION = {  # columns of `row_with_reconstruction`, and what a panel calls them
    "recon_psnr": "reconstruction, PSNR (dB)",
    "recon_ssim": "reconstruction, SSIM",
    "ssim": "edit, SSIM to the source",
    "clip_text": "edit, CLIP to its prompt",
    "psnr_truth": "edit, PSNR to the true edit (dB)",
}


def looked_at(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each edit: how near it is to its source, and itself as a PNG."""
    from unsample.metrics import Settings, Subject, measure
    from unsample.metrics.pixels import eight_bit

    made = found.pictures.get("edit")
    if made is None:
        return [{}] * len(found.items)
    rounded = eight_bit(made)
    subject = Subject(images=rounded.float(), reference=eight_bit(found.source).float())
    scores = measure(["ssim_global", "clip_image"], subject, Settings(clip=found.setup.clip_model))
    near = zip(scores["ssim_global"].values, scores["clip_image"].values, strict=True)
    return [
        {"ssim": ssim, "clip_image": clip, "picture": as_png(picture)}
        for (ssim, clip), picture in zip(near, rounded, strict=True)
    ]


def edit_row(cell: Mapping[str, Any], about: Mapping[str, Any]) -> Row:
    """The row of one edit; `about` says what else varies."""
    seen = cell["probed"]
    spent = {key: cell[key] or 0 for key in ("nfe", "edit_nfe", "backward", "edit_backward")}
    return {
        "model": cell["model"],
        "unit": cell["item"],
        "kind": "edit",
        "method": cell["method"],
        **about,
        "changed": cell["changed"],
        "status": cell["status"],
        "ssim": seen.get("ssim"),
        "clip_image": seen.get("clip_image"),
        "clip_text": value(cell, "edit.clip_text"),
        "psnr_truth": value(cell, "edit.psnr"),
        "edit_gain": value(cell, "edit.edit_gain"),
        "attribute": value(cell, "edit.attribute_render_fit"),
        "passes": spent["nfe"] + spent["edit_nfe"],
        "backward": spent["backward"] + spent["edit_backward"],
        "seconds": cell["seconds"],
    }


def plan_of_edits(asked: Asked, study: str, **given: Any) -> dict[str, Any]:
    """A plan that edits the scenes; `METRICS` of the edits unless others are given."""
    own: dict[str, Any] = {"metrics": list(METRICS), "datasets": {"edit": asked.scenes}}
    return asked.plan(edit=True, probe=study, **own | given)


def plan_with_reconstruction(asked: Asked, study: str, **given: Any) -> dict[str, Any]:
    """A plan that reconstructs the scenes and edits them, for `row_with_reconstruction`."""
    both = {"record": asked.scenes, "edit": asked.scenes}
    return plan_of_edits(asked, study, metrics=["psnr", "clip_text", "ssim_global"], datasets=both, **given)


def row_with_reconstruction(cell: Mapping[str, Any], about: Mapping[str, Any]) -> Row:
    """The row of one edit, and how near the reconstruction is to the source."""
    found = {"recon_psnr": value(cell, "record.psnr"), "recon_ssim": value(cell, "record.ssim_global")}
    return edit_row(cell, about) | found


def picture_rows(cells: Cells, label: Callable[[Mapping[str, Any]], str]) -> list[Row]:
    """The first pictures of the first model, as rows of kind "picture"; `label(cell)` names a column of the strip."""
    if not cells:
        return []
    here = [cell for cell in cells if cell["model"] == cells[0]["model"] and "picture" in cell["probed"]]
    first = list(dict.fromkeys(cell["item"] for cell in here))[:SHOWN]
    found: dict[tuple[str, str], Row] = {}
    for cell in here:
        name = label(cell)
        if cell["item"] in first and name:
            found.setdefault(
                (cell["item"], name),
                {"model": cell["model"], "unit": cell["item"], "kind": "picture", "label": name}
                | {"picture": cell["probed"]["picture"]},
            )
    return list(found.values())


def strips(figure: Figure | SubFigure, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Pictures of rows, one line a source, one column a label."""
    kept = {(row["unit"], row["label"]): row["picture"] for row in rows if row["kind"] == "picture"}
    units = list(dict.fromkeys(unit for unit, _ in kept))
    named = [label for label in labels if any((unit, label) in kept for unit in units)]
    if not named:
        return
    axes = figure.subplots(len(units), len(named), squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for line, unit in zip(axes, units, strict=True):
        for axis, label in zip(line, named, strict=True):
            axis.set_axis_off()
            if (unit, label) in kept:
                axis.imshow(from_png(kept[unit, label]), interpolation="nearest")
            if unit == units[0]:
                axis.set_title(label, fontsize=7)


def mean_of(rows: Sequence[Row], column: str, **where: Any) -> tuple[float, float]:
    """The mean of a column over the rows that fit, and the half width of its 95 % interval (normal)."""
    import math

    found = [float(r[column]) for r in rows if r.get(column) is not None and all(r[k] == v for k, v in where.items())]
    if not found:
        return math.nan, math.nan
    mean = math.fsum(found) / len(found)
    spread = math.fsum((v - mean) ** 2 for v in found) / max(len(found) - 1, 1)
    return mean, 1.96 * math.sqrt(spread / len(found))


def titled(title: str, model: str, models: Sequence[str]) -> str:
    """The title of a panel, with its model where there are several."""
    from unsample.studies.plotting import short

    return title + (f", {short(model)}" if len(models) > 1 else "")
