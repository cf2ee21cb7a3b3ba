"""Figure 2 of EasyInv: the latents half way, and how near they are to the picture, and to the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies._easyinv import ABOUT_FIXED_POINT, EASYINV, PAN, at, fewer, means, named
from unsample.studies.base import EASYINV as PAPER
from unsample.studies.base import SD, Asked, Cells, Row, Study
from unsample.studies.pictures import as_png, from_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

NAME = "easyinv_midpoint"
SHOWN = 3  # pictures of the figure


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Pictures of the model's own, whose points half way are known."""
    return [
        asked.plan(
            methods=["ddim", "renoise", at(PAN, fewer(asked, 0.4)), EASYINV],
            datasets={"recovered": asked.generated},
            metrics=["noise_std"],
            keep_trajectory=True,
            probe=NAME,
        )
    ]


def cosines(a: Tensor, b: Tensor) -> list[float]:
    """Of each picture's points, (B, ...) both, about 0: 1 where they point the same way."""
    from torch.nn.functional import cosine_similarity

    return [float(v) for v in cosine_similarity(a.double().flatten(1), b.double().flatten(1))]


def errors(found: Tensor, true: Tensor) -> list[float]:
    """RMS of the difference over that of the truth, a picture."""
    apart, whole = ((v.double().flatten(1)).square().mean(1).sqrt() for v in (found - true, true))
    return [float(v) for v in apart / whole]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The point half way up, half way down again, and the true one."""
    import torch

    import unsample

    assert found.inversion is not None
    assert found.inversion.trajectory is not None
    assert found.sampled is not None
    up, true = found.inversion.trajectory, found.sampled.trajectory
    assert true is not None
    down = unsample.reconstruct(found.model, found.inversion, use="noise", keep_trajectory=True, progress=False)
    assert down.trajectory is not None
    half, clean = len(up) // 2, up[0]
    truth = true[len(true) - 1 - half]
    points = {"true": truth, "inverting": up[half], "denoising": down.trajectory[len(up) - 1 - half]}
    each: list[dict[str, Any]] = [{} for _ in found.items]
    for name, point in points.items():
        point, with_clean = point.to(truth), cosines(point.to(truth), clean.to(truth))
        with torch.no_grad():
            pictures = found.model.decode(point.to(found.model.device)).float().clamp(0, 1).cpu()
        for k, (cosine, error) in enumerate(zip(with_clean, errors(point, truth), strict=True)):
            each[k][name] = {"cosine": cosine, "error": error, "png": as_png(pictures[k])}
    for k, source in enumerate(found.source):
        each[k]["source"] = as_png(source)
    return each


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, method and direction; and of the first pictures what the points look like, decoded."""
    first = list(dict.fromkeys(cell["item"] for cell in cells))[:SHOWN]
    for cell in cells:
        probed, method = cell["probed"], named(cell["method"])
        for where in ("inverting", "denoising", *(("true",) if method == "ddim" else ())):
            if where in probed:
                row = {"model": cell["model"], "unit": cell["item"], "kind": "values", "where": where}
                row |= {"method": "true" if where == "true" else method, "T": cell["steps"]}
                yield row | {key: probed[where][key] for key in ("cosine", "error")}
    for cell in cells:
        probed, method = cell["probed"], named(cell["method"])
        if cell["item"] not in first or not probed:
            continue
        row = {"model": cell["model"], "unit": cell["item"], "kind": "picture", "T": cell["steps"]}
        if method == "ddim":
            yield row | {"method": "source", "png": probed["source"]}
            yield row | {"method": "true", "png": probed["true"]["png"]}
        yield row | {"method": method, "png": probed["denoising"]["png"]}


def figure(rows: Sequence[Row]) -> Figure:
    """The decoded points half way down, as in the paper, of the first model."""
    from unsample.studies.plotting import models_of, panels

    first = [r for r in rows if r["kind"] == "picture" and r["model"] == models_of(rows)[0]]
    if not first:
        return means([r for r in rows if r["kind"] == "values"], "cosine", "method", "cosine", series="where")
    methods, units = (list(dict.fromkeys(r[key] for r in first)) for key in ("method", "unit"))
    methods = ["source", "true", *(m for m in methods if m not in ("source", "true"))]
    figure, axes = panels(len(methods) * len(units), columns=len(methods), width=1.5, height=1.6)
    values = [r for r in rows if r["kind"] == "values" and r["where"] in ("denoising", "true")]
    for k, axis in enumerate(axes):
        unit, method = units[k // len(methods)], methods[k % len(methods)]
        axis.axis("off")
        for row in first:
            if (row["unit"], row["method"]) == (unit, method):
                axis.imshow(from_png(row["png"]))
        here = [r for r in values if (r["model"], r["unit"], r["method"]) == (first[0]["model"], unit, method)]
        said = f"\ncos {here[0]['cosine']:.2f}, err {here[0]['error']:.2f}" if here else ""
        axis.set_title(f"{method}{said}", fontsize=7)
    return figure


STUDY = Study(
    name=NAME,
    question="Are EasyInv's latents half way nearer to the original picture, and is that convergence?",
    paper=PAPER,
    shows="Figure 2",
    models=(SD,),
    num_samples=8,
    steps=25,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: 3 * asked.steps + fewer(asked, 0.4),
    minutes=0.3,
    published="unsample study easyinv_midpoint --model CompVis/stable-diffusion-v1-4 --steps 50",
    about=(
        ABOUT_FIXED_POINT,
        "`cosine` is that of the latent half way with the latent of the picture; half way up (inverting) and half way "
        "down from the noise found (denoising). `error` is the distance to the true point of the run that made the "
        "picture, over its length: it tells whether a latent that looks more like the picture has converged, or has "
        "too little noise for its level. The rows `true` have the cosine of the true point.",
        "The fixed point's pictures are sampled with its own number of steps.",
    ),
)
