"""Table 2 of TABA: the largest correlations between pixels of a patch, in noises, latents and samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import TABA, Asked, Cells, Row, Study, nature
from unsample.studies.geometry import VERTICES, splits
from unsample.studies.points import by_size, finite, gathered, inverted, three, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

LEAST = 32  # pictures of a split
SMALL = 2  # times as many pictures of the small networks
LAG = "lag1_correlation"


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion of pictures that the model made."""
    return [inverted(part, "taba_correlation") for part in by_size(asked, SMALL)]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Noise, sample and latent, and the correlation of neighbouring pixels within each."""
    from unsample.numbers.health import health

    lags = {name: health(tensor) for name, tensor in zip(VERTICES, three(found), strict=True)}
    told = whole(found, settings)
    return [one | {LAG: {name: lags[name][n][LAG] for name in VERTICES}} for n, one in enumerate(told)]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """Of splits and of all pictures the largest correlations; of each picture that of its neighbouring pixels."""
    for model, _, _, ids, tensors in gathered(cells):
        parts = {f"split-{k}": split for k, split in enumerate(splits(len(ids), LEAST))} | {"all": [*range(len(ids))]}
        for which in VERTICES:
            for unit, split in parts.items():
                kind = "all" if unit == "all" else "split"
                yield {"model": model, "unit": unit, "kind": kind, "which": which} | top20(tensors[which][split])
    for cell in finite(cells):
        for which in VERTICES:
            about = {"model": cell["model"], "unit": cell["item"], "kind": "picture", "which": which}
            yield about | {LAG: cell["probed"][LAG][which]}


def top20(points: Tensor) -> Row:
    """The paper's value over N pictures, what true noise of this N and size gives, and how they compare."""
    from unsample.metrics.noise import Patches, pixel_correlation
    from unsample.metrics.subject import Settings, Subject

    tally = Patches(Settings())
    tally.add(Subject(noise=points))
    value, told = pixel_correlation(tally)
    found = value if isinstance(value, float) else None
    floor = told.get("floor")
    over = None if found is None or not floor else found / floor
    return {"n": len(points), "top20": found, "floor": floor, "limit": told.get("limit"), "over_floor": over}


def figure(rows: Sequence[Row]) -> Figure:
    """The correlations of each split, a panel a model; the line is what true noise of that size gives."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(models), sharey=True)
    for axis, model in zip(axes, models, strict=True):
        mine = [row for row in rows if row["model"] == model and row["kind"] == "split" and row["top20"] is not None]
        for x, which in enumerate(VERTICES):
            found = [row["top20"] for row in mine if row["which"] == which]
            axis.plot([x] * len(found), found, "o", color=colour(x), alpha=0.5, markersize=4)
        for floor in sorted({row["floor"] for row in mine}):
            axis.axhline(floor, color="black", linewidth=0.8, linestyle="--")
        sizes = sorted({row["n"] for row in mine})
        axis.set_xticks(range(3), VERTICES)
        axis.set_xlim(-0.5, 2.5)
        axis.set_title(f"{short(model)}, N = {', '.join(map(str, sizes))}", fontsize=9)
    for axis in axes[::4]:
        axis.set_ylabel("mean of 20 largest |r|", fontsize=8)
    return figure


STUDY = Study(
    name="taba_correlation",
    question="Are the pixels of latents correlated, as those of true noise are not?",
    paper=TABA,
    shows="Table 2",
    models=nature,
    num_samples=96,
    steps=20,
    plans=plans,
    probe=probe,
    rows=rows,
    figure=figure,
    minutes=2.7,
    published="unsample study taba_correlation --model CompVis/ldm-celebahq-256 --num-samples 8192 --steps 100",
    about=(
        "The value is the mean, over patches of 8x8, of the 20 largest of all absolute correlations between the numbers"
        " of a patch. It is the largest of thousands, so true noise has a value too: the floor, which depends on the"
        " number of pictures and channels alone. The paper's noise column fits that of 8,192 pictures (our inference).",
        "Splits are disjoint, of 32 pictures or more. The floor of 32 pictures is high: the rows with kind `all` hold"
        " the value over all pictures as well.",
        "The correlation of neighbouring pixels within one picture (`lag1_correlation`) has no such floor: it is 0 of"
        " true noise on average, and decides on few pictures.",
        "The small networks are asked for twice as many pictures.",
    ),
)
