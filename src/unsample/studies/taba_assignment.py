"""Tables 8 and 11, Figs. 12 and 13 of TABA: is a picture's own noise, or latent, the nearest one, and the reverse?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import TABA, Asked, Cells, Row, Study, nature
from unsample.studies.geometry import nearest, splits
from unsample.studies.points import by_size, gathered, inverted, steps_of, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

TIMES = (0.1, 0.5, 1.0)  # of the steps asked for
SPLIT = 16  # pictures of a split
SMALL = 2  # times as many pictures of the small networks
WAYS = (("sample", "noise"), ("noise", "sample"), ("sample", "latent"), ("latent", "sample"))


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion of pictures that the model made in few steps and in more."""
    steps = [*steps_of(asked, TIMES).values()]
    return [inverted(part, "taba_assignment", steps=steps) for part in by_size(asked, SMALL)]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a split, number of steps and way; at the fewest and the most steps also a row a picture, right or wrong."""
    times = {steps: each for each, steps in steps_of(asked, TIMES).items()}
    for model, steps, space, ids, tensors in gathered(cells):
        about = {"model": model, "steps": steps, "times": times[steps], "space": space}
        for k, split in enumerate(splits(len(ids), SPLIT)):
            some = {name: tensor[split] for name, tensor in tensors.items()}
            for asked_of, among in WAYS:
                one, two, way = some[asked_of], some[among], {"way": f"{asked_of} to {among}"}
                right = [place == own for own, place in enumerate(nearest(one, two))]
                row = about | {"unit": f"split-{k}", "kind": "split", "n": len(split), "chance": 1 / len(split)} | way
                row |= {"accuracy": sum(right) / len(right), "cosine": cosine(one, two)}
                yield row | attractor(one, two)
                if times[steps] in (TIMES[0], TIMES[-1]):
                    for own, hit in zip(split, right, strict=True):
                        yield about | {"unit": ids[own], "kind": "picture"} | way | {"accuracy": float(hit)}


def cosine(asked: Tensor, among: Tensor) -> float:
    """How alike a picture's own two are: the mean cosine of the angle between them, seen from 0."""
    x, y = asked.double().flatten(1), among.double().flatten(1)
    return float(((x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))).mean())


def attractor(asked: Tensor, among: Tensor) -> Row:
    """Of the answer that is nearest to most: the share that it draws, and its places among all (0 lowest, 1 highest).

    `variance_rank` is of the variance of its pixels, `norm_rank` of its distance from 0, the mean of the noise;
    `norm_spread` is the standard deviation of those distances over their mean.
    """
    found = nearest(asked, among)
    most = max(range(len(among)), key=found.count)
    flat = among.double().flatten(1)
    ranks = {"variance_rank": flat.var(dim=1).tolist(), "norm_rank": flat.norm(dim=1).tolist()}
    others, norms = max(1, len(among) - 1), flat.norm(dim=1)
    spread = float(norms.std(correction=0) / norms.mean())
    return {"attractor": found.count(most) / len(found), "norm_spread": spread} | {
        name: sum(value < values[most] for value in values) / others for name, values in ranks.items()
    }


def figure(rows: Sequence[Row]) -> Figure:
    """The accuracy of the four ways by number of steps, a panel a model; chance is dashed."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(models), sharey=True)
    for axis, model in zip(axes, models, strict=True):
        mine = [row for row in rows if row["model"] == model and row["kind"] == "split"]
        shown = sorted({row["steps"] for row in mine})
        for k, (asked, among) in enumerate(WAYS):
            found = []
            for steps in shown:
                some = [r["accuracy"] for r in mine if r["steps"] == steps and r["way"] == f"{asked} to {among}"]
                found.append(sum(some) / len(some))
            style = "o-" if "noise" in (asked, among) else "s:"
            axis.plot(shown, found, style, color=colour(k), markersize=4, label=f"{asked} to {among}")
        axis.axhline(mine[0]["chance"], color="black", linewidth=0.8, linestyle="--")
        axis.set_xscale("log")
        axis.set_xticks(shown, [str(steps) for steps in shown])
        axis.minorticks_off()
        axis.set_ylim(-0.05, 1.05)
        axis.set_title(f"{short(model)} ({mine[0]['space']})", fontsize=9)
        axis.set_xlabel("steps", fontsize=8)
    for axis in axes[::4]:
        axis.set_ylabel("own one is the nearest", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


STUDY = Study(
    name="taba_assignment",
    question="Is the noise that a picture was made of the nearest of all noises, and is its latent?",
    paper=TABA,
    shows="Tables 8 and 11, Figs. 12 and 13",
    models=nature,
    num_samples=32,
    steps=20,
    plans=plans,
    probe=whole,
    rows=rows,
    figure=figure,
    minutes=1.3,
    published="unsample study taba_assignment --model google/ddpm-cifar10-32,CompVis/ldm-celebahq-256 "
    "--num-samples 10240 --steps 100",
    about=(
        "`sample to noise`: of each picture the nearest noise, in L2; right where it is the picture's own. By chance"
        " one of N is right, and splits have 16 pictures or more (at most 8 splits), where the paper has a thousand and"
        " more: its accuracies are lower for that alone. Claims are judged over pictures, each right or wrong among"
        " its split.",
        "`attractor` is the share that the most frequent answer draws; `variance_rank` and `norm_rank` say whether it"
        " is the plainest, and the nearest to 0. Of answers that lie equally far from 0 the nearest is the one that is"
        " most alike; the more unequal they are (`norm_spread`), the more often it is just the one nearest to 0.",
        "`cosine` is how alike a picture's own two are: a latent that holds the picture is like it, and finds it.",
        "The paper's models of pixels are ADM, which diffusers does not load: google/ddpm-cifar10-32 is the nearest.",
        "Steps are those asked for, half of them and a tenth; the small networks are asked for twice as many pictures.",
    ),
)
