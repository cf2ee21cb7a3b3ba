"""The order of each pair of steps: how its error falls as steps are made shorter, on a model whose flow is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from unsample.studies.base import MIXTURE, OURS, Asked, Cells, Row, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings
    from unsample.methods import Method
    from unsample.models.guidance import Predict
    from unsample.numbers.grid import Grid

METHODS = {  # label, and evaluations a step
    "ddim": 1,
    "dpm_solver[exact=false]": 1,
    "edict[p=1]": 2,
    "bdia": 1,
    "belm": 1,
    "rex[solver=midpoint]": 4,
    "rex": 8,
}
DOUBLINGS = 3
LEVELS = 0.08, 100.0  # sigma / alpha where every walk ends and begins
DIRECTIONS = ("down", "up")
COMPONENTS = 16
FINER = 8  # steps of the reference over those of the finest walk
MEAN = " of the mean"  # of two coupled latents


def counts_of(steps: int) -> list[int]:
    """The numbers of steps that are tried: `steps`, and doubled."""
    return [steps * 2**k for k in range(DOUBLINGS + 1)]


def plans(asked: Asked) -> list[dict[str, Any]]:
    """The probe walks; the cells bring noises and methods."""
    return [
        asked.plan(
            methods=list(METHODS),
            metrics=["std"],
            datasets={"recovered": asked.generated},
            steps=[4],
            quick=False,
            probe="convergence",
            probe_settings={"steps": counts_of(asked.steps)},
        )
    ]


def thinned(model: Any) -> Any:
    """Of a mixture in closed form COMPONENTS of its components, evenly taken: as curved a flow, and cheap."""
    from unsample.models.gaussian import GaussianModel

    if not isinstance(model, GaussianModel):
        return model
    kept = slice(None, None, max(1, len(model.means) // COMPONENTS))
    return GaussianModel(model.means[kept], model.variances[kept], model.scheduler, model.id)


def even_grid(model: Any, steps: int) -> Grid:
    """`steps` steps between the two LEVELS, of equal length in log(sigma / alpha); nothing depends on a scheduler."""
    from unsample.numbers.grid import Grid, prediction_type_of
    from unsample.numbers.levels import preserving
    from unsample.numbers.solvers.midway import timestep_at

    low, high = (math.log(level) for level in LEVELS)
    levels = [math.exp(low + (high - low) * k / steps) for k in range(steps + 1)]
    alpha, sigma = zip(*(preserving(level) for level in levels), strict=True)
    some, table = model.grid(50), model.scheduler.alphas_cumprod
    times = tuple(timestep_at(table, level, some, 0, 1)[0] for level in levels)
    return Grid(alpha, sigma, times, alpha, sigma, prediction_type_of(model.scheduler))


def runge_kutta(predict: Any, x: Tensor, grid: Grid) -> Tensor:
    """From the noisiest point of an even grid to its first, by the classical rule over two of its steps at a time.

    In `z = x / alpha` over `u = log(sigma / alpha)` the flow is `dz/du = (sigma / alpha) eps`.
    """
    level = [sigma / alpha for alpha, sigma in zip(grid.alpha, grid.sigma, strict=True)]

    def slope(z: Tensor, k: int) -> Tensor:
        found: Tensor = level[k] * predict(z * grid.alpha[k], k).eps
        return found

    z = x / grid.alpha[-1]
    h = 2 * math.log(level[0] / level[1])  # below 0: towards the picture
    for k in range(grid.num_steps, 0, -2):
        first = slope(z, k)
        second = slope(z + h / 2 * first, k - 1)
        third = slope(z + h / 2 * second, k - 1)
        z = z + h / 6 * (first + 2 * second + 2 * third + slope(z + h * third, k - 2))
    return z * grid.alpha[0]


End = tuple["Tensor", "Tensor | None"]
"""Where a walk ended, and its second latent where it has two."""


def ends(method: Method, predict: Predict, noise: Tensor, picture: Tensor, grid: Grid) -> tuple[End, End]:
    """Where the sampling step leads from the noise, and the inversion step from the picture."""
    from unsample.methods import Task
    from unsample.numbers.walk import walk

    n = grid.num_steps
    fresh = {} if method.fresh is None else method.fresh(noise)
    down, below = walk(method.sample_step, predict, noise, grid, range(n, -1, -1), fresh)
    task = Task(predict, predict, grid, n, picture, ())
    begun = {} if method.begin is None else method.begin(task)
    up, above = walk(method.invert_step, predict, picture, grid, range(n + 1), begun)
    return (down, below.get("second")), (up, above.get("second"))


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The relative error of both walks at each number of steps, against the flow itself."""
    import torch

    from unsample.experiment.shared import key_of, unshared, whose
    from unsample.models.base import Condition
    from unsample.models.guidance import Predict

    method = found.setup.method
    if isinstance(method, str) or found.true_noise is None:
        return [{}] * len(found.items)
    model, noise, counts = thinned(unshared(found.model)), found.true_noise.double(), settings["steps"]
    condition = model.embed([""] * len(noise)) if model.takes_prompt else Condition()

    def on(steps: int) -> Predict:
        return Predict(model, even_grid(model, steps), condition, None, 1.0, len(noise))

    def solved() -> Tensor:
        finest = on(2 * FINER * max(counts))
        return runge_kutta(finest, noise, finest.grid)

    with torch.no_grad():
        key = key_of("convergence", *whose(model), noise, *counts)
        picture = solved() if found.shared is None else found.shared.once(key, solved)
        errors: dict[str, list[list[float]]] = {f"{name}{what}": [] for name in DIRECTIONS for what in ("", MEAN)}
        for steps in counts:
            predict = on(steps)
            found_ends = ends(method, predict, noise, picture, predict.grid)
            for name, (end, second), true in zip(DIRECTIONS, found_ends, (picture, noise), strict=True):
                errors[name].append(relative(end, true))
                errors[f"{name}{MEAN}"] += [] if second is None else [relative((end + second) / 2, true)]
    return [{name: [each[n] for each in values] for name, values in errors.items()} for n in range(len(noise))]


