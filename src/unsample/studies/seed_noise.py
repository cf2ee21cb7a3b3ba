"""What a recovered noise knows of its picture: the attributes of a scene, sampled again from the noise, and judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import DDPM, OURS, SD, Asked, Cells, Row, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.datasets.scenes import Scene
    from unsample.experiment.findings import Findings

METHODS = (
    *("ddim", "fixed_point[num_iters=5]", "forward_first[fraction=0.1]", "forward_first[fraction=0.3]"),
    "random_noise",
)
SOURCE = "the picture itself"
OWN, NONE = "own", "none"  # the prompt under which the noise is sampled from


def plans(asked: Asked) -> list[dict[str, Any]]:
    """The methods on scenes whose attributes are known; pictures from the noise alone."""
    data = {"noise": asked.scenes}
    return [asked.plan(methods=list(METHODS), datasets=data, metrics=["ssim"], probe="seed_noise")]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whether each attribute of the scene is seen in the source, and in what is sampled with and without its prompt."""
    import unsample

    scenes = [item.scene for item in found.items if item.scene is not None]
    assert not isinstance(found.setup.method, str)
    told = {SOURCE: judged(found.source, scenes)} if found.setup.method.name == METHODS[0] else {}
    if "noise" in found.made:
        prompted = OWN if found.model.takes_prompt else NONE
        told[prompted] = judged(found.made["noise"].images.cpu(), scenes)
        if prompted == OWN:
            noise, blank = found.made["noise"].noise, [""] * len(scenes)
            made = unsample.sample(
                found.model, blank, noise=noise, num_inference_steps=found.setup.steps, progress=False
            )
            told[NONE] = judged(made.images.cpu(), scenes)
    return [{prompt: each[n] for prompt, each in told.items()} for n in range(len(scenes))]


def judged(pictures: Tensor, scenes: Sequence[Scene]) -> list[dict[str, dict[str, float]]]:
    """For each picture and attribute, 1 where a judge sees the scene's value: by drawing it again, and by CLIP."""
    from unsample.datasets.scenes import ATTRIBUTES
    from unsample.metrics import Settings, clip
    from unsample.metrics.judges import clip_attribute, fit_attribute

    reader = clip.load(Settings())
    found: list[dict[str, dict[str, float]]] = [{} for _ in scenes]
    for name in ATTRIBUTES:
        answers = {
            "render": fit_attribute(pictures, scenes, name),
            "clip": clip_attribute((reader.model, reader.tokenizer), pictures, scenes, name),
        }
        for n, scene in enumerate(scenes):
            found[n][name] = {judge: float(said[n] == getattr(scene, name)) for judge, said in answers.items()}
    return found


def rows(cells: Cells, asked: Asked) -> Iterator[Row]:
    """A row a picture, method, prompt and attribute."""
    for cell in cells:
        about = {"model": cell["model"], "unit": cell["item"]}
        for prompt, attributes in (cell.get("probed") or {}).items():
            source = prompt == SOURCE
            which = {"method": SOURCE if source else _named(cell), "prompt": NONE if source else prompt}
            for attribute, seen in attributes.items():
                both = (seen["render"] + seen["clip"]) / 2
                yield about | which | {"attribute": attribute, "kept": both} | seen


def _named(cell: Mapping[str, Any]) -> str:
    share = cell["settings"].get("fraction")
    return f"{cell['method_name']} {100 * share:g} %" if share else str(cell["method_name"])


def figure(rows: Sequence[Row]) -> Figure:
    """The share of pictures that keep each attribute, a panel a model and prompt."""
    from unsample.datasets.scenes import ATTRIBUTES
    from unsample.studies.plotting import models_of, panels, short

    which = [(m, p) for m in models_of(rows) for p in (OWN, NONE) if any(_fits(r, m, p) for r in rows)]
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    figure, axes = panels(len(which), columns=2, width=4.6, height=3.0, sharey=True)
    for axis, (model, prompt) in zip(axes, which, strict=True):
        shown = [[_share(rows, model, prompt, method, name) for name in ATTRIBUTES] for method in methods]
        axis.imshow(shown, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        for y, line in enumerate(shown):
            for x, share in enumerate(line):
                colour = "white" if share < 0.6 else "black"
                axis.text(
                    x, y, "" if share != share else f"{share:.2f}", ha="center", va="center", fontsize=7, color=colour
                )
        axis.set_xticks(range(len(ATTRIBUTES)), [name.replace("_", "\n") for name in ATTRIBUTES], fontsize=6.5)
        axis.set_yticks(range(len(methods)), methods, fontsize=7)
        axis.set_title(f"{short(model)}, {'its own prompt' if prompt == OWN else 'no prompt'}", fontsize=9)
    return figure


def _fits(row: Row, model: str, prompt: str) -> bool:
    return bool(row["model"] == model and row["prompt"] == prompt and row["method"] != SOURCE)


def _share(rows: Sequence[Row], model: str, prompt: str, method: str, attribute: str) -> float:
    wanted = {"model": model, "method": method, "attribute": attribute} | (
        {} if method == SOURCE else {"prompt": prompt}
    )
    kept = [float(row["kept"]) for row in rows if all(row[key] == value for key, value in wanted.items())]
    return sum(kept) / len(kept) if kept else float("nan")


STUDY = Study(
    name="seed_noise",
    question="Does the recovered noise alone give the attributes of the picture back?",
    paper=OURS,
    shows="attributes from the noise",
    models=(DDPM, SD),
    num_samples=12,
    steps=25,
    needs=("scenes",),
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: len(METHODS) * asked.steps,
    minutes=1.2,
    about=(
        "Scenes that no model has seen are inverted and sampled again from the noise alone, by plain DDIM; two "
        "unrelated judges name each attribute (`render`: what is drawn again comes closest; `clip`: zero-shot choice), "
        "and `kept` is the mean of both. The judges err too: `the picture itself` is what they see in the source.",
        "A model with prompts is sampled twice from the noise that was recovered under the picture's own prompt: with "
        "it, and with an empty one, so that what the noise knows is told from what the prompt knows. `random_noise` is "
        "what is kept of either by fresh noise.",
    ),
)
