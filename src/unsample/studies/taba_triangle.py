"""Table 3, Fig. 9 and Table 10 of TABA: the triangle of noise, sample and latent, by number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.models.minis import is_mini
from unsample.studies.base import TABA, Asked, Cells, Row, Study, is_cheap, nature
from unsample.studies.geometry import VERTICES, angles, distance, most_probable
from unsample.studies.points import finite, inverted, steps_of, three

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unsample.experiment.findings import Findings

USUAL, LONGER, LONG = (0.2, 1.0), (2.0,), (10.0, 20.0)  # times the steps asked for: 10 and 50, 100, 500 and 1000
MINIS = 2  # of the small networks that also run at the largest numbers of steps


def plans(asked: Asked) -> list[dict[str, Any]]:
    """All models at the usual numbers of steps; a quarter of the pictures at more."""
    minis = [model for model in asked.models if is_mini(model)]
    larger = [model for model in asked.models if model not in minis]
    cheap = [model for model in larger if is_cheap(model)] + minis[:MINIS]
    found = []
    for times, models, part in ((USUAL, asked.models, 1), (LONGER, larger, 4), (LONG, cheap, 4)):
        some = replace(asked, models=tuple(models), num_samples=max(1, asked.num_samples // part))
        new = [steps for each, steps in steps_of(asked, USUAL + LONGER + LONG).items() if each in times]
        if models and new:
            found.append(inverted(some, "taba_triangle", steps=new))
    return found


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The angles, and the side from noise to latent over that from noise to sample."""
    noise, sample, latent = three(found)
    every, side = angles(noise, sample, latent).tolist(), distance(noise, latent) / distance(noise, sample)
    plain = [[None if angle != angle else angle for angle in row] for row in every]
    return [{"angles": row, "side": float(ratio)} for row, ratio in zip(plain, side, strict=True)]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """The angles of each picture; of each model and number of steps the most probable ones, and the medians."""
    import torch

    from unsample.studies.running import cells_by

    names = [f"angle_{vertex}" for vertex in VERTICES]
    times = {steps: each for each, steps in steps_of(asked, USUAL + LONGER + LONG).items()}
    for (model, steps), some in cells_by(finite(cells), "model", "steps"):
        about = {"model": model, "steps": steps, "times": times[steps]}
        told = [cell["probed"] for cell in some]
        for cell in some:
            one = {"unit": cell["item"], "kind": "picture", "side": cell["probed"]["side"]}
            yield about | one | dict(zip(names, cell["probed"]["angles"], strict=True))
        known = torch.tensor([each["angles"] for each in told if None not in each["angles"]], dtype=torch.float64)
        if not len(known):
            continue
        whole = about | {"unit": "all", "n": len(known)}
        yield whole | {"kind": "median"} | dict(zip(names, known.quantile(0.5, dim=0).tolist(), strict=True))
        for kind, centred in (("most probable", False), ("most probable, centred", True)):
            yield whole | {"kind": kind} | dict(zip(names, most_probable(known, centred) or (None,) * 3, strict=True))


def figure(rows: Sequence[Row]) -> Figure:
    """Each picture's angles and their medians by number of steps, with the most probable triangle of centred bins."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(models), sharey=True)
    for axis, model in zip(axes, models, strict=True):
        mine = sorted((row for row in rows if row["model"] == model), key=lambda row: row["steps"])
        for k, vertex in enumerate(VERTICES):
            name = f"angle_{vertex}"
            for kind, style in (("picture", "."), ("median", "-"), ("most probable, centred", "x")):
                some = [row for row in mine if row["kind"] == kind and row[name] is not None]
                label = f"at the {vertex}" if kind == "median" else None
                alpha = 0.25 if kind == "picture" else 1
                xs, ys = [row["steps"] for row in some], [row[name] for row in some]
                axis.plot(xs, ys, style, color=colour(k), alpha=alpha, label=label)
        axis.axhline(90, color="black", linewidth=0.8, linestyle="--")
        axis.set_xscale("log")
        shown = sorted({row["steps"] for row in mine})
        axis.set_xticks(shown, [str(steps) for steps in shown])
        axis.minorticks_off()
        axis.set_ylim(-5, 185)
        axis.set_yticks([0, 45, 90, 135, 180])
        axis.set_title(short(model), fontsize=9)
        axis.set_xlabel("steps", fontsize=8)
    for axis in axes[::4]:
        axis.set_ylabel("angle in degrees", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


STUDY = Study(
    name="taba_triangle",
    question="Where do latents lie to the noise and the sample: on the way between them, or to the side?",
    paper=TABA,
    shows="Table 3, Fig. 9, Table 10",
    models=nature,
    num_samples=16,
    plans=plans,
    probe=probe,
    rows=rows,
    figure=figure,
    minutes=3.4,
    published="unsample study taba_triangle --model CompVis/ldm-celebahq-256 --num-samples 10240 --steps 100",
    about=(
        "Steps are those asked for, and a fifth and twice as many; `scenes-mixture` and two small networks also run at"
        " 10 and 20 times as many. More steps than asked for are walked with a quarter of the pictures.",
        "The most probable triangle is the triple of whole degrees that sums to 180 and has the largest product of the"
        " three histograms. The paper's bins hold the angles from k up to k + 1: the lower ends of three angles sum to"
        " 178 or 179, so a triple that sums to 180 stands beside the modes. Bins around k have no such shift. On few"
        " pictures either may be noisy or missing; claims are about medians.",
    ),
)
