"""Table 2 of EasyInv: half and full precision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies._easyinv import EASYINV, means
from unsample.studies.base import EASYINV as PAPER
from unsample.studies.base import SD, Asked, Cells, Row, Study, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRECISIONS: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {  # and the methods and guidances
    "float32": (("ddim", EASYINV), (1.0, 7.5)),
    "float16": ((EASYINV,), (1.0,)),
    "bfloat16": (("ddim", EASYINV), (1.0, 7.5)),
}
METRICS = ("psnr", "ssim", "psnr_to_ceiling")


def plans(asked: Asked) -> list[dict[str, Any]]:
    """The same pictures with networks of each type."""
    few = "[items=2]" if asked.quick else ""  # float16 takes a CPU sixteen times as long
    return [
        asked.plan(
            methods=[method + few if dtype == "float16" else method for method in methods],
            datasets={"record": asked.scenes},
            metrics=list(METRICS),
            guidance=list(scales),
            inversion_guidance="same",
            dtype=dtype,
        )
        for dtype, (methods, scales) in PRECISIONS.items()
    ]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, method, guidance and type, and one of what EasyInv gains over DDIM inversion there."""
    ddim: dict[tuple[Any, ...], float | None] = {}
    for cell in cells:
        row = {"model": cell["model"], "unit": cell["item"], "w": cell["guidance"]}
        row["dtype"] = list(PRECISIONS)[cell["plan"]]
        found = {name: value(cell, f"record.{name}") for name in METRICS}
        yield row | {"method": cell["method"], "status": cell["status"]} | found
        key = tuple(row.values())
        if cell["method"] == "ddim":
            ddim[key] = found["psnr"]
        elif (other := ddim.get(key)) is not None and found["psnr"] is not None:
            yield row | {"method": "gain", "gain": found["psnr"] - other}


def figure(rows: Sequence[Row]) -> Figure:
    """PSNR to the autoencoder's ceiling, a panel a model and guidance."""
    values = [row for row in rows if row["method"] != "gain"]
    placed = [r | {"how": f"{r['method']}, {r['dtype']}", "place": f"{r['model']}, w {r['w']:g}"} for r in values]
    return means(placed, "psnr_to_ceiling", "how", "PSNR to the ceiling, dB", across="place")


STUDY = Study(
    name="easyinv_precision",
    question="Does half precision cost EasyInv anything, and does EasyInv gain where precision is limited?",
    paper=PAPER,
    shows="Table 2",
    models=(SD,),
    num_samples=8,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    minutes=0.2,
    published="unsample study easyinv_precision --model CompVis/stable-diffusion-v1-4 --num-samples 2298 --steps 50",
    about=(
        "The state stays in float32 in all of them; the network and the autoencoder run in the type named.",
        "bfloat16 has three bits less than float16, so it is the harder test. float16 is slow on most CPUs, therefore "
        "few pictures, 20 steps, and EasyInv without guidance alone. Their gain in time (9 s to 5 s) is the GPU's and "
        "is not measured here. Both guidances are the same both ways; 7.5 is that of the authors' code.",
    ),
)
