"""Reconstruction against recovered noise, for every method: is the better round trip the better noise?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.models.minis import minis
from unsample.studies.base import FLOW, MIXTURE, OURS, TRAILING, Asked, Cells, Row, Study, is_cheap, value
from unsample.studies.running import cells_by

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = (
    *("ddim", "sim_inversion", "fixed_point", "anderson", "uni_inv", "edict", "bdia", "belm", "rex"),
    "edit_friendly[strength=1]",
    *("gradient[preset=quick]", "hybrid[preset=quick]", "gnri", "dpm_solver[preset=quick]", "aidi_e", "aidi_a"),
    *("pix2pix_zero", "renoise", "easyinv", "forward_first"),
)
DEARER = ("gradient[preset=quick]", "hybrid[preset=quick]", "dpm_solver[preset=quick]")  # left out on flow models
OF_FLOW = ("rf_solver", "fireflow", "rf_inversion", "dna_edit[strength=1]")
REFERENCES = ("oracle", "random_noise", "zero")
LEFT_OUT = {  # a method, and why it is not here
    "sdedit": "it stops part way, at a noised picture",
    "learned_start": "its network is taught for one model and one grid at a time",
    **dict.fromkeys(
        ("null_text", "prompt_tuning", "negative_prompt", "proximal", "direct"), "ddim's noise, by a prompt"
    ),
    **dict.fromkeys(("flow_edit", "flow_align", "infedit", "dds"), "it edits without an inversion"),
    **dict.fromkeys(("h_edit", "uni_edit"), "the noise of edit_friendly and of uni_inv, by a prompt"),
}
METRICS = ("e_latent", "e_recon", "e_recon_record", "cosine", "std")


def defaults() -> tuple[str, ...]:
    """One of each kind: the small networks of the first seed."""
    return (MIXTURE, TRAILING, FLOW, *(name for name in minis() if name.endswith("-0")))


def plans(asked: Asked) -> list[dict[str, Any]]:
    """All methods; half the pictures on models that are neither small nor a mixture."""
    from unsample.studies.needing import is_flow

    kinds = {"quick": [m for m in asked.models if is_cheap(m)]}
    kinds["flow"] = [m for m in asked.models if is_flow(m)]
    kinds["larger"] = [m for m in asked.models if m not in kinds["quick"] + kinds["flow"]]
    fewer = replace(asked, num_samples=max(1, asked.num_samples // 2))
    found = []
    for kind, models in kinds.items():
        methods = [m for m in METHODS if kind != "flow" or m not in DEARER] + (list(OF_FLOW) if kind == "flow" else [])
        data = {"recovered": (asked if kind == "quick" else fewer).generated}
        given = {"methods": [*methods, *REFERENCES], "metrics": list(METRICS), "datasets": data}
        found += [asked.plan(models=models, **given)] if models else []
    return found


def rows(cells: Cells, asked: Asked) -> Iterator[Row]:
    """A row a picture and method; and a row a picture with the rank correlation over methods."""
    for (model, item), of_picture in cells_by(cells, "model", "item"):
        pairs = []
        for cell in of_picture:
            told = {name: value(cell, f"recovered.{name}") for name in METRICS}
            about = {"kind": "picture", "model": model, "unit": item, "method": cell["method_name"]}
            yield about | {"status": cell["status"], "passes": cell["nfe"], "backward": cell["backward"]} | told
            pair = told["e_recon_record"], told["e_latent"]
            if cell["method_name"] not in REFERENCES and None not in pair:
                pairs.append(pair)
        yield {
            "kind": "ranks",
            "model": model,
            "unit": item,
            "method": "all",
            "rank_correlation": rank_correlation([a for a, _ in pairs], [b for _, b in pairs]),
            "methods": len(pairs),
        }


def rank_correlation(a: Sequence[float | None], b: Sequence[float | None]) -> float | None:
    """Spearman's: the correlation of ranks, equal values sharing theirs; None where one does not vary."""
    ranks = [_ranks([float(x) for x in values if x is not None]) for values in (a, b)]
    if not ranks[0]:
        return None
    middle = (len(ranks[0]) + 1) / 2
    p, q = ([rank - middle for rank in each] for each in ranks)
    scale = (sum(x * x for x in p) * sum(y * y for y in q)) ** 0.5
    return sum(x * y for x, y in zip(p, q, strict=True)) / scale if scale else None


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(other < one for other in values) + (sum(other == one for other in values) + 1) / 2 for one in values]


def figure(rows: Sequence[Row]) -> Figure:
    """Median errors of the noise and of the round trip by each method, a panel a model."""
    from statistics import median

    from unsample.studies.plotting import colour, models_of, panels, short

    shown = [row for row in rows if row["kind"] == "picture"]
    models, methods = models_of(shown), list(dict.fromkeys(str(row["method"]) for row in shown))
    figure, axes = panels(len(models), columns=4, width=3.2, height=4.6, sharey=True)
    names = {
        "e_latent": "noise (E_latent)",
        "e_recon_record": "picture, by the record",
        "e_recon": "picture, by the noise",
    }
    for axis, model in zip(axes, models, strict=True):
        for number, (name, label) in enumerate(names.items()):
            found = {m: [r[name] for r in shown if r["model"] == model and r["method"] == m] for m in methods}
            told = {m: median(kept) for m, values in found.items() if (kept := [v for v in values if v is not None])}
            marks = {m: max(v, 1e-16) for m, v in told.items()}
            places = [methods.index(m) for m in marks]
            axis.plot(list(marks.values()), places, "ox+"[number], color=colour(number), markersize=5, label=label)
        axis.set_xscale("log")
        axis.set_yticks(range(len(methods)), methods, fontsize=7)
        axis.grid(axis="y", color="#eeeeee")
        axis.set_title(short(model), fontsize=9)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


STUDY = Study(
    name="roundtrip_vs_noise",
    question="Does the method that brings the picture back better also recover its noise better?",
    paper=OURS,
    shows="every method",
    models=defaults,
    num_samples=8,
    steps=10,
    plans=plans,
    rows=rows,
    figure=figure,
    minutes=1.9,
    about=(
        "The round trip is that of the whole record where a method keeps more than the noise; what the noise alone "
        "gives stands beside it. `gradient`, `hybrid` and `dpm_solver` run by their quick presets, all else by its "
        "defaults. The rank correlation (Spearman) is over all methods but the references oracle, random_noise and "
        "zero: 1 where the order of methods by round trip is their order by recovered noise.",
        "Left out are methods that stop part way, edit without an inversion, or are another's noise with a prompt.",
    ),
)
