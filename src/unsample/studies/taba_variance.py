"""Table 4 of TABA: the variance of latents, and where on the way up it is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import TABA, Asked, Cells, Row, Study, nature
from unsample.studies.geometry import VERTICES
from unsample.studies.points import by_size, finite, inverted, three

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

SMALL = 2  # times as many pictures of the small networks


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion of pictures that the model made, with both trajectories."""
    return [inverted(part, "taba_variance", keep_trajectory=True) for part in by_size(asked, SMALL)]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Variance and mean square of the three; and the variance at each level, inverted over sampled, clean end first."""
    assert found.sampled is not None
    assert found.sampled.trajectory is not None
    assert found.inversion is not None
    assert found.inversion.trajectory is not None
    up, down = found.inversion.trajectory, found.sampled.trajectory.flip(0)
    ratios = (spread(up.flatten(0, 1)) / spread(down.flatten(0, 1))).reshape(up.shape[:2])
    every = dict(zip(VERTICES, three(found), strict=True))
    return [
        {
            "variance": {name: float(spread(tensor)[n]) for name, tensor in every.items()},
            "mean_square": {name: float(tensor[n].double().square().mean()) for name, tensor in every.items()},
            "ratios": ratios[:, n].tolist(),
        }
        for n in range(len(found.items))
    ]


def spread(points: Tensor) -> Tensor:
    """The variance over the numbers of each picture, about its own mean: (B,)."""
    return points.double().flatten(1).var(dim=1)


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """Of each picture its variances; of each model the ratio at each step, the mean over pictures."""
    from unsample.studies.running import cells_by

    for (model,), some in cells_by(finite(cells), "model"):
        for cell in some:
            for which in VERTICES:
                about = {"model": model, "unit": cell["item"], "kind": "picture", "which": which}
                yield about | {name: cell["probed"][name][which] for name in ("variance", "mean_square")}
        columns = zip(*(cell["probed"]["ratios"] for cell in some), strict=True)
        for step, ratios in enumerate(columns):
            yield {"model": model, "unit": "all", "kind": "step", "step": step, "ratio": sum(ratios) / len(ratios)}


def figure(rows: Sequence[Row]) -> Figure:
    """The variance of the inverted trajectory over that of the sampled one, step by step, a panel a model."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(models), sharey=True)
    for axis, model in zip(axes, models, strict=True):
        mine = [row for row in rows if row["model"] == model and row["kind"] == "step"]
        axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
        axis.plot([row["step"] for row in mine], [row["ratio"] for row in mine], color=colour(0), marker=".")
        axis.set_title(f"{short(model)}: {mine[-1]['ratio']:.3f} at the end", fontsize=9)
        axis.set_xlabel("step of inversion", fontsize=8)
    for axis in axes[::4]:
        axis.set_ylabel("variance, inverted / sampled", fontsize=8)
    return figure


STUDY = Study(
    name="taba_variance",
    question="Do latents vary less than the noise, and lie nearer to its mean?",
    paper=TABA,
    shows="Table 4",
    models=nature,
    num_samples=32,
    steps=20,
    plans=plans,
    probe=probe,
    rows=rows,
    figure=figure,
    minutes=0.9,
    published="unsample study taba_variance --model CompVis/ldm-celebahq-256 --num-samples 10000 --steps 100",
    about=(
        "The variance of a picture is taken over its own numbers, about its own mean; the mean square is its distance"
        " from 0, the mean of the noise.",
        "Beyond the paper: the variance of the inverted trajectory over that of the one that made the picture, at"
        " the same level, says at which step it is lost.",
        "The small networks are asked for twice as many pictures.",
    ),
)
