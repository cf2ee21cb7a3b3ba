"""Fig. 5 of TABA: pictures along a path between two noises, and between the latents that DDIM inversion finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.asking import prompts_of
from unsample.studies.base import DDPM, MIXTURE, SD, TABA, TRAILING, Asked, Cells, Row, Study, packed, unpacked

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

PLACES = (0.0, 0.25, 0.5)  # of the path; the other half mirrors it, as both ends are drawn alike
ORIGINS = ("noise", "latent")
SPLITS = 8
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
    prompts = prompts_of(found)
    common: dict[str, Any] = {"num_inference_steps": found.setup.steps, "progress": found.progress}
    seeds = [(item.seed or 0) + PARTNER for item in found.items]
    other = unsample.sample(found.model, prompts, generator=seeded(seeds), **common)
    inverted = unsample.invert(found.model, latents=other.latents, prompt=prompts, **common)
    ends = {"noise": (found.sampled.noise, other.noise), "latent": (found.noise, inverted.noise)}
    told: list[dict[str, Any]] = [{} for _ in found.items]
    for origin, place in ((origin, place) for origin in ORIGINS for place in PLACES):
        if (origin, place) == ("noise", 0.0):
            pictures = found.source
        else:
            one, two = (end.to(found.model.device) for end in ends[origin])
            start = slerp(one, two, place)
            pictures = unsample.sample(found.model, prompts, noise=start, **common).images.cpu()
        features = extract(pictures, Settings(clip=found.setup.clip_model))
        for k, each in enumerate(told):
            about = {"features": packed(features[k]), "sharpness": float(sharpness(pictures[k : k + 1]))}
            each[f"{origin} {place}"] = about
    return told


def sharpness(pictures: Tensor) -> Tensor:
    """The mean absolute difference of neighbours (B,), of pictures (B, C, H, W)."""
    across, down = pictures.diff(dim=3).abs(), pictures.diff(dim=2).abs()
    return (across.flatten(1).mean(1) + down.flatten(1).mean(1)) / 2


def distances(features: Tensor, reference: Tensor) -> dict[str, float]:
    """Of a set (n, D) from a reference (m, D): the Frechet distance, and `spread`, the total variance of the set."""
    from unsample.metrics.distributions import frechet
    from unsample.metrics.moments import Moments

    a, b = Moments(), Moments()
    a.add(features)
    b.add(reference)
    assert a.mean is not None
    assert b.mean is not None
    covariance = a.covariance()
    return {"fd": frechet(a.mean, covariance, b.mean, b.covariance()), "spread": float(covariance.trace())}


def nearest(features: Tensor, reference: Tensor) -> list[float]:
    """The distance of each of a set (n, D) to its nearest in a reference (m, D)."""
    import torch

    return torch.cdist(features.double(), reference.double()).min(1).values.tolist()


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a split of pictures, and a row a picture, for each place of both paths.

    What a split is held against are the pictures from noise (place 0) of all other splits.
    """
    import torch

    for model in dict.fromkeys(cell["model"] for cell in cells):
        some = [cell for cell in cells if cell["model"] == model and cell["probed"]]
        count = min(SPLITS, len(some) // 2)
        if count < 2:
            continue
        split_of = [k * count // len(some) for k in range(len(some))]
        for origin, place in ((origin, place) for origin in ORIGINS for place in PLACES):
            about = {"model": model, "origin": origin, "place": place}
            for split in range(count):
                own = [cell for cell, s in zip(some, split_of, strict=True) if s == split]
                others = [cell for cell, s in zip(some, split_of, strict=True) if s != split]
                found = [cell["probed"][f"{origin} {place}"] for cell in own]
                features = torch.stack([unpacked(each["features"]) for each in found])
                reference = torch.stack([unpacked(cell["probed"]["noise 0.0"]["features"]) for cell in others])
                yield about | {"unit": f"split-{split}", "kind": "set"} | distances(features, reference)
                for cell, each, near in zip(own, found, nearest(features, reference), strict=True):
                    more = {"unit": cell["item"], "kind": "picture", "nearest": near, "sharpness": each["sharpness"]}
                    yield about | more


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
        axis.set_ylim(bottom=0)
        axis.set_title(short(model), fontsize=9)
        axis.set_xlabel("place on the path", fontsize=8)
    axes[0].set_ylabel("Frechet distance", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    return drawn


def _is(row: Row, model: str, origin: str, place: float) -> bool:
    return row["kind"] == "set" and (row["model"], row["origin"], row["place"]) == (model, origin, place)


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
    num_samples=40,
    steps=20,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: asked.steps * (2 + len(ORIGINS) * len(PLACES) - 1),
    published="unsample study taba_interpolation --model google/ddpm-cifar10-32 --num-samples 10000 --steps 50",
    about=(
        "A pair is two pictures of one prompt, where the model takes prompts. The path is the spherical interpolation "
        "of the paper's Eq. 6, one angle a picture.",
        "The Frechet distance is taken over the bundled CLIP's features, from eight splits of the pictures to those "
        "that the model itself makes from noise (of the other splits), where the paper has Inception features and the "
        "training set. It is biased by the size of a split, which is the same everywhere: only compare within a model.",
        "spread is the total variance of a split's features (in place of the paper's recall), nearest the distance of "
        "a picture's features to their nearest neighbour in the same reference.",
    ),
)
