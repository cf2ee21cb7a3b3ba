"""Fig. 3 of TABA: how near the trajectory comes to the points between its noise and its latent, and where it turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import TABA, Asked, Cells, Row, Study, nature
from unsample.studies.geometry import toward, turn
from unsample.studies.points import by_size, finite, inverted, three

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unsample.experiment.findings import Findings

SHARES = tuple(k / 10 for k in range(11))  # between the noise (0) and the latent (1)
SMALL = 2  # times as many pictures of the small networks
COLUMNS = tuple(f"distance_{share:.1f}" for share in SHARES)


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion of pictures that the model made, whose trajectory is kept."""
    return [inverted(part, "taba_path", keep_trajectory=True) for part in by_size(asked, SMALL)]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The distances of the points of the trajectory, noisiest first, to those between noise and latent."""
    noise, _, latent = three(found)
    assert found.sampled is not None
    assert found.sampled.trajectory is not None
    every = toward(found.sampled.trajectory, noise, latent, SHARES)
    assert found.inversion is not None
    alphas = [*found.inversion.meta.grid.alpha][::-1]
    return [{"distances": every[:, n].tolist(), "alphas": alphas} for n in range(len(found.items))]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """Of each picture where it turns and how far its sample ends; of each model the mean distances at each step."""
    from unsample.studies.running import cells_by

    for (model,), some in cells_by(finite(cells), "model"):
        tables = [cell["probed"]["distances"] for cell in some]
        for cell, table in zip(some, tables, strict=True):
            one = {"model": model, "unit": cell["item"]}
            place = turn([at[0] for at in table], [at[-1] for at in table])
            alpha = cell["probed"]["alphas"][round(place * (len(table) - 1))]
            yield one | {"kind": "turn", "turn": place, "alpha": alpha}
            for which, end in (("noise", 0), ("latent", -1)):
                yield one | {"kind": "end", "which": which, "distance": table[-1][end]}
        last = len(tables[0]) - 1
        for step in range(last + 1):
            means = [sum(table[step][k] for table in tables) / len(tables) for k in range(len(SHARES))]
            about = {"model": model, "unit": "all", "kind": "step", "step": step, "along": step / last}
            yield about | {"nearest": SHARES[means.index(min(means))]} | dict(zip(COLUMNS, means, strict=True))


def figure(rows: Sequence[Row]) -> Figure:
    """The mean distances as the paper shows them, dark is near; the white line is the nearest point."""
    from statistics import median

    from unsample.studies.plotting import models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(models), sharey=True)
    for axis, model in zip(axes, models, strict=True):
        mine = [row for row in rows if row["model"] == model]
        steps = [row for row in mine if row["kind"] == "step"]
        image = [[row[name] for row in steps] for name in COLUMNS]
        axis.imshow(image, origin="lower", extent=(0, 1, 0, 1), aspect="auto", cmap="viridis")
        axis.plot([row["along"] for row in steps], [row["nearest"] for row in steps], color="white", linewidth=1.2)
        turns = median(row["turn"] for row in mine if row["kind"] == "turn")
        axis.axvline(turns, color="#D55E00", linestyle="--", linewidth=1.2)
        axis.set_title(f"{short(model)}: turns at {turns:.2f}", fontsize=9)
        axis.set_xlabel("share of the trajectory", fontsize=8)
    for axis in axes[::4]:
        axis.set_ylabel("from noise (0) to latent (1)", fontsize=8)
    return figure


STUDY = Study(
    name="taba_path",
    question="Where does the trajectory of sampling turn from its noise towards the latent?",
    paper=TABA,
    shows="Fig. 3",
    models=nature,
    num_samples=8,
    plans=plans,
    probe=probe,
    rows=rows,
    figure=figure,
    minutes=0.6,
    published="unsample study taba_path --model CompVis/ldm-celebahq-256 --num-samples 2048 --steps 100",
    about=(
        "A trajectory turns where from then on its points are nearer to the latent than to the noise: 0 is its first"
        " point, 1 its last, or never. The white line in the figure is the point between noise and latent that is"
        " nearest on average, the dashed one the median of the turns.",
        "Beyond the paper: `alpha` is how much of the picture a point of the turn's level holds, from 0 to 1. Schedules"
        " of noise reach the same alpha at different shares of their steps.",
        "The small networks are asked for twice as many pictures.",
    ),
)
