"""Appendix G of TABA: noises, samples and latents while the model is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.models.states import states_of
from unsample.studies.base import DDPM, TABA, Asked, Cells, Row, Study, packed, unpacked
from unsample.studies.geometry import angles, assigned, distance, splits
from unsample.studies.points import finite, inverted, three

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

LEAST = 8  # pictures of a split
COARSE = 4  # pixels of a block whose means are the coarse part
EARLY, LATE = 0.1, 0.75  # of the training
TIGHT = {"columnspacing": 1.0, "handlelength": 1.2, "handletextpad": 0.4}  # of a legend's one line
SHOWN = 3  # pictures that are drawn
MEASURED = ("angle_noise", "angle_sample", "angle_latent", "distance", "lag1", "ssim", "coarse", "fine")


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion of pictures of the final model, a plan a model, whose states are then looked at."""
    parts = [replace(asked, models=(model,)) for model in asked.models]
    return [inverted(part, "taba_training", probe_settings={"model": part.models[0]}) for part in parts]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each state of the training the pictures inverted with it, and what it makes of their noises."""
    told: list[dict[str, Any]] = [{"noise": packed(one), "states": []} for one in three(found)[0]]
    for step, path in states_of(str(settings["model"])).items():
        for one, row in zip(told, _with_state(found, path), strict=True):
            one["states"].append({"step": step} | row)
    return told


def _with_state(found: Findings, path: Any) -> list[dict[str, Any]]:
    """What is measured of each picture with one state."""
    import torch

    import unsample
    from unsample.metrics.pixels import ssim
    from unsample.numbers.health import health

    noise, sample, _ = three(found)
    assert found.inversion is not None
    model, steps = in_state(found.model, path), found.inversion.meta["num_inference_steps"]
    given: dict[str, Any] = {"num_inference_steps": steps, "progress": False}
    latent = unsample.invert(model, latents=sample, method="ddim", **given).noise
    made = unsample.sample(model, noise=noise, **given)
    corners, far = angles(noise, sample, latent), distance(noise, latent) / math.sqrt(noise[0].numel())
    like = ssim(made.images.clamp(0, 1).cpu(), found.model.decode(sample).clamp(0, 1).cpu())
    parts = agreement(made.latents, sample)
    rows = []
    for n, own in enumerate(health(latent)):
        values = [*corners[n].tolist(), float(far[n]), own["lag1_correlation"], like[n], *parts[n]]
        values = [v if v is not None and math.isfinite(v) else None for v in values]
        rows.append(dict(zip(MEASURED, values, strict=True)) | {"sample": packed(torch.as_tensor(made.latents[n]))})
    return rows


def in_state(model: Any, path: Any) -> Any:
    """A copy of a pixel model with the weights of a state.

    Raises:
        Incompatible: a model of another kind, or weights of another network.
    """
    import copy

    from safetensors.torch import load_file

    from unsample.errors import Incompatible
    from unsample.models.pixel import PixelModel

    if model.family != "pixel":
        raise Incompatible(f"{model.id}: states of training are read of models of pixels alone")
    unet, state = copy.deepcopy(model.unet), load_file(path)
    own = unet.state_dict()
    if own.keys() != state.keys() or any(own[key].shape != value.shape for key, value in state.items()):
        raise Incompatible(f"{path} holds the weights of another network than {model.id}'s")
    unet.load_state_dict(state)
    return PixelModel(unet, model.scheduler, model.id)


def agreement(a: Tensor, b: Tensor) -> list[tuple[float, float]]:
    """The correlation of each picture of `a` (B, C, H, W) with its of `b`, of means over blocks and of the rest."""
    from torch.nn.functional import avg_pool2d, interpolate

    coarse = [avg_pool2d(x.double(), COARSE) for x in (a, b)]
    fine = [
        x.double() - interpolate(mean, scale_factor=COARSE, mode="nearest")
        for x, mean in zip((a, b), coarse, strict=True)
    ]
    return list(zip(_correlated(*coarse), _correlated(*fine), strict=True))


def _correlated(a: Tensor, b: Tensor) -> list[float]:
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    found: list[float] = ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).tolist()
    return found


def cka(a: Tensor, b: Tensor) -> float:
    """Linear CKA of N >= 4 pairs of points (N, ...), by the unbiased estimator of HSIC (Song et al., 2012).

    The plain estimator is near 1 of independent pictures too, where they have more values than there are pictures.
    """
    gram = [x.double().flatten(1) @ x.double().flatten(1).T for x in (a - a.mean(0), b - b.mean(0))]
    return _hsic(*gram) / math.sqrt(_hsic(gram[0], gram[0]) * _hsic(gram[1], gram[1]))


def _hsic(k: Tensor, m: Tensor) -> float:
    n = len(k)
    k, m = (x - x.diag().diag() for x in (k, m))
    whole = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ m.sum(1))
    return float(((k * m).sum() + whole) / (n * (n - 3)))


def phases(steps: Sequence[int]) -> dict[int, str]:
    """What a state is called: "start" (untrained), "first", "early" (a tenth of the training), "late", "last"."""
    last = max(steps)
    trained = [step for step in sorted(steps) if step] or [last]
    named = {max([step for step in trained if step <= LATE * last], default=last): "late"}
    named[min(step for step in trained if step >= EARLY * last)] = "early"
    named |= {min(trained): "first", last: "last", 0: "start"}
    return {step: named.get(step, "") for step in steps}


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """Of each state a row a picture, a row a split of pictures, and a few samples."""
    from unsample.studies.running import cells_by

    for (model,), some in cells_by(finite(cells), "model"):
        steps = [state["step"] for state in some[0]["probed"]["states"]]
        names = phases(steps)
        for place, step in enumerate(steps):
            states = [cell["probed"]["states"][place] for cell in some]
            about: Row = {"model": model, "state": step, "phase": names[step], "trained": step > 0}
            for cell, state in zip(some, states, strict=True):
                yield (
                    about
                    | {"unit": cell["item"], "kind": "each"}
                    | {name: state[name] for name in MEASURED}
                    | _gap(state)
                )
            yield from _of_splits(some, states, about)
            for cell, state in list(zip(some, states, strict=True))[:SHOWN]:
                yield about | {"unit": cell["item"], "kind": "picture"} | drawn(unpacked(state["sample"]))


def _gap(state: Mapping[str, Any]) -> Row:
    """By how much the coarse part agrees better than the fine one."""
    parts = (state["coarse"], state["fine"])
    return {"coarse_minus_fine": None if None in parts else parts[0] - parts[1]}


def _of_splits(cells: Cells, states: Sequence[Mapping[str, Any]], about: Row) -> Iterable[Row]:
    """Assignments by the smallest distance, both ways, and how alike the samples are to those of the final state."""
    import torch

    noises, made, final = (
        torch.stack([unpacked(told) for told in every])
        for every in (
            [cell["probed"]["noise"] for cell in cells],
            [state["sample"] for state in states],
            [cell["probed"]["states"][-1]["sample"] for cell in cells],
        )
    )
    for k, split in enumerate(splits(len(cells), LEAST)):
        own = {"unit": f"split-{k}", "kind": "split", "n": len(split), "chance": 1 / len(split)}
        own |= {"to_noise": assigned(made[split], noises[split]), "to_picture": assigned(noises[split], made[split])}
        if len(split) >= 4:
            others = final[[*split[1:], split[0]]]
            own |= {"cka": cka(made[split], final[split]), "cka_of_others": cka(made[split], others)}
        yield about | own


def drawn(sample: Tensor) -> Row:
    """A picture (C, H, W) in [-1, 1] as bytes, RGB, base64."""
    import base64

    shown = ((sample.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).expand(-1, -1, 3)
    return {"size": f"{shown.shape[1]}x{shown.shape[0]}", "rgb": base64.b64encode(shown.numpy().tobytes()).decode()}


def figure(rows: Sequence[Row]) -> Figure:
    """Figs. 14 to 16: angles, distance, assignments and alignment by steps of training, and samples of noises."""
    from matplotlib.figure import Figure

    from unsample.studies.means import mean
    from unsample.studies.plotting import colour, models_of, short

    models = models_of(rows)
    figure = Figure(figsize=(13, 6 * len(models)), layout="constrained")
    for part, model in zip(figure.subfigures(len(models), 1, squeeze=False)[:, 0], models, strict=True):
        above, below = part.subfigures(2, 1, height_ratios=(1.15, 1))
        mine = [row for row in rows if row["model"] == model]
        states = sorted({row["state"] for row in mine})
        places = [*range(len(states))]
        shown = (
            ("angle at, in degrees", ("angle_noise", "angle_sample", "angle_latent")),
            ("RMS of latent - noise", ("distance",)),
            ("share of pictures", ("to_noise", "to_picture", "chance")),
            ("alike to the final samples", ("cka", "ssim", "coarse", "fine")),
        )
        for axis, (title, names) in zip(above.subplots(1, len(shown)), shown, strict=True):
            for k, name in enumerate(names):
                means = [mean([row for row in mine if row["state"] == state], name) for state in states]
                values = [math.nan if value is None else value for value in means]
                style = "--" if name == "chance" else ".-"
                axis.plot(places, values, style, color=colour(k), label=name.removeprefix("angle_").replace("_", " "))
            axis.set_title(title, fontsize=9)
            axis.set_xticks(places, states, rotation=60, fontsize=7)
            axis.set_xlabel("steps of training", fontsize=8)
            axis.tick_params(axis="y", labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.4), ncols=4, frameon=False, **TIGHT)
        above.suptitle(short(model), fontsize=10)
        _strip(below, [row for row in mine if row["kind"] == "picture"], states)
    return figure


def _strip(part: Any, rows: Sequence[Row], states: Sequence[int]) -> None:
    """Samples of a few noises, a row each, by the state that made them."""
    import base64

    import numpy as np

    units = list(dict.fromkeys(row["unit"] for row in rows))
    axes = part.subplots(len(units), len(states), squeeze=False)
    for line, unit in zip(axes, units, strict=True):
        for axis, state in zip(line, states, strict=True):
            axis.set_axis_off()
            for row in rows:
                if row["unit"] == unit and row["state"] == state:
                    width, height = map(int, row["size"].split("x"))
                    levels = np.frombuffer(base64.b64decode(row["rgb"]), np.uint8)
                    axis.imshow(levels.reshape(height, width, 3), interpolation="nearest")
    for axis, state in zip(axes[0], states, strict=True):
        axis.set_title(str(state), fontsize=8)


def probe_passes(asked: Asked) -> int:
    """Each state inverts and samples."""
    return 2 * asked.steps * max((len(states_of(model)) for model in asked.models), default=0)


STUDY = Study(
    name="taba_training",
    question="When in training is it settled where latents lie, and which picture a noise becomes?",
    paper=TABA,
    shows="Appendix G, Figs. 14 to 19",
    models=(DDPM,),
    num_samples=32,
    steps=20,
    needs=("states",),
    minutes=2.0,
    plans=plans,
    probe=probe,
    probe_passes=probe_passes,
    rows=rows,
    figure=figure,
    published="unsample study taba_training --model FOLDER --num-samples 1000 --steps 100",
    about=(
        "The pictures are those of the final model. Each state of the training inverts them, and makes pictures of the "
        "same noises. FOLDER is a diffusers folder of a network of pixels with its states in FOLDER/states/"
        "step-N.safetensors; the paper's own (two ADMs trained from scratch) were not published.",
        "`distance` is the root mean square of latent minus noise, which is the error of the recovered noise too. "
        "Phases: start is the untrained network, first the first trained state, early the first one after a tenth of "
        "the training, late the last one before three quarters of it.",
        "Nearest neighbours are sought among the 8 pictures or more of a split (the paper's accuracy falls with their "
        "number). CKA is of pixels, by the unbiased estimator; `cka_of_others` is its value for samples of other "
        "noises. `coarse` is the correlation of means over 4x4 pixels with those of the final sample, `fine` that of "
        "the rest. DINO needs a network that is not bundled, and SVCCA more pictures; both are left out.",
    ),
)
