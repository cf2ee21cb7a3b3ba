"""Table 1 of EasyInv: reconstruction by its methods at the published settings, and again at equal passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies._easyinv import ABOUT_FIXED_POINT, EASYINV, PAN, at, fewer, means, named
from unsample.studies.base import EASYINV as PAPER
from unsample.studies.base import SD, Asked, Cells, Row, Study, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AVERAGED = "aidi_e[num_iters=2]"
METRICS = ("psnr", "ssim", "lpips_vgg", "psnr_to_ceiling", "noise_std")
GUIDANCE = (1.0, 7.5)


def plans(asked: Asked) -> list[dict[str, Any]]:
    """All methods on pictures that no model made, at both guidances, each the same both ways."""
    few = fewer(asked, 0.44)
    published = ["ddim", at("renoise", asked.steps, few), at(PAN, fewer(asked, 0.4)), EASYINV]
    equal = [at(AVERAGED, fewer(asked, 0.5))]
    return [
        asked.plan(
            methods=published + equal,
            datasets={"record": asked.scenes, "recovered": asked.scenes},
            metrics=list(METRICS),
            guidance=list(GUIDANCE),
            inversion_guidance="same",
        )
    ]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, guidance, method and setting; what costs the same in both settings stands in both."""
    for setting in ("published", "equal passes"):
        for cell in cells:
            method, steps = cell["method"], cell["steps"]
            equal = method == AVERAGED or (method == "renoise" and steps == fewer(asked, 0.44))
            if equal != (setting == "equal passes") and method not in ("ddim", EASYINV):
                continue
            row = {"model": cell["model"], "unit": cell["item"], "setting": setting, "w": cell["guidance"]}
            row |= {"method": "fixed_point" if method == AVERAGED else named(method), "T": steps}
            row |= {"passes": cell["nfe"], "status": cell["status"]}
            found = {m: value(cell, f"record.{m}") for m in METRICS[:-1]}
            yield row | found | {"noise_std": value(cell, "recovered.noise_std")}


def figure(rows: Sequence[Row]) -> Figure:
    """PSNR of each method, a panel a guidance and setting."""
    placed = [row | {"place": f"{row['model']}, w {row['w']:g}, {row['setting']}"} for row in rows]
    return means(placed, "psnr", "method", "PSNR, dB", across="place")


STUDY = Study(
    name="easyinv_table1",
    question="Does EasyInv reconstruct pictures better than DDIM inversion, and as well as methods that cost more?",
    paper=PAPER,
    shows="Table 1",
    models=(SD,),
    num_samples=10,
    plans=plans,
    rows=rows,
    figure=figure,
    minutes=2.0,
    published=(
        "unsample study easyinv_table1 --model CompVis/stable-diffusion-v1-4 --num-samples 2298 (their pictures of "
        "COCO: unsample bench run easyinv)"
    ),
    about=(
        ABOUT_FIXED_POINT,
        "The paper states no guidance. The authors' code inverts and samples at 7.5; both 7.5 and 1 are run, the same "
        "both ways.",
        "`equal passes`: about as many network evaluations of the inversion as DDIM and EasyInv make: the fixed point "
        "with two predictions at half the steps, ReNoise at 0.44 of them.",
        "`psnr_to_ceiling` is held against the autoencoder's own round trip, `psnr` against the picture as the paper "
        "has it. `noise_std` is that of the noise found: below 1 the picture still shows in it.",
        "LPIPS (VGG) is measured where its weights are on the machine.",
    ),
)
