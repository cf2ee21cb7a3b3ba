"""Table 1 of Zeng et al.: how well each method recovers the noise, the picture, and what lies half way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from unsample.models.minis import is_mini
from unsample.numbers.spectrum import POWER
from unsample.studies.base import ZENG, Asked, Cells, Row, Study, value
from unsample.studies.zeng import (
    COST,
    GRIDS,
    ORACLE,
    OWN,
    PLAIN,
    called,
    grid_of,
    grids_of,
    hybrid,
    in_order,
    models,
    on_both,
    split,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unsample.experiment.findings import Findings

NAME = "zeng_table1"
SHOWN = ("ddim", "pix2pix_zero", "aidi", "renoise", "hybrid", "oracle", "zero", "random_noise")
AMISS, BACK = 0.5, 1e-3  # E_latent above which a noise is another one, E_recon below which the picture is back
METRICS = ("e_latent", "e_recon", "e_interp", "cosine", "std")
RATIOS = (  # of the claims: a metric of one method over that of another
    ("e_latent", "aidi", "ddim"),
    ("e_recon", "aidi", "ddim"),
    ("e_latent", "hybrid", "aidi"),
    ("e_interp", "hybrid", "aidi"),
    ("e_latent", "pix2pix_zero", "ddim"),
)


def plans(asked: Asked) -> list[dict[str, Any]]:
    """All methods on pictures that the model made."""
    found = []
    for own in split(on_both(asked)):
        methods = [*PLAIN, hybrid(own.models[0], own), ORACLE, "zero", "random_noise"]
        given = {"datasets": {"recovered": own.generated}, "metrics": list(METRICS)}
        found.append(own.plan(methods=methods, probe=NAME, keep_trajectory=True, **given))
    return found


def probe(found: Findings, settings: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Once a picture, beside DDIM inversion: the dominant eigenvalue of the fixed point's first step."""
    from unsample.studies.asking import asking
    from unsample.studies.zeng_first_step import eigenvalue

    method = found.setup.method
    if (method if isinstance(method, str) else method.name) != "ddim":
        return [{} for _ in found.items]
    assert found.sampled is not None
    assert found.sampled.trajectory is not None
    first = found.sampled.trajectory[-2].to(found.model.device)
    with asking(found.model, found.setup.steps, found.prompts(), len(found.items)) as predict:
        return [{"eigenvalue": float(each)} for each in eigenvalue(predict, first, 1)]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, grid and method, in the order of the models asked for."""
    first = {(c["model"], c["item"]): c["probed"]["eigenvalue"] for c in cells if c["probed"]}
    made = []
    for cell in cells:
        about = grid_of(cell["model"]) | {"unit": cell["item"], "method": called(cell["method"])}
        about |= {name: value(cell, f"recovered.{name}") for name in METRICS}
        about |= {"another_noise": _another(about), "eigenvalue": first.get((cell["model"], cell["item"]))}
        made.append(about | {"status": cell["status"], "passes": cell["nfe"], "backward": cell["backward"]})
    return in_order(made, asked)


def _another(row: Row) -> float | None:
    """1 where the picture comes back from a noise that is not its own."""
    if row["e_latent"] is None or row["e_recon"] is None:
        return None
    return float(row["e_latent"] > AMISS and row["e_recon"] < BACK)


def figure(rows: Sequence[Row]) -> Figure:
    """The ratios of the claims against the eigenvalue of the first step; then the means of each method, by model."""
    from unsample.studies.plotting import colour, panels

    grids = grids_of(rows)
    drawn, axes = panels(len(RATIOS) + len(grids), columns=5, width=2.5, height=2.1)
    for axis, (metric, method, other) in zip(axes, RATIOS, strict=False):
        for model, spacing in grids:
            own = [row for row in rows if (row["model"], row["grid"]) == (model, spacing)]
            a, b = (_of(own, name, metric) for name in (method, other))
            slopes = [abs(row["eigenvalue"]) for row in own if row["eigenvalue"] is not None]
            if a and b and slopes:
                x, y = fmean(slopes), fmean(a) / fmean(b)
                axis.plot(x, y, "s" if spacing == OWN else "o", color=colour(0 if is_mini(model) else 1), ms=4)
        axis.axhline(1, color="0.5", linewidth=0.8)
        axis.axvline(1, color="0.5", linewidth=0.8)
        axis.set_yscale("log")
        axis.set_xlabel("|eigenvalue|; o trailing, ■ own", fontsize=7)
        axis.set_title(f"{metric.replace('e_', 'E_')}: {method} / {other}", fontsize=8)
    for k, (axis, (model, spacing)) in enumerate(zip(axes[len(RATIOS) :], grids, strict=True)):
        own = [row for row in rows if (row["model"], row["grid"]) == (model, spacing)]
        for n, metric in enumerate(METRICS[:3]):
            for place, name in enumerate(SHOWN):
                values = [v for v in _of(own, name, metric) if v > 0]
                if values:
                    label = metric.replace("e_", "E_") if name == "ddim" else None
                    axis.plot(fmean(values), -place, "os^"[n], color=colour(n), markersize=4, label=label)
        axis.set_xscale("log")
        axis.set_xlim(1e-9, 10)
        axis.set_yticks([-p for p in range(len(SHOWN))], SHOWN if k % 5 == 0 else [""] * len(SHOWN))
        axis.set_title(titled(model, spacing), fontsize=8)
        axis.grid(alpha=0.3)
    handles = axes[len(RATIOS)].get_legend_handles_labels()
    drawn.legend(*handles, loc="outside lower center", ncols=3, fontsize=8)
    return drawn


def _of(rows: Sequence[Row], method: str, metric: str) -> list[float]:
    return [row[metric] for row in rows if row["method"] == method and row[metric] is not None]


STUDY = Study(
    name=NAME,
    question="Which inversion recovers the noise of a picture, and not only the picture?",
    paper=ZENG,
    shows="Table 1",
    models=models,
    needs=("table",),
    num_samples=4,
    steps=25,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: 4 * POWER,
    minutes=9.2,
    published="unsample study zeng_table1 --model google/ddpm-celebahq-256 --num-samples 100 --steps 50",
    about=(
        *COST,
        *GRIDS,
        "The larger bundled models run on half of the pictures.",
        f"another_noise is the share of pictures that come back (E_recon below {BACK:g}) from a noise that is not "
        f"theirs (E_latent above {AMISS:g}): where it is above 0, a picture alone does not tell its noise.",
        "The rows oracle (the true first step, then the fixed point), zero (an estimate of nothing) and random_noise "
        "say what the numbers are worth; a shrunken estimate has a small E_latent: read cosine and std beside it.",
    ),
)
