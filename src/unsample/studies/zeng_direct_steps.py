"""Direct optimisation of one inversion step, at the first, second, third and tenth: does it work at the first alone?

Each step starts at the true point, so that nothing is inherited: `x_j = argmin_y || x_i - f(y) ||^2`, f the sampling
step. Along an eigenvector of the prediction's derivative where the fixed point's map has the eigenvalue k, f has the
slope `(alpha_i / alpha_j) (1 - k)`: what the fixed point cannot find (k near 1) the gradient hardly sees either, and
where |k| is above 1 but not near it only the gradient works.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import ZENG, Asked, Cells, Row, Study, is_cheap
from unsample.studies.zeng import (
    GRIDS,
    ITERS,
    OWN,
    RATES,
    TRAILED,
    bundled,
    grid_of,
    grids_of,
    groups,
    in_order,
    models,
    on_both,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unsample.experiment.findings import Findings

NAME = "zeng_direct_steps"
STEPS = (1, 2, 3, 10)
UPDATES, LONGER = 100, 4  # of a bundled model's step; and how many times as many where a small one is given time
SECOND = 2  # the step at which it is
SHOWN = ("ddim", "aidi", "direct", "direct_longer")


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Pictures with their true trajectory; the inversion itself is not looked at."""
    found = []
    for own in groups(on_both(asked)):
        ours, small = bundled(own.models[0]), is_cheap(own.models[0])
        settings: dict[str, Any] = {"updates": _updates(asked, ours), "longer": LONGER if ours and small else 1}
        settings["rate"] = RATES[grid_of(own.models[0])["grid"]] if ours else 0.0
        given = {"datasets": {"recovered": own.generated}, "metrics": ["e_latent"], "keep_trajectory": True}
        found.append(own.plan(methods=["ddim"], probe=NAME, probe_settings=settings, **given))
    return found


def probe(found: Findings, settings: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Each chosen step by DDIM, the fixed point and the gradient, from the true point before it."""
    from unsample.methods.gradient import LEARNING_RATES
    from unsample.numbers.solvers.ddim import ddim_invert_at_target
    from unsample.numbers.solvers.fixed_point import fixed_point_invert
    from unsample.numbers.solvers.gradient import gradient_invert
    from unsample.numbers.walk import Step
    from unsample.studies.asking import asking
    from unsample.studies.zeng_first_step import eigenvalue, off

    assert found.sampled is not None
    assert found.sampled.trajectory is not None
    truth = found.sampled.trajectory.flip(0).to(found.model.device)
    rate = settings["rate"] or LEARNING_RATES["adam"]
    ways: dict[str, Step] = {
        "ddim": ddim_invert_at_target,
        "aidi": fixed_point_invert(ITERS, None),
        "direct": gradient_invert(settings["updates"], rate, "adam", None),
    }
    told: list[dict[str, Any]] = [{"steps": []} for _ in found.items]
    with asking(found.model, found.setup.steps, found.prompts(), len(found.items)) as predict:
        grid = predict.grid
        for step in (k for k in STEPS if k <= grid.num_steps):
            before, after = truth[step - 1], truth[step]
            ends = step - 1, step
            slope = eigenvalue(predict, after, step)
            longer = {"direct_longer": gradient_invert(settings["longer"] * settings["updates"], rate, "adam", None)}
            for name, way in (ways | (longer if step == SECOND and settings["longer"] > 1 else {})).items():
                x, state = way(predict, before, grid, *ends, {})
                error, residual = off(x, after, grid.sigma[step]), state.get("residual")
                for k, row in enumerate(told):
                    about = {"step": step, "sigma": grid.sigma[step], "method": name, "error": float(error[k])}
                    about |= {"residual": None if residual is None else float(residual[k])}
                    row["steps"].append(about | {"eigenvalue": float(slope[k])})
    return told


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, step and method; `against_ddim` is its error over that of DDIM's step."""
    made = []
    for cell in cells:
        found = cell["probed"].get("steps", []) if cell["probed"] else []
        plain = {row["step"]: row["error"] for row in found if row["method"] == "ddim"}
        for row in found:
            over = row["error"] / plain[row["step"]] if row["error"] is not None and plain[row["step"]] else None
            made.append(grid_of(cell["model"]) | {"unit": cell["item"]} | row | {"against_ddim": over})
    return in_order(made, asked)


def figure(rows: Sequence[Row]) -> Figure:
    """The error of each method at each step, a panel a model."""
    from unsample.studies.plotting import colour, panels

    grids = grids_of(rows)
    drawn, axes = panels(len(grids), columns=6, width=2.2, height=2.1, sharey=True)
    for axis, (model, spacing) in zip(axes, grids, strict=True):
        for k, method in enumerate(SHOWN):
            own = [row for row in rows if (row["model"], row["grid"], row["method"]) == (model, spacing, method)]
            steps = sorted({row["step"] for row in own})
            for place, step in ((place, step) for place, step in enumerate(STEPS) if step in steps):
                errors = [max(row["error"] or 0.0, 1e-10) for row in own if row["step"] == step]
                label = method if step == steps[0] else None
                axis.plot(
                    [place + (k - 1.5) * 0.17] * len(errors), errors, "osvD"[k], color=colour(k), ms=4, label=label
                )
        axis.set_xticks(range(len(STEPS)), [str(step) for step in STEPS])
        axis.set_yscale("log")
        axis.set_title(titled(model, spacing), fontsize=8)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("error of the step / sigma^2", fontsize=8)
    named = {n: h for axis in axes for h, n in zip(*axis.get_legend_handles_labels(), strict=True)}
    drawn.legend([*named.values()], [*named], loc="outside lower center", ncols=4, fontsize=8)
    return drawn


def _updates(asked: Asked, ours: bool) -> int:
    return 10 if asked.quick else UPDATES if ours else 1000


def _passes(asked: Asked) -> int:
    updates = _updates(asked, all(bundled(model) for model in asked.models))
    longer = LONGER * updates * any(bundled(model) and is_cheap(model) for model in asked.models)
    return 2 * len([k for k in STEPS if k <= asked.steps]) * (1 + ITERS + 24 + updates) + 2 * longer


STUDY = Study(
    name=NAME,
    question="Does direct optimisation work at the first inversion step alone?",
    paper=ZENG,
    shows="Section 3.2.4",
    models=models,
    needs=("table",),
    num_samples=2,
    steps=50,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=_passes,
    minutes=5.1,
    published=f"unsample study {NAME} --model google/ddpm-celebahq-256 --num-samples 16",
    about=(
        *GRIDS,
        f"Every step starts at the true point before: on bundled models {UPDATES} updates of Adam at {RATES[OWN]:g}, "
        f"on trailing {RATES[TRAILED]:g}; on others the paper's 1,000 at the library's rate: the paper states neither "
        "optimiser nor rate.",
        f"direct_longer has {LONGER} times as many updates, at the second step of small models: an optimiser that is "
        "only slow gains by it, one that heads for another point does not.",
        "Errors are mean squares over the variance of the noise at the step's level.",
        "eigenvalue is that of the fixed point's map at the true point; the slope of the sampling step along it is "
        "1 - eigenvalue, up to a factor near 1: an optimiser sees little of a direction whose eigenvalue is near 1.",
    ),
)
