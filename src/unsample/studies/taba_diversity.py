"""Table 7 of TABA: pictures of another prompt, from the noise of a picture and from the latent that inversion finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.models.variants import parted
from unsample.studies.base import MIXTURE, SD, TABA, TRAILING, Asked, Cells, Row, Study
from unsample.studies.means import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.datasets.item import Item
    from unsample.experiment.findings import Findings

ORIGINS = ("noise", "latent", "fresh")
COLUMNS = ("ssim", "distance", "clip_image", "clip_target", "clip_source", "change_plain", "change_textured")
FURTHER = 10**7  # from a picture's seed to that of its target prompt, and of the fresh noise


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Pictures that the model made, inverted under their own prompts."""
    found = []
    for known in (False, True):  # the mixture draws of the captions that it knows alone
        own = replace(asked, models=tuple(m for m in asked.models if (parted(m)[0] == MIXTURE) is known))
        data = {"recovered": own.generated + (",mixture" if known else "")}
        given = {"methods": ["ddim"], "metrics": ["e_latent"], "datasets": data}
        found += [own.plan(**given, probe="taba_diversity")] if own.models else []
    return found


def target_of(item: Item, model: str) -> str:
    """A prompt that has nothing to do with the item's own, and that the model knows."""
    from unsample.datasets.rendered import mixture_scenes
    from unsample.datasets.scenes import draw_scene

    seed = (item.seed or 0) + FURTHER
    if model != MIXTURE:
        return draw_scene(seed).caption
    scenes = mixture_scenes()
    return scenes[seed * 37 % len(scenes)].caption


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pictures of the target prompts from three origins, held against the sources and both prompts."""
    import unsample
    from unsample.experiment.findings import seeded
    from unsample.metrics.clip import load
    from unsample.metrics.subject import Settings

    assert found.sampled is not None
    targets = [target_of(item, found.model.id) for item in found.items]
    fresh = seeded([(item.seed or 0) + FURTHER for item in found.items])
    starts: dict[str, dict[str, Any]] = {"noise": {"noise": found.sampled.noise}, "latent": {"noise": found.noise}}
    starts["fresh"] = {"generator": fresh}
    clip, told = load(Settings(clip=found.setup.clip_model)), [dict[str, Any]() for _ in found.items]
    texts = [clip.texts(prompts) for prompts in (targets, found.prompts() or [])]
    for origin, start in starts.items():
        common: dict[str, Any] = {"num_inference_steps": found.setup.steps, "progress": found.progress}
        pictures = unsample.sample(found.model, targets, **start, **common).images.cpu()
        columns = compared(pictures, found.source)
        columns["clip_image"] = _cosines(clip.images(pictures), clip.images(found.source))
        columns["clip_target"], columns["clip_source"] = (_cosines(clip.images(pictures), text) for text in texts)
        for k, each in enumerate(told):
            each[origin] = {name: column[k] for name, column in columns.items()}
    return told


def compared(pictures: Tensor, sources: Tensor) -> dict[str, list[float | None]]:
    """SSIM, root mean square distance, and the mean absolute change in the source's plain and textured areas."""
    from unsample.metrics.pixels import ssim
    from unsample.studies.areas import mean_by_area, plain_by_threshold

    apart = pictures.double() - sources.double()
    changes = mean_by_area(apart.abs(), plain_by_threshold(sources))
    columns: dict[str, list[float | None]] = {"ssim": ssim(pictures, sources)}
    columns["distance"] = apart.square().flatten(1).mean(1).sqrt().tolist()
    return columns | {f"change_{area}": [each[area] for each in changes] for area in ("plain", "textured")}


def _cosines(a: Tensor, b: Tensor) -> list[float | None]:
    from torch.nn.functional import cosine_similarity

    found: list[float | None] = cosine_similarity(a.double(), b.double()).tolist()
    return found


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and origin."""
    for cell in cells:
        for origin, found in cell["probed"].items():
            yield {"model": cell["model"], "unit": cell["item"], "origin": origin} | {c: found[c] for c in COLUMNS}


def figure(rows: Sequence[Row]) -> Figure:
    """What pictures of another prompt keep of the source, and how they follow both prompts; a bar an origin."""
    from unsample.studies.plotting import colour, models_of, panels, short

    titles = {
        "ssim": "SSIM to the source",
        "distance": "RMS distance to the source",
        "clip_image": "CLIP to the source",
    }
    titles |= {"clip_target": "CLIP to the target prompt", "clip_source": "CLIP to the source prompt"}
    titles |= {"change_plain": "change where plain", "change_textured": "change where textured"}
    models = models_of(rows)
    drawn, axes = panels(len(titles))
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for k, origin in enumerate(ORIGINS):
            means = [mean(rows, column, model=model, origin=origin) for model in models]
            found = [math.nan if each is None else each for each in means]
            axis.bar(
                [m + 0.27 * (k - 1) for m in range(len(models))], found, 0.25, color=colour(k), label=f"from {origin}"
            )
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(models)), [short(m) for m in models])
    drawn.legend(*axes[0].get_legend_handles_labels(), fontsize=7, frameon=False, ncols=3, loc="outside upper left")
    return drawn


STUDY = Study(
    name="taba_diversity",
    question="Do pictures of another prompt keep more of the source, and follow their prompt less, from latents?",
    paper=TABA,
    shows="Table 7",
    models=(SD, TRAILING, MIXTURE),
    num_samples=40,
    steps=25,
    needs=("prompt",),
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: len(ORIGINS) * asked.steps,
    minutes=1.2,
    published="unsample study taba_diversity --model DeepFloyd/IF-I-XL-v1.0 --num-samples 10000 --steps 50",
    about=(
        "Every picture is sampled and inverted under its own prompt, and sampled again under that of an unrelated "
        "scene at guidance 1: from its true noise, from its latent, and from fresh noise (the control: what a picture "
        "of that prompt has in common with the source anyway).",
        "SSIM, the distance in pixels and cosines of the bundled CLIP stand for the paper's DreamSim, LPIPS, SSIM, "
        "DINO and CLIP, whose weights are not bundled.",
        "Changes are mean absolute ones in the source's plain and textured areas, by the paper's threshold.",
    ),
)
