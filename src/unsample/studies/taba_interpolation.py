"""Fig. 5 of TABA: pictures along a path between two noises, and between the latents that DDIM inversion finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import DDPM, MIXTURE, SD, TABA, TRAILING, Asked, Cells, Row, Study, packed, unpacked

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

PLACES = (0.0, 0.25, 0.5)  # of the path; the other half mirrors it, as both ends are drawn alike
ORIGINS = ("noise", "latent")
COMPONENTS = 16  # principal ones of the reference's features, in which two sets are compared
PARTNER = 10**7  # from a picture's seed to that of the other end


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Pictures that the model made, inverted."""
    given = {"methods": ["ddim"], "metrics": ["e_latent"], "datasets": {"recovered": asked.generated}}
    return [asked.plan(**given, probe="taba_interpolation")]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Along the paths from each picture to a second one of the same prompt: features, sharpness."""
    import unsample
    from unsample.experiment.findings import seeded
    from unsample.metrics.features import extract
    from unsample.metrics.subject import Settings
    from unsample.numbers.slerp import slerp

    assert found.sampled is not None
    assert found.noise is not None
    prompts = found.prompts()
    common: dict[str, Any] = {"num_inference_steps": found.setup.steps, "progress": found.progress}
    seeds = [(item.seed or 0) + PARTNER for item in found.items]
    other = unsample.sample(found.model, prompts, generator=seeded(seeds), **common)
    inverted = unsample.invert(found.model, latents=other.latents, prompt=prompts, **common)
    ends = {"noise": (found.sampled.noise, other.noise), "latent": (found.noise, inverted.noise)}
    settings_of = Settings(clip=found.setup.clip_model)
    known = extract(other.images.cpu(), settings_of)
    told: list[dict[str, Any]] = [{"reference": packed(row)} for row in known]
    for origin, place in ((origin, place) for origin in ORIGINS for place in PLACES):
        if (origin, place) == ("noise", 0.0):
            pictures = found.source
        else:
            one, two = (end.to(found.model.device) for end in ends[origin])
            start = slerp(one, two, place)
            pictures = unsample.sample(found.model, prompts, noise=start, **common).images.cpu()
        features = extract(pictures, settings_of)
        for k, each in enumerate(told):
            about = {"features": packed(features[k]), "sharpness": float(sharpness(pictures[k : k + 1]))}
            each[f"{origin} {place}"] = about
    return told


def sharpness(pictures: Tensor) -> Tensor:
    """The mean absolute difference of neighbours (B,), of pictures (B, C, H, W)."""
    across, down = pictures.diff(dim=3).abs(), pictures.diff(dim=2).abs()
    return (across.flatten(1).mean(1) + down.flatten(1).mean(1)) / 2


def frechet_values(features: Tensor, reference: Tensor) -> list[float]:
    """The Frechet distance of a set (n, D) from a reference (m, D), as n values whose mean it is.

    Over the reference's principal components, in units of its total variance there. The values are the jackknife's:
    n times the distance less n - 1 times the one without a picture, so that their mean is without most of the bias
    that small sets give the distance, and their deviation tells how sure it is.
    """
    import torch

    centre = reference.double().mean(0)
    axes = torch.linalg.svd(reference.double() - centre, full_matrices=False).Vh
    axes = axes[: min(COMPONENTS, len(reference) - 1)]
    x, y = ((each.double() - centre) @ axes.T for each in (features, reference))
    unit = float(y.var(0).sum())
    whole, n = _frechet(x, y) / unit, len(x)
    without = [_frechet(torch.cat([x[:k], x[k + 1 :]]), y) / unit for k in range(n)]
    return [n * whole - (n - 1) * each for each in without]


def _frechet(x: Tensor, y: Tensor) -> float:
    from unsample.metrics.distributions import frechet

    return frechet(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())


def spreads(features: Tensor) -> list[float]:
    """Squared distances (n) to the mean of a set (n, D); their mean is the total variance."""
    apart = (features.double() - features.double().mean(0)).square().sum(1)
    found: list[float] = (apart * len(apart) / (len(apart) - 1)).tolist()
    return found


def nearest(features: Tensor, reference: Tensor) -> list[float]:
    """The distance of each of a set (n, D) to its nearest in a reference (m, D)."""
    import torch

    found: list[float] = torch.cdist(features.double(), reference.double()).min(1).values.tolist()
    return found


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, for each place of both paths, held against the second pictures of all pairs."""
    import torch

    for model in dict.fromkeys(cell["model"] for cell in cells):
        some = [cell for cell in cells if cell["model"] == model and cell["probed"]]
        if len(some) < 3:
            continue
        reference = torch.stack([unpacked(cell["probed"]["reference"]) for cell in some])
        for origin, place in ((origin, place) for origin in ORIGINS for place in PLACES):
            found = [cell["probed"][f"{origin} {place}"] for cell in some]
            features = torch.stack([unpacked(each["features"]) for each in found])
            columns = {"fd": frechet_values(features, reference), "spread": spreads(features)}
            columns |= {"nearest": nearest(features, reference), "sharpness": [each["sharpness"] for each in found]}
            for k, cell in enumerate(some):
                about = {"model": model, "unit": cell["item"], "origin": origin, "place": place}
                yield about | {name: column[k] for name, column in columns.items()}


