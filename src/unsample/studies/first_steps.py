"""What the two studies of the first inversion steps look at (TABA, Sec. 5 and App. F): latents, interpolations, edits.

TABA takes the largest correlations across thousands of pictures at one place. Here all 8x8 patches of all pictures are
samples of the same numbers, so that a few pictures tell; true noise, which stands beside, has a floor all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.studies.base import Asked, Cells, Row, is_cheap, packed, unpacked
from unsample.studies.means import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

PARTNERS = 2  # fixed pictures of the model, to which half of the way is gone
NOISE = "noise"  # the level of the true noise itself


def top_correlation(latents: Tensor, side: int = 8, most: int = 20) -> float | None:
    """The mean of the 20 largest absolute correlations within a patch, with all patches of (N, C, H, W) as samples.

    None where a number of the patch does not vary, or fewer than three patches are there.
    """
    import torch

    side = min(side, *latents.shape[2:])
    patches = latents.double().unfold(2, side, side).unfold(3, side, side)  # (N, C, h, w, side, side)
    samples = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)  # (N h w, C side side)
    if len(samples) < 3 or bool((samples.std(0) == 0).any()):
        return None
    found = torch.corrcoef(samples.T).abs()
    pairs = torch.triu_indices(len(found), len(found), offset=1)
    values = found[pairs[0], pairs[1]]
    return float(values.topk(min(most, len(values))).values.mean())


def jackknifed(latents: Tensor, statistic: Callable[[Tensor], float | None]) -> list[float | None]:
    """A statistic of the whole as a value a picture: N s - (N - 1) s without that picture; their mean is unbiased."""
    import torch

    count, whole = len(latents), statistic(latents)
    without = [statistic(latents[torch.arange(count) != k]) for k in range(count)] if count > 1 else [None]
    return [None if whole is None or one is None else count * whole - (count - 1) * one for one in without]


def latent_figures(noise: Tensor) -> list[dict[str, Any]]:
    """Of each picture's latent alone: its KL divergence to N(0, 1) and its absolute correlation of neighbours."""
    from unsample.numbers.health import health

    told = health(noise)
    return [{"kl": row["kl"], "neighbours": None if (r := row["lag1_correlation"]) is None else abs(r)} for row in told]


def sharpness(pictures: Tensor) -> list[float]:
    """The mean absolute difference of neighbouring pixels, a picture."""
    down, right = (pictures.double().diff(dim=d).abs().flatten(1).mean(1) for d in (2, 3))
    return [float(value) for value in (down + right) / 2]


def mean_absolute(a: Tensor, b: Tensor) -> list[float]:
    """TABA's error: the mean absolute difference, a picture."""
    return [float(value) for value in (a.double() - b.double()).abs().flatten(1).mean(1)]


def halfway(found: Findings) -> list[dict[str, float]]:
    """Pictures half way (slerp) from each picture to one of two partners: from latents, against those from noises."""
    import unsample
    from unsample.datasets.scenes import SEED_RANGES, draw_scene
    from unsample.experiment.findings import item_seeds, seeded
    from unsample.numbers.slerp import slerp

    assert found.inversion is not None
    assert found.true_noise is not None
    model, setup = found.model, found.setup
    numbers = [SEED_RANGES["tune"][0] + k for k in range(PARTNERS)]
    prompts = [draw_scene(number).caption for number in numbers] if model.takes_prompt else None
    walk: dict[str, Any] = {"num_inference_steps": setup.steps, "progress": False}
    made = unsample.sample(model, prompts, generator=seeded(numbers), keep_trajectory=True, **walk)
    seeds = seeded(item_seeds(setup.seed, [str(number) for number in numbers]))
    given = walk | {"trajectory": made.trajectory, "generator": seeds}
    partner = unsample.invert(model, latents=made.latents, prompt=prompts, method=setup.method, **given)
    whose = [(item.seed or 0) % PARTNERS for item in found.items]
    own = found.prompts()

    def between(ends: Tensor, others: Tensor) -> Tensor:
        pictures = unsample.sample(model, own, noise=slerp(ends, others[whose].to(ends), 0.5), **walk).images
        return pictures.cpu()

    of_latents = between(found.inversion.noise, partner.noise)
    of_noises = between(found.true_noise, made.noise)
    columns = mean_absolute(of_latents, of_noises), sharpness(of_latents), sharpness(of_noises)
    return [
        {"interpolation_mae": far, "interpolation_sharpness": 0.0 if not true else sharp / true}
        for far, sharp, true in zip(*columns, strict=True)
    ]


def edits(found: Findings) -> list[dict[str, float | None]]:
    """Pictures of the target prompts from latents and from the true noises: how far from their sources, and aligned."""
    import unsample
    from unsample.metrics import Subject, measure

    assert found.inversion is not None
    model, sources = found.model, [item.prompt or "" for item in found.items]
    targets = [item.target_prompt or "" for item in found.items]
    given: dict[str, Any] = {"num_inference_steps": found.setup.steps, "progress": False}

    def of(noise: Tensor) -> tuple[Tensor, dict[str, list[float | None]]]:
        made = unsample.sample(model, targets, noise=noise, **given).images.cpu()
        told = measure(["ssim", "clip_image"], Subject(images=made, reference=found.source))
        columns = {name: list(told[name].values) for name in ("ssim", "clip_image")}
        for name, prompts in (("clip_source", sources), ("clip_target", targets)):
            columns[name] = list(measure(["clip_text"], Subject(images=made, prompts=prompts))["clip_text"].values)
        return made, columns

    (mine, of_latent), (true, of_noise) = of(found.inversion.noise), of(found.true_noise)  # type: ignore[arg-type]
    apart = mean_absolute(mine, true)
    return [
        {"edit_mae": apart[k]}
        | {f"edit_{name}": column[k] for name, column in of_latent.items()}
        | {f"edit_{name}_noise": column[k] for name, column in of_noise.items()}
        for k in range(len(found.items))
    ]


