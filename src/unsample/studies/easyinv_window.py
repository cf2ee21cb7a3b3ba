"""EasyInv's eta and window, swept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies._easyinv import EASYINV as DEFAULT
from unsample.studies._easyinv import SDXL
from unsample.studies.base import EASYINV, SD, Asked, Cells, Row, Study, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ETAS = (0.5, 0.8)
WINDOWS = ((0.05, 0.25), (0.4, 0.6), (0.65, 0.85), (0.85, 0.95))
BEFORE = "easyinv[variant=before]"
GUIDANCE = (1.0, 7.5)
NAMED = {DEFAULT: "sd", SDXL: "sdxl", BEFORE: "sd_before", "ddim": "ddim"}


def swept() -> dict[str, dict[str, Any]]:
    """Methods of the plan by their labels: eta, window, variant."""
    found: dict[str, dict[str, Any]] = {"ddim": {"eta": 1.0, "start": None, "stop": None, "variant": "none"}}
    for start, stop in WINDOWS:
        for eta in ETAS:
            label = f"easyinv[eta={eta},start={start},stop={stop}]"
            label = DEFAULT if (eta, start) == (0.5, 0.05) else label
            found[label] = {"eta": eta, "start": start, "stop": stop, "variant": "after"}
    assert SDXL in found
    return found | {BEFORE: found[DEFAULT] | {"variant": "before"}}


def plans(asked: Asked) -> list[dict[str, Any]]:
    """All of them at the guidance of the authors' code, the same both ways; the published settings without it too."""
    return [
        asked.plan(
            methods=[m if m in NAMED else f"{m[:-1]},guidance={GUIDANCE[1]}]" for m in swept()],
            datasets={"record": asked.scenes, "recovered": asked.scenes},
            metrics=["psnr", "ssim", "noise_std"],
            guidance=list(GUIDANCE),
            inversion_guidance="same",
        )
    ]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, guidance and setting."""
    settings = swept()
    for cell in cells:
        row = {"model": cell["model"], "unit": cell["item"], "w": cell["guidance"], "method": cell["method"]}
        row |= settings[cell["method"]] | {"preset": NAMED.get(cell["method"], ""), "status": cell["status"]}
        row |= {name: value(cell, f"record.{name}") for name in ("psnr", "ssim")}
        yield row | {"noise_std": value(cell, "recovered.noise_std")}


def figure(rows: Sequence[Row]) -> Figure:
    """Mean PSNR less DDIM's over windows, a line an eta, a panel a model and guidance."""
    from unsample.studies._easyinv import interval
    from unsample.studies.plotting import colour, models_of, panels, short

    places = [(m, w) for m in models_of(rows) for w in GUIDANCE if any((r["model"], r["w"]) == (m, w) for r in rows)]
    figure, axes = panels(len(places), columns=2, width=4.2, height=2.8)
    for axis, (model, w) in zip(axes, places, strict=True):
        here = [r for r in rows if (r["model"], r["w"]) == (model, w) and r["psnr"] is not None]
        ddim = {r["unit"]: r["psnr"] for r in here if r["method"] == "ddim"}
        for k, (eta, variant) in enumerate([*((eta, "after") for eta in ETAS), (0.5, "before")]):
            for n, (start, _) in enumerate(WINDOWS):
                fit = [r for r in here if (r["eta"], r["start"], r["variant"]) == (eta, start, variant)]
                gains = [r["psnr"] - ddim[r["unit"]] for r in fit if r["unit"] in ddim]
                if not gains:
                    continue
                low, middle, high = interval(gains)
                x, label = n + 0.15 * (k - 1), f"eta {eta:g}" + (", before" if variant == "before" else "")
                axis.plot([x, x], [low, high], color=colour(k), linewidth=1.5)
                axis.plot([x], [middle], "o", color=colour(k), markersize=4.5, label=label)
        axis.axhline(0, color="gray", linewidth=1, linestyle="--")
        axis.set_xticks(range(len(WINDOWS)), [f"{a:g}-{b:g}" for a, b in WINDOWS])
        axis.set_title(f"{short(model)}, w {w:g}", fontsize=9)
        axis.set_xlabel("window, of the steps", fontsize=8)
        axis.set_ylabel("PSNR less DDIM's, dB", fontsize=8)
        handles, labels = axis.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axis.legend(once.values(), once.keys(), fontsize=7, frameon=False)
    return figure


STUDY = Study(
    name="easyinv_window",
    question="Which eta and which window of steps does EasyInv need?",
    paper=EASYINV,
    shows="the settings of its experiments",
    models=(SD,),
    num_samples=8,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    minutes=0.4,
    published="unsample study easyinv_window --model CompVis/stable-diffusion-v1-4 --steps 50",
    about=(
        "`preset` names the published settings: `sd` (eta 0.5, 0.05 to 0.25), `sdxl` (eta 0.8, 0.85 to 0.95), and "
        "`sd_before`, the form of the authors' program that blends before a step.",
        "`noise_std` is that of the noise found: blending holds the latent back, so the noise is smaller than the "
        "level of its step says; where guidance has made it too large, that may be a gain.",
    ),
)