def relative(found: Tensor, true: Tensor) -> list[float]:
    """The RMS of an error over that of the truth, a picture."""
    error, whole = ((found - true).flatten(1).norm(dim=1), true.flatten(1).norm(dim=1))
    return [float(v) for v in error / whole]


def orders(errors: Sequence[float | None]) -> list[float | None]:
    """At each number of steps, the order that shows from the one before, half as many: log2 of how the error fell."""
    found: list[float | None] = [None]
    for before, after in pairwise(errors):
        sound = before and after and math.isfinite(before) and math.isfinite(after)
        found.append(math.log2(before / after) if sound and before and after else None)
    return found


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, method, direction and number of steps; claims are about the finest."""
    counts = counts_of(asked.steps)
    for cell in cells:
        for name in DIRECTIONS if cell["probed"] else ():
            errors = cell["probed"][name]
            means = cell["probed"][f"{name}{MEAN}"] or [None] * len(counts)
            columns = (errors, orders(errors), means, orders(means))
            for steps, error, order, mean, order_of_mean in zip(counts, *columns, strict=True):
                yield {
                    "model": cell["model"],
                    "unit": cell["item"],
                    "method": cell["method"],
                    "direction": name,
                    "steps": steps,
                    "error": error,
                    "order": order,
                    "error_of_mean": mean,
                    "order_of_mean": order_of_mean,
                    "finest": steps == counts[-1],
                }


def figure(rows: Sequence[Row]) -> Figure:
    """Errors over the number of steps, both ways."""
    from statistics import median

    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(2 * len(models), columns=2, width=4.6, height=3.6, sharey=True)
    shown = [(model, name) for model in models for name in DIRECTIONS]
    for axis, (model, name) in zip(axes, shown, strict=True):
        for k, method in enumerate(METHODS):
            here = [r for r in rows if (r["model"], r["direction"], r["method"]) == (model, name, method)]
            counts = sorted({r["steps"] for r in here})
            middle = [
                median([r["error"] for r in here if r["steps"] == n and r["error"]] or [math.nan]) for n in counts
            ]
            found = [r["order"] for r in here if r["finest"] and r["order"] is not None]
            order = f", order {median(found):.2f}" if found else ""
            axis.loglog(counts, middle, marker="o", ms=3, lw=1, color=colour(k), label=f"{method}{order}")
        axis.set_title(f"{short(model)}: {'sampling' if name == 'down' else 'inversion'}", fontsize=9)
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.minorticks_off()
        axis.set_xlabel("steps", fontsize=8)
        axis.legend(fontsize=6, frameon=False)
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low * 1e-5, high)  # room for the legends
    axes[0].set_ylabel("relative error of the end point", fontsize=8)
    return figure


STUDY = Study(
    name="convergence",
    question="Does each pair of steps have the order that it promises, sampling and inverting?",
    paper=OURS,
    shows="order of convergence",
    models=(MIXTURE,),
    num_samples=4,
    steps=30,
    minutes=0.3,
    needs=("table",),
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: (
        sum(2 * cost * sum(counts_of(asked.steps)) for cost in METHODS.values())
        + 4 * FINER * counts_of(asked.steps)[-1]
    ),
    about=(
        "All walks are in float64 between sigma / alpha = 0.08 and 100, in steps of equal length in its logarithm, on "
        "16 components of the mixture, without a prompt. What they are held against is the classical Runge-Kutta rule, "
        "written apart from the solvers, at eight times as many steps as the finest walk.",
        "The order is log2 of how the error falls when the number of steps doubles, at the finest.",
        "edict and rex carry two latents, each moved by the other, and so a second mode: their gap. Where the flow "
        "contracts, as sampling does, that mode grows. error_of_mean is of the mean of the two latents, in which the "
        "gap cancels: where it is far below error, the error is the gap, and its order is not the rule's.",
        "edict is run with p = 1: its mixing is a number a step, so that at more steps it is another sampler. "
        "dpm_solver is its naive inversion; its exact one is the inverse of the sampler at every number of steps.",
    ),
)
