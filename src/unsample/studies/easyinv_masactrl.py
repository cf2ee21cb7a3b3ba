"""Figure 6 of EasyInv: MasaCtrl from the noise that different inversions find."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies._easyinv import ABOUT_FIXED_POINT, EASYINV, PAN, at, fewer, means, named
from unsample.studies.base import EASYINV as PAPER
from unsample.studies.base import SD, Asked, Cells, Row, Study, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("psnr", "edit_gain", "attribute_clip", "clip_text", "clip_image")


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Objects on white that become another shape, under MasaCtrl."""
    return [
        asked.plan(
            methods=["ddim", "renoise", at(PAN, fewer(asked, 0.4)), EASYINV],
            datasets={"edit": f"{asked.scenes},edit=shape,ground=white"},
            metrics=list(METRICS),
            edit=True,
            editors=["masactrl"],
            edit_guidance=[7.5],
        )
    ]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and method."""
    for cell in cells:
        if cell["method"] not in ("ddim", "renoise", PAN, EASYINV):
            continue  # baselines, which the benchmark adds to edits
        row = {"model": cell["model"], "unit": cell["item"], "method": named(cell["method"]), "T": cell["steps"]}
        yield row | {"status": cell["status"]} | {name: value(cell, f"edit.{name}") for name in METRICS}


def figure(rows: Sequence[Row]) -> Figure:
    """PSNR to the true edit, and agreement with the prompt by CLIP, a panel each."""
    placed = []
    for name, label in (("psnr", "PSNR to the true edit, dB"), ("clip_text", "CLIP with the prompt, x 100")):
        scale = 100 if name == "clip_text" else 1
        given = [r for r in rows if r[name] is not None]
        placed += [r | {"shown": scale * r[name], "place": f"{r['model']}: {label}"} for r in given]
    return means(placed, "shown", "method", "", across="place")


STUDY = Study(
    name="easyinv_masactrl",
    question="Does MasaCtrl edit better from the noise that EasyInv finds?",
    paper=PAPER,
    shows="Figure 6",
    models=(SD,),
    num_samples=10,
    steps=20,
    needs=("prompt", "attention"),
    plans=plans,
    rows=rows,
    figure=figure,
    minutes=0.5,
    published="unsample study easyinv_masactrl --model CompVis/stable-diffusion-v1-4 --steps 50",
    about=(
        ABOUT_FIXED_POINT,
        "The paper turns one peach on white into a football. Here an object on white becomes another shape, and the "
        "truth is known: the same scene drawn with that shape. Inverted at guidance 1, edited at 7.5.",
        "`attribute_clip` is 1 where the judge names the wanted shape.",
    ),
)
