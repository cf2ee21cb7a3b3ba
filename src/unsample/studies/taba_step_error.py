"""Fig. 4 and Table 6 of TABA: in which steps of DDIM inversion the prediction errs, and in which areas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.areas import AREAS, mean_by_area, plain_of
from unsample.studies.asking import asking
from unsample.studies.base import TABA, Asked, Cells, Row, Study, nature

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings
    from unsample.numbers.grid import Grid

EPS_AT = ("target", "source")
PARTS = ("first", "rest")


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Pictures that the model made, with the trajectory that made them; nothing is inverted."""
    datasets = {"recovered": asked.generated}
    given = {"methods": ["random_noise"], "metrics": ["std"], "datasets": datasets, "keep_trajectory": True}
    return [asked.plan(**given, probe="taba_step_error")]


def eps_between(clean: Tensor, noisy: Tensor, grid: Grid, i: int, j: int) -> Tensor:
    """The eps along which DDIM sampling went from grid point j to i: of two points with x0 and eps in common."""
    a, s, b, t = grid.alpha[i], grid.sigma[i], grid.alpha[j], grid.sigma[j]
    return (b * clean - a * noisy) / (b * s - a * t)


def errors(predict: Any, trajectory: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The absolute error of eps of each step of inversion, started from the truth, under both conventions.

    Args:
        predict: `predict(x, i)`.
        trajectory: (N + 1, B, C, H, W) of sampling, clean first.

    Returns:
        (N, B, C, H, W) of `target`: |eps(x_i, t_j) - eps(x_j, t_j)|, and of `source`: |eps(x_i, t_i) - eps(x_j, t_j)|,
        for each step from i to j = i + 1; and eps(x_j, t_j), what sampling went along, in the same shape.
    """
    import torch

    grid = predict.grid
    truth = torch.stack([eps_between(trajectory[i], trajectory[i + 1], grid, i, i + 1) for i in range(grid.num_steps)])
    asked = torch.stack([predict(trajectory[i], i + 1).eps for i in range(grid.num_steps)])
    at_source = torch.cat(
        [predict(trajectory[0], 0).eps[None], truth[:-1]]
    )  # eps(x_i, t_i) is the truth of the step before
    return {"target": (asked - truth).abs(), "source": (at_source - truth).abs()}, truth


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each picture the error of each step by convention and area, over the mean |eps| of that step (App. D)."""
    assert found.sampled is not None
    assert found.sampled.trajectory is not None
    trajectory = found.sampled.trajectory.flip(0)
    with asking(found.model, found.setup.steps, found.prompts(), len(found.items)) as predict:
        of, truth = errors(predict, trajectory.to(found.model.device))
        grid = predict.grid
        begins = {"clean": 0, "after_first": first_steps(grid.num_steps)}
        ends = {name: inverted_from(predict, trajectory.to(found.model.device), i) for name, i in begins.items()}
    plain = plain_of(found.source, trajectory.shape[2:])
    norm = truth.abs().flatten(2).mean(2).cpu()  # (N, B)
    latent = {name: mean_by_area((end.cpu() - trajectory[-1]).abs(), plain) for name, end in ends.items()}
    moves = _moves(grid)
    told: list[dict[str, Any]] = []
    for k in range(len(found.items)):
        mean = {at: [mean_by_area(e[k : k + 1].cpu(), plain[k : k + 1])[0] for e in of[at]] for at in EPS_AT}
        steps = {at: {area: [each[area] for each in mean[at]] for area in AREAS} for at in EPS_AT}
        told.append(steps | {"norm": norm[:, k].tolist(), "moves": moves, "latent": {n: latent[n][k] for n in latent}})
    return told


def _moves(grid: Grid) -> list[float | None]:
    """What an error of eps of 1 in each step alone adds to the recovered noise; None where alpha is 0."""
    ends = zip(grid.alpha, grid.sigma, grid.alpha[1:], grid.sigma[1:], strict=False)
    return [grid.alpha[-1] * (t / b - s / a) if a * b else None for a, s, b, t in ends]


def inverted_from(predict: Any, trajectory: Tensor, i: int) -> Tensor:
    """What DDIM inversion makes of the true point i: (B, C, H, W) at the noisiest level."""
    from unsample.numbers.solvers.ddim import ddim_invert_at_target
    from unsample.numbers.walk import walk

    grid = predict.grid
    return walk(ddim_invert_at_target, predict, trajectory[i], grid, range(i, grid.num_steps + 1))[0]


def first_steps(steps: int) -> int:
    """The first 10 % of them."""
    return max(1, round(steps / 10))


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """The sums of each picture over the first 10 % of steps and over the rest; and of each step the mean over pictures.

    `error` is over the mean |eps| of its step; `moved` is what the errors alone would move the recovered noise by, if
    no later prediction changed with them. Rows of kind `latent` have the error of the noise that the whole inversion
    recovers, and of one that begins at the true point after the first 10 %.
    """
    for cell in cells:
        probed, cut = cell["probed"], first_steps(cell["steps"])
        for at, area in ((at, area) for at in EPS_AT for area in AREAS):
            found = probed[at][area] if probed else [None]
            if found[0] is None:
                continue
            relative = [e / n for e, n in zip(found, probed["norm"], strict=True)]
            moved = [e * abs(m) if m is not None else 0.0 for e, m in zip(found, probed["moves"], strict=True)]
            for part, span in zip(PARTS, (slice(0, cut), slice(cut, None)), strict=True):
                about = {"model": cell["model"], "unit": cell["item"], "kind": "sum", "eps_at": at, "area": area}
                yield about | {"part": part, "error": sum(relative[span]), "moved": sum(moved[span])}
        for begins, by in probed.get("latent", {}).items():
            for area, error in by.items():
                about = {"model": cell["model"], "unit": cell["item"], "kind": "latent", "eps_at": "target"}
                yield about | {"area": area, "begins": begins, "error": error}
    yield from _steps(cells)


def _steps(cells: Cells) -> Iterable[Row]:
    for model in dict.fromkeys(cell["model"] for cell in cells):
        probed = [cell["probed"] for cell in cells if cell["model"] == model and cell["probed"]]
        for at, area in ((at, area) for at in EPS_AT for area in AREAS):
            some = [each for each in probed if each[at][area][0] is not None]
            for step in range(len(some[0]["norm"]) if some else 0):
                values = [each[at][area][step] / each["norm"][step] for each in some]
                about = {"model": model, "unit": "mean", "kind": "step", "eps_at": at, "area": area, "step": step + 1}
                yield about | {"error": sum(values) / len(values), "pictures": len(values)}


def figure(rows: Sequence[Row]) -> Figure:
    """The error of each step in plain and textured areas, a panel a model; both conventions."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    drawn, axes = panels(len(models))
    for axis, model in zip(axes, models, strict=True):
        for line, at in zip(("-", ":"), EPS_AT, strict=True):
            for k, area in enumerate(AREAS[:2]):
                some = [
                    r for r in rows if r["kind"] == "step" and (r["model"], r["eps_at"], r["area"]) == (model, at, area)
                ]
                steps, error = [r["step"] for r in some], [r["error"] for r in some]
                axis.plot(steps, error, line, color=colour(k), label=f"{area}, {at}", linewidth=1.2)
        axis.set_yscale("log")
        axis.set_title(f"{short(model)}\n{_said(rows, model)}", fontsize=8)
        axis.set_xlabel("step of inversion", fontsize=8)
    axes[0].set_ylabel("error of eps / mean |eps|", fontsize=8)
    axes[0].legend(fontsize=6, frameon=False)
    return drawn


def _said(rows: Sequence[Row], model: str) -> str:
    """The error of the recovered noise from the clean end, and from after the first steps, by area."""

    def mean(area: str, begins: str) -> str:
        keys = (model, "latent", area, begins)
        some = [r for r in rows if (r["model"], r["kind"], r["area"], r.get("begins")) == keys]
        values = [r["error"] for r in some if r["error"] is not None]
        return f"{sum(values) / len(values):.2f}" if values else "none"

    return ", ".join(f"{a} {mean(a, 'clean')} to {mean(a, 'after_first')}" for a in AREAS[:2])


STUDY = Study(
    name="taba_step_error",
    question="In which steps, and in which areas of the picture, does the prediction of DDIM inversion err?",
    paper=TABA,
    shows="Fig. 4, Table 6",
    models=nature,
    needs=("table",),
    num_samples=16,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    steps=40,
    probe_passes=lambda asked: 3 * asked.steps + 1 - first_steps(asked.steps),
    minutes=1.1,
    published="unsample study taba_step_error --model CompVis/ldm-celebahq-256 --num-samples 4000 --steps 50",
    about=(
        "Each step of inversion starts from the true point of the sampling run, so that only its own error is seen.",
        "Areas are those of the finished picture by the paper's threshold; an error is divided by the mean |eps| of "
        "its step and picture (the paper's App. D, where the L1 norm is taken over all pictures).",
        "eps_at says at which level the network is asked: target is the field's inversion and that of the authors' "
        "code for DiT, source that of their code for ADM.",
        "The column moved weights each step's error by what it alone would do to the recovered noise: the published "
        "measure counts an error of eps alike in a step that moves the noise little and in one that moves it much.",
        "What the first steps do to the result is measured too: the error of the recovered noise, by area, of all of "
        "inversion, and of one that begins at the true point after the first 10 % (in the panels' titles: from, to).",
    ),
)
