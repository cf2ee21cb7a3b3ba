"""Where the noise is lost: each step of DDIM inversion against the true trajectory, and what the first step does.

The fixed point's first step is the map `x1 -> alpha1 (x0 - sigma0 eps(x1)) / alpha0 + sigma1 eps(x1)`. Its linear part
at the true x1 is `c d eps / d x`, `c = sigma1 - alpha1 sigma0 / alpha0`: with a dominant eigenvalue above 1 in
size the truth repels the iteration, which ends elsewhere, or nowhere.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from unsample.models.variants import SPACINGS, parted
from unsample.numbers.spectrum import POWER, dominant, factor
from unsample.studies.base import ZENG, Asked, Cells, Row, Study, nature

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings
    from unsample.models.guidance import Predict

NAME = "zeng_first_step"
ENDS = {"one": {"set_alpha_to_one": True}, "table": {"set_alpha_to_one": False}}  # alpha = 1, or the table's first
FINEST = 1000  # the paper's most steps
STEPS = (10, 50, 200)  # beside the number asked for, where that is more
PAPER = 50  # the paper's steps, on the spacing `leading` with the clean end at 1
SHORT, LONG = 10, 30  # fixed-point iterations of the first step
LOST = 0.01  # of the noise's variance: more than this apart from the true x1 is another point


def counts(asked: Asked) -> list[int]:
    """The numbers of steps that are walked."""
    return [*(steps for steps in STEPS if steps < asked.steps), asked.steps]


def grids(asked: Asked) -> list[list[tuple[int, str, str]]]:
    """Steps, spacing and clean end of every grid: few steps, more (of half of the pictures), and most."""
    short = [(t, spacing, end) for t in counts(asked) if t <= PAPER for spacing in SPACINGS for end in ENDS]
    middle = [(t, spacing, "one") for t in counts(asked) if PAPER < t <= STEPS[-1] for spacing in SPACINGS]
    return [short, middle, [(t, "trailing", "one") for t in counts(asked) if t > STEPS[-1]]]


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Pictures of the model, whose noise is known; the probe walks every grid from and to it."""
    models, found = tuple(dict.fromkeys(parted(model)[0] for model in asked.models)), []
    steps = min(counts(asked))
    for k, some in enumerate(grids(asked)):
        count = max(1, asked.num_samples // 2) if k == 1 else asked.num_samples
        own = replace(asked, models=models, num_samples=count, steps=steps)
        given = {"datasets": {"recovered": own.generated}, "metrics": ["e_latent"]}
        if some:
            settings = {"grids": [list(grid) for grid in some]}
            found.append(own.plan(methods=["ddim"], probe=NAME, probe_settings=settings, **given))
    return found


# ---------------------------------------------------------------- at one batch


def probe(found: Findings, settings: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """On every grid: a picture sampled from the noise, its inversion by DDIM, and the first step alone."""
    told: list[dict[str, Any]] = [{"grids": []} for _ in found.items]
    for steps, spacing, end in settings["grids"]:
        for row, grid in zip(told, _on(found, steps, {"timestep_spacing": spacing, **ENDS[end]}), strict=True):
            row["grids"].append({"steps": steps, "spacing": spacing, "end": end} | grid)
    return told


def _on(found: Findings, steps: int, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """What one grid shows, picture by picture; the weights are those of the model of the batch."""
    import unsample
    from unsample.metrics.recovery import mse
    from unsample.models.variants import varied
    from unsample.numbers.solvers.fixed_point import fixed_point_invert
    from unsample.studies.asking import asking

    assert found.true_noise is not None
    model = copy.copy(getattr(found.model, "bare", found.model))
    model = varied(model, model.id, changes)
    given: dict[str, Any] = {"num_inference_steps": steps, "keep_trajectory": True, "progress": False}
    prompts = found.prompts()
    made = unsample.sample(model, prompts, noise=found.true_noise, guidance_scale=1.0, **given)
    inverted = unsample.invert(model, latents=made.latents, prompt=prompts, method="ddim", generator=0, **given)
    assert made.trajectory is not None
    assert inverted.trajectory is not None
    truth, walked = made.trajectory.flip(0).to(model.device), inverted.trajectory.to(model.device)
    with asking(model, steps, prompts, len(found.items)) as predict:
        grid, first = predict.grid, truth[1]
        columns: dict[str, Any] = {"eigenvalue": eigenvalue(predict, first, 1)}
        for iterations in (SHORT, LONG):
            x1, state = fixed_point_invert(iterations, None)(predict, truth[0], grid, 0, 1, {})
            columns[f"fixed_{iterations}"] = off(x1, first, grid.sigma[1])
            columns[f"residual_{iterations}"] = state["residual"]
        columns |= {"ddim": off(walked[1], first, grid.sigma[1]), "e_latent": mse(inverted.noise, made.noise)}
        chosen = looked_at(grid.num_steps)
        local = [_local(predict, truth, i) for i in chosen]
        error = [off(walked[i], truth[i], grid.sigma[i]) for i in chosen]
    told: list[dict[str, Any]] = []
    for k in range(len(found.items)):
        about = {"sigma0": grid.sigma[0], "sigma1": grid.sigma[1], "factor": factor(grid, 1)}
        at = [[i, grid.sigma[i], float(e[k]), float(x[k])] for i, e, x in zip(chosen, error, local, strict=True)]
        told.append(about | {name: float(column[k]) for name, column in columns.items()} | {"looked": at})
    return told


def eigenvalue(predict: Predict, x: Tensor, i: int) -> Tensor:
    """The dominant one of the fixed point's map from level i - 1 to i, at x: (B,)."""
    slope = factor(predict.grid, i)
    return dominant(lambda y: slope * predict(y, i).eps, x, predict.grid.sigma[i])


def _local(predict: Predict, truth: Tensor, i: int) -> Tensor:
    """Mean square of eps(x_(i-1), t_i) - eps(x_i, t_i), both on the true trajectory: (B,)."""
    difference = predict(truth[i - 1], i).eps - predict(truth[i], i).eps
    return difference.flatten(1).square().mean(1)


def off(x: Tensor, truth: Tensor, sigma: float) -> Tensor:
    """Mean squared error over the variance of the noise at this level: (B,); 1 is what an estimate of no noise has."""
    return (x - truth).flatten(1).square().mean(1) / sigma**2


def looked_at(steps: int) -> list[int]:
    """The steps that are looked at: the first three, the first tenth, the middle, the last, and some between."""
    chosen = {1, 2, 3, tenth(steps), middle(steps), steps, *(k for k in (5, 10, 20, 50, 100, 200) if k < steps)}
    return sorted(k for k in chosen if 1 <= k <= steps)


def tenth(steps: int) -> int:
    """The last of the first 10 %."""
    return max(1, round(steps / 10))


def middle(steps: int) -> int:
    """The step in the middle."""
    return (steps + 1) // 2


# ---------------------------------------------------------------- of all


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and grid (`kind` "grid"), and one a picture, grid and step looked at ("step")."""
    own = max(steps for steps in counts(asked) if steps <= PAPER or steps == min(counts(asked)))
    paper, finest = (own, "leading", "one"), (FINEST, "trailing", "one")
    for cell in cells:
        for each in cell["probed"]["grids"] if cell["probed"] else ():
            told = dict(each)
            looked = told.pop("looked")
            grid = (told.pop("steps"), told.pop("spacing"), told.pop("end"))
            about = {"model": cell["model"], "unit": cell["item"], "steps": grid[0], "spacing": grid[1], "end": grid[2]}
            about |= {"paper": grid == paper, "finest": grid == finest}
            early = next(error for i, _, error, _ in looked if i == tenth(grid[0]))
            left = told[f"fixed_{LONG}"]  # none: it ran away
            missed = left is None or left > LOST
            agrees = missed == (abs(told["eigenvalue"]) > 1)
            judged = {"early": early / looked[-1][2], "agrees": float(agrees), "missed": float(missed)}
            yield about | {"kind": "grid"} | told | judged
            for i, sigma, error, local in looked:
                where = "first" if i == 1 else "middle" if i == middle(grid[0]) else "other"
                yield about | {
                    "kind": "step",
                    "step": i,
                    "where": where,
                    "sigma": sigma,
                    "error": error,
                    "local": local,
                }


def figure(rows: Sequence[Row]) -> Figure:
    """A panel a model: the first step's eigenvalue against what the fixed point leaves; then errors along the walk."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    drawn, axes = panels(2 * len(models), columns=4, height=2.3)
    for k, model in enumerate(models):
        own = [row for row in rows if row["model"] == model]
        left, right = axes[2 * k], axes[2 * k + 1]
        grids = [row for row in own if row["kind"] == "grid"]
        for s, spacing in enumerate(SPACINGS):
            some = [row for row in grids if row["spacing"] == spacing]
            x, y = [abs(r["eigenvalue"]) for r in some], [max(r[f"fixed_{LONG}"] or 0.0, 1e-12) for r in some]
            left.scatter(x, y, s=14, color=colour(s), marker="osv"[s], label=spacing)
        left.axvline(1, color="0.5", linewidth=0.8)
        left.set_yscale("log")
        left.set_xlabel("|eigenvalue| of the first step", fontsize=7)
        left.set_ylabel("error of the fixed point", fontsize=7)
        left.set_title(short(model), fontsize=9)
        for s, steps in enumerate(dict.fromkeys(row["steps"] for row in grids)):
            some = [r for r in own if r["kind"] == "step" and r["steps"] == steps and r["end"] == "one"]
            some = [r for r in some if r["spacing"] == ("trailing" if steps > 200 else "leading")]
            levels = sorted({r["sigma"] for r in some})
            mean = [fmean([r["error"] for r in some if r["sigma"] == level]) for level in levels]
            right.plot(levels, mean, "o-", markersize=3, linewidth=1, color=colour(s), label=f"T = {steps}")
        right.set_xscale("log")
        right.set_xlabel("sigma", fontsize=7)
        right.set_ylabel("error of DDIM", fontsize=7)
        right.set_title(f"{short(model)}: along the walk", fontsize=9)
    for axis in axes[:2]:
        axis.legend(fontsize=6)
    return drawn


def _passes(asked: Asked) -> int:
    """Network evaluations of the first picture, which is on every grid."""
    every = [steps for some in grids(asked) for steps, _, _ in some]
    return sum(2 * steps + 2 * POWER + SHORT + LONG + 2 * len(looked_at(steps)) for steps in every)


STUDY = Study(
    name=NAME,
    question="At which step of inversion is the noise lost, and on which grids?",
    paper=ZENG,
    shows="Section 3.1.1 and the findings of 3.2.4",
    models=nature,
    num_samples=2,
    steps=1000,
    needs=("table", "ddim"),
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=_passes,
    minutes=8.7,
    published=f"unsample study {NAME} --model google/ddpm-celebahq-256 --num-samples 16",
    about=(
        "Every model is run on the spacings leading, trailing and linspace, with the clean end at alpha = 1 and at the "
        "first row of its table; with 200 steps the end is 1, on half the pictures, with more the spacing is trailing.",
        "Errors are mean squares over the variance of the noise at that level: 1 is what an estimate of no noise has.",
        "Rows with paper true are of 50 steps, leading spacing and the clean end at alpha = 1: diffusers' default; the "
        "paper states the number of steps alone.",
        "eigenvalue is the dominant one of the fixed point's first step, linear at the true x1. Where its size is "
        "above 1 the truth repels the iteration: no number of iterations finds it, and what the iteration ends at "
        "can reproduce the picture all the same. The converse does not hold: below 1 the iteration may be too slow, or "
        "start too far away.",
        f"missed: {LONG} iterations leave more than {LOST:g} of the noise's variance. Where they hardly ever do, that "
        "the eigenvalue agrees says little, so the two stand side by side.",
    ),
)