def levels_of(shares: Sequence[float], steps: int) -> dict[str, int]:
    """The levels by their name, `10 %`, and how many of the first steps each replaces: none, or at least one."""
    return {f"{100 * share:g} %": max(1, round(share * steps)) if share else 0 for share in shares}


def plans_of_levels(asked: Asked, study: str, methods: Sequence[str]) -> list[dict[str, Any]]:
    """The methods on all models; interpolations on the quick ones; on the others three quarters of the pictures."""
    quick = [m for m in asked.models if is_cheap(m)]
    larger = [m for m in asked.models if m not in quick]
    fewer = replace(asked, num_samples=max(1, asked.num_samples * 3 // 4))
    found = []
    for models, some in ((quick, asked), (larger, fewer)):
        looks = {"probe": study, "probe_settings": {"halfway": models is quick, "edits": True}}
        looks |= {"metrics": ["e_recon"], "datasets": {"recovered": some.generated}}
        found += [asked.plan(models=models, methods=list(methods), **looks)] if models else []
    return found


def looked_at(found: Findings, settings: Mapping[str, Any], replaced: int) -> list[dict[str, Any]]:
    """Of each picture: its latent and true noise, errors, what is half way (`halfway`), edits (`edits`)."""
    assert found.inversion is not None
    assert found.true_noise is not None
    noise, true, played = found.inversion.noise, found.true_noise, found.latents("noise")
    columns: dict[str, list[Any]] = {"noise_mae": mean_absolute(noise, true)}
    columns |= {"latent": [packed(one) for one in noise], "true": [packed(one) for one in true]}
    if played is not None and found.start is not None:
        columns["image_mae"] = mean_absolute(played, found.start)
    rows: list[dict[str, Any]] = [{name: column[n] for name, column in columns.items()} for n in range(len(noise))]
    more = [latent_figures(noise), [{f"{k}_noise": v for k, v in told.items()} for told in latent_figures(true)]]
    more += [halfway(found)] if settings.get("halfway") else []
    more += [edits(found)] if settings.get("edits") and found.model.takes_prompt else []
    for looked in more:
        rows = [row | told for row, told in zip(rows, looked, strict=True)]
    level = {"k": replaced, "sigma": found.inversion.meta["grid"]["sigma"][replaced]}
    return [row | level for row in rows]


def rows_by_level(cells: Cells, shares: Sequence[float], steps: int, names: Sequence[str]) -> Iterator[Row]:
    """A row a picture and level, and of the true noise; `correlation` is that picture's part of the whole's."""
    import torch

    levels = levels_of(shares, steps)
    for model in dict.fromkeys(str(cell["model"]) for cell in cells):
        of_model = [c for c in cells if c["model"] == model and c["status"] == "ok" and c.get("probed")]
        for level, k in {**levels, NOISE: 0}.items():
            here = [cell for cell in of_model if cell["probed"]["k"] == k]
            if not here:
                continue
            noises = [unpacked(cell["probed"]["true" if level == NOISE else "latent"]) for cell in here]
            parts = jackknifed(torch.stack(noises), top_correlation)
            for cell, part in zip(here, parts, strict=True):
                told = cell["probed"]
                values = {name: _of_noise(told, name) if level == NOISE else told.get(name) for name in names}
                about = {"model": model, "unit": cell["item"], "replaced": level, "k": steps if level == NOISE else k}
                yield about | {"correlation": part} | values


def _of_noise(told: Mapping[str, Any], name: str) -> float | None:
    """What the true noise has in a column: its own value, else that of no error."""
    if name not in told:
        return None
    known = {"interpolation_sharpness": 1.0, "picture_ssim": 1.0, "sigma": None}
    return told.get(f"{name}_noise", known.get(name, 0.0))


def curves(rows: Sequence[Row], names: Mapping[str, str]) -> Figure:
    """The mean of each column (its label) by level, as a share of that without replacement, a panel a model."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    levels = list(dict.fromkeys(str(row["replaced"]) for row in rows))
    figure, axes = panels(len(models), sharey=True, width=3.2, height=2.6)
    for axis, model in zip(axes, models, strict=True):
        for number, (name, label) in enumerate(names.items()):
            means = [mean(rows, name, model=model, replaced=at) for at in levels]
            if means[0]:
                shares = [each / means[0] if each else float("nan") for each in means]
                axis.plot(levels, shares, marker="o", markersize=3, color=colour(number), label=label)
        axis.axhline(1, color="#999999", linewidth=0.6)
        axis.set_yscale("log")
        axis.set_ylim(0.02, 30)
        axis.set_title(short(model), fontsize=9)
        axis.tick_params(axis="x", labelsize=7)
    axes[0].set_ylabel("relative to none replaced", fontsize=8)
    drawn = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes]
    handles = {label: handle for each in drawn for handle, label in each}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=len(names) if len(models) > 2 else 3,
        fontsize=8,
    )
    return figure