def figure(rows: Sequence[Row]) -> Figure:
    """The Frechet distance along both paths, a panel a model; the second half is the first one mirrored."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    drawn, axes = panels(len(models))
    for axis, model in zip(axes, models, strict=True):
        for k, origin in enumerate(ORIGINS):
            at = {p: [r["fd"] for r in rows if _is(r, model, origin, p)] for p in PLACES}
            places = [*PLACES, *(1 - p for p in reversed(PLACES[:-1]))]
            found = [at[min(p, 1 - p)] for p in places]
            means = [sum(v) / len(v) for v in found]
            errors = [_error(v) for v in found]
            axis.errorbar(places, means, errors, fmt="o-", color=colour(k), label=f"from {origin}s", markersize=3)
        axis.axhline(0, color="#999999", linewidth=0.6)
        axis.set_title(short(model), fontsize=9)
        axis.set_xlabel("place on the path", fontsize=8)
    axes[0].set_ylabel("Frechet distance", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return drawn


def _is(row: Row, model: str, origin: str, place: float) -> bool:
    return (row["model"], row["origin"], row["place"]) == (model, origin, place)


def _error(values: Sequence[float]) -> float:
    """The standard error of their mean."""
    from statistics import stdev

    return float(stdev(values) / len(values) ** 0.5) if len(values) > 1 else 0.0


STUDY = Study(
    name="taba_interpolation",
    question="Are pictures between two latents of DDIM inversion worse, and less varied, than between two noises?",
    paper=TABA,
    shows="Fig. 5",
    models=(SD, TRAILING, DDPM, MIXTURE),
    num_samples=32,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: asked.steps * (2 + len(ORIGINS) * len(PLACES) - 1),
    minutes=2.0,
    published="unsample study taba_interpolation --model google/ddpm-cifar10-32 --num-samples 10000 --steps 50",
    about=(
        "A pair is two pictures of one prompt, where the model takes prompts. The path is the spherical interpolation "
        "of the paper's Eq. 6, one angle a picture.",
        "The Frechet distance is taken over the bundled CLIP's features, to as many pictures that the model itself "
        "makes from noise (the second ones of the pairs), where the paper has Inception features and the training set: "
        "in the reference's 16 principal components and in units of its total variance there, as the jackknife's "
        "values, one a picture, whose mean is corrected for the small sets; so it may lie a little below 0.",
        "spread is the squared distance of a picture's features to the mean of its set (in place of the paper's "
        "recall), nearest the distance to the nearest of the reference.",
    ),
)
