"""Section 4.2.3 of Zeng et al.: what an inversion costs, in passes and in time, by their methods and by ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.models.minis import minis
from unsample.studies.base import DDPM, ZENG, Asked, Cells, Row, Study
from unsample.studies.zeng import PLAIN, called

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unsample.experiment.findings import Findings

NAME = "zeng_cost"
TIMED = (*PLAIN, "uni_inv", "fixed_point[num_iters=2,start=previous]", "aidi_a[num_iters=2,start=previous]", "hybrid")
QUICK = "hybrid[num_updates=5,num_iters=2]"
PUBLISHED = {"ddim": 1.5, "pix2pix_zero": 3.3, "aidi": 15.0, "renoise": 32.0, "hybrid": 76.0}  # seconds, A6000


def models() -> tuple[str, ...]:
    """A network on pixels, as in the paper, and a small one."""
    return (DDPM, *minis()[:1])


def plans(asked: Asked) -> list[dict[str, Any]]:
    """One plain inversion a picture; all methods are timed beside it, so that times are of one run."""
    methods = list(TIMED)
    if asked.quick:
        methods = [*(method.replace("=10", "=2").replace("=9", "=1") for method in TIMED[:-1]), QUICK]
    given = {"datasets": {"recovered": asked.generated}, "metrics": ["e_latent"]}
    return [asked.plan(methods=["ddim"], probe=NAME, probe_settings={"methods": methods}, **given)]


def probe(found: Findings, settings: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Every method on every picture alone, as the paper times it: passes, backward passes, seconds, E_latent."""
    import unsample
    from unsample.bench.entries import methods_of
    from unsample.bench.plan import make_plan
    from unsample.methods import get_method
    from unsample.metrics.recovery import mse

    assert found.start is not None
    assert found.true_noise is not None
    model = getattr(found.model, "bare", found.model)  # answers that are remembered take no time
    plan = make_plan({"dataset": "generated:1", "methods": list(settings["methods"]), "steps": [found.setup.steps]})
    prompts, told = found.prompts(), []
    for k in range(len(found.items)):
        row: dict[str, Any] = {}
        for named in methods_of(plan):
            made = unsample.invert(
                model,
                latents=found.start[k : k + 1],
                prompt=None if prompts is None else prompts[k : k + 1],
                method=get_method(named.name, dict(named.settings)),
                num_inference_steps=found.setup.steps,
                generator=0,
                progress=False,
            )
            error = float(mse(made.noise.cpu(), found.true_noise[k : k + 1].cpu())[0])
            row[named.label] = [made.nfe[0], made.backward[0], made.seconds, error]
        told.append(row)
    return told


def name(label: str) -> str:
    """A method in rows: the paper's by their names, ours by their settings."""
    return label.replace(",start=previous", ", previous") if "start=" in label else called(label)


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and method: passes and seconds, and both over those of DDIM inversion of the same picture."""
    for cell in cells:
        found = cell["probed"] or {}
        if not found:
            continue
        passes, _, seconds, _ = found["ddim"]
        for label, (nfe, backward, taken, error) in found.items():
            about = {"model": cell["model"], "unit": cell["item"], "method": name(label), "passes": nfe}
            about |= {"backward": backward, "seconds": taken, "passes_ratio": (nfe + backward) / passes}
            yield about | {"seconds_ratio": taken / seconds, "e_latent": error} | _published(name(label))


def _published(method: str) -> dict[str, float | None]:
    given = PUBLISHED.get(method)
    return {"published_ratio": None if given is None else given / PUBLISHED["ddim"]}


def figure(rows: Sequence[Row]) -> Figure:
    """Time over that of DDIM inversion: ours, the paper's, and passes; a panel a model."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    drawn, axes = panels(len(models), columns=2, width=4.6, height=2.9, sharey=True)
    for axis, model in zip(axes, models, strict=True):
        own = [row for row in rows if row["model"] == model]
        methods = list(dict.fromkeys(row["method"] for row in own))
        for k, (value, label) in enumerate(
            (("seconds_ratio", "time"), ("passes_ratio", "passes, both ways"), ("published_ratio", "time, published"))
        ):
            found = {m: [r[value] for r in own if r["method"] == m and r[value] is not None] for m in methods}
            places = [(-n, sum(v) / len(v)) for n, v in enumerate(found.values()) if v]
            axis.plot([x for _, x in places], [y for y, _ in places], "osv"[k], color=colour(k), ms=5, label=label)
        axis.set_yticks([-n for n in range(len(methods))], methods)
        axis.set_xscale("log")
        axis.set_xlabel("over DDIM inversion", fontsize=8)
        axis.set_title(short(model), fontsize=9)
        axis.grid(alpha=0.3)
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return drawn


STUDY = Study(
    name=NAME,
    question="What does each inversion cost?",
    paper=ZENG,
    shows="Section 4.2.3",
    models=models,
    num_samples=2,
    steps=50,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    one_by_one=True,
    probe_passes=lambda asked: sum((1, 1, 10, 10, 1, 2, 2)) * asked.steps + 1000 + 10 * asked.steps,
    minutes=2.2,
    published=f"unsample study {NAME} --model google/ddpm-celebahq-256 --num-samples 4",
    about=(
        "Seconds are of the machine that ran it, one picture at a time; what is compared is their ratio within one "
        "run. passes_ratio counts passes forward and back. The hybrid runs the paper's 1,000 updates here.",
    ),
)
