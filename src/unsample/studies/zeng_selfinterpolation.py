"""Figs. 4 to 6 of Zeng et al.: recovered noises, what they reconstruct, and what lies between them and the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.models.minis import minis
from unsample.studies.base import APART, MIXTURE, REPELLING, TRAILING, ZENG, Asked, Cells, Row, Study
from unsample.studies.zeng import COST, PLAIN, called, groups, hybrid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

NAME = "zeng_selfinterpolation"
ALPHAS = tuple(k / 10 for k in range(11))
STRIPS = 1  # pictures a model and method whose strip is kept, at every second alpha
SIDE = 32  # pixels of what is kept of a picture, at most


def models() -> tuple[str, ...]:
    """The exact one; and where the first step is long, one of latents and three small ones."""
    return (TRAILING, MIXTURE, *(name + REPELLING for name in minis()[::4]))


def plans(asked: Asked) -> list[dict[str, Any]]:
    """The five methods of Figs. 4 and 5."""
    found = []
    for own in groups(asked):
        given = {"datasets": {"recovered": own.generated}, "metrics": ["e_latent"]}
        found.append(own.plan(methods=[*PLAIN, hybrid(own.models[0], own)], probe=NAME, **given))
    return found


def probe(found: Findings, settings: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The error of what is sampled at each alpha, and the first pictures' strips."""
    import torch

    import unsample
    from unsample.metrics.recovery import mse
    from unsample.numbers.slerp import slerp

    assert found.noise is not None
    assert found.true_noise is not None
    assert found.start is not None
    truth = found.true_noise.to(found.noise)
    made = [
        unsample.sample(
            found.model,
            found.prompts(),
            noise=slerp(truth, found.noise, alpha),
            num_inference_steps=found.setup.steps,
            guidance_scale=1.0,
            progress=False,
        )
        for alpha in ALPHAS
    ]
    errors = torch.stack([mse(each.latents.cpu(), found.start.cpu()) for each in made])
    told: list[dict[str, Any]] = []
    for k, item in enumerate(found.items):
        row: dict[str, Any] = {"errors": errors[:, k].tolist()}
        if int(item.id.rpartition("-")[2]) % APART < STRIPS:
            row["strip"] = [pixels(each.images[k]) for each in made[::2]]
            row |= {"noise": pixels(shown(found.noise[k])), "true": pixels(shown(truth[k]))}
            row["source"] = pixels(found.source[k])
        told.append(row)
    return told


def shown(noise: Tensor) -> Tensor:
    """A noise as a picture: three of its channels, or one three times, from -2.5 to 2.5; (3, h, w) in [0, 1]."""
    return (noise[:3] if len(noise) >= 3 else noise[:1].expand(3, -1, -1)).float().div(5).add(0.5).clamp(0, 1)


def pixels(picture: Tensor) -> dict[str, Any]:
    """A picture (3, h, w) in [0, 1] as 8-bit values, made smaller by whole factors to at most SIDE."""
    import base64

    factor = max(1, -(-picture.shape[-1] // SIDE))
    small = picture.cpu().float()[:, ::factor, ::factor].mul(255).round().byte().movedim(0, -1).contiguous()
    return {"shape": list(small.shape), "uint8": base64.b64encode(small.numpy().tobytes()).decode()}


def array(told: Mapping[str, Any]) -> Any:
    """The array (h, w, 3) of `pixels`."""
    import base64

    import numpy as np

    return np.frombuffer(base64.b64decode(told["uint8"]), dtype=np.uint8).reshape(told["shape"])


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, method and alpha (`kind` "error"); the first pictures with what is shown of them ("picture")."""
    for cell in cells:
        if not cell["probed"]:
            continue
        about = {"model": cell["model"], "unit": cell["item"], "method": called(cell["method"])}
        for alpha, error in zip(ALPHAS, cell["probed"]["errors"], strict=True):
            yield about | {"kind": "error", "alpha": alpha, "error": error}
        if "strip" in cell["probed"]:
            kept = {name: cell["probed"][name] for name in ("strip", "noise", "true", "source")}
            yield about | {"kind": "picture"} | kept


def figure(rows: Sequence[Row]) -> Figure:
    """Error against alpha, a panel a model; below, of each model's first picture, noises and strips by method."""
    from matplotlib.figure import Figure as New

    from unsample.studies.plotting import colour, models_of, short

    models = models_of(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    wide = len(ALPHAS[::2]) + 1
    drawn = New(figsize=(10, (2.2 + 0.62 * (len(methods) + 1)) * len(models)), layout="constrained")
    for model, part in zip(models, _rows_of(drawn, len(models)), strict=True):
        left, right = part.subfigures(1, 2, width_ratios=(1, 1.5))
        axis = left.subplots()
        for k, method in enumerate(methods):
            own = [r for r in rows if r["kind"] == "error" and (r["model"], r["method"]) == (model, method)]
            mean = [_mean([r["error"] for r in own if r["alpha"] == alpha]) for alpha in ALPHAS]
            axis.plot(ALPHAS, [max(m, 1e-12) for m in mean], "o-", markersize=3, color=colour(k), label=method)
        axis.set_yscale("log")
        axis.set_xlabel("alpha: 0 the true noise, 1 the recovered one", fontsize=8)
        axis.set_ylabel("MSE to the picture", fontsize=8)
        axis.set_title(short(model), fontsize=9)
        axis.legend(fontsize=6)
        axis.spines[["top", "right"]].set_visible(False)
        kept = {r["method"]: r for r in rows if r["kind"] == "picture" and r["model"] == model}
        if not kept:
            continue
        grid = right.subplots(len(methods) + 1, wide, squeeze=False)
        first = next(iter(kept.values()))
        for column in range(wide):
            grid[0, column].axis("off")
        for column, name in ((0, "true"), (1, "source")):
            grid[0, column].imshow(array(first[name]), interpolation="nearest")
            grid[0, column].set_title("true noise" if name == "true" else "picture", fontsize=6)
        for k, method in enumerate(methods, 1):
            pictures = [kept[method]["noise"], *kept[method]["strip"]] if method in kept else []
            for column in range(wide):
                cell = grid[k, column]
                cell.set_xticks([])
                cell.set_yticks([])
                if pictures:
                    cell.imshow(array(pictures[column]), interpolation="nearest")
                if k == 1:
                    cell.set_title("noise" if column == 0 else f"{ALPHAS[2 * column - 2]:g}", fontsize=6)
            grid[k, 0].set_ylabel(method, fontsize=6, rotation=0, ha="right", va="center")
    return drawn


def _rows_of(drawn: Figure, count: int) -> list[Any]:
    return list(drawn.subfigures(count, 1, squeeze=False).flat)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


STUDY = Study(
    name=NAME,
    question="What lies between the true noise of a picture and the recovered one?",
    paper=ZENG,
    shows="Figures 4 to 6, Table 1",
    models=models,
    num_samples=2,
    steps=25,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: 5 * len(ALPHAS) * asked.steps,
    minutes=1.8,
    published=f"unsample study {NAME} --model google/ddpm-celebahq-256 --num-samples 16 --steps 50",
    about=(*COST, "Noises are shown from -2.5 to 2.5, of latents the first three channels."),
)
