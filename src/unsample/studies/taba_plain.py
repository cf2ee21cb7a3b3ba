"""Table 5 of TABA: error and deviation of DDIM latents in plain and textured areas, and what a contrast does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.areas import AREAS, deviation_by_area, in_cells, mean_by_area, plain_of, plain_of_scenes, share_of
from unsample.studies.asking import asking
from unsample.studies.base import DDPM, FLOW, MIXTURE, SD, TABA, Asked, Cells, Row, Study, nature
from unsample.studies.means import mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.datasets.scenes import Scene
    from unsample.experiment.findings import Findings
    from unsample.numbers.grid import Grid

CONTRASTS = (0.0, 0.15, 0.25, 0.35, 0.45)  # of one part of a scene; 0 is a plain one
LEVEL = 0.7  # sigma up to which a drawn scene is noised: it is still that scene when the noise is taken away
PARTS = ("varied", "other")
DRAWN, REDRAWN = (
    (SD, DDPM, FLOW),
    2,
)  # models that know drawn scenes of any contrast; one of so many pictures is redrawn


def plans(asked: Asked) -> list[dict[str, Any]]:
    """Pictures that the model made, inverted; and drawn scenes at five contrasts, of which it makes pictures."""
    given = {"datasets": {"recovered": asked.generated}, "metrics": ["e_latent"]}
    found = [asked.plan(**given, methods=["ddim"], probe="taba_plain", probe_settings={"of": "generated"})]
    if models := _drawn(asked):
        few = Asked(models=models, num_samples=_few(asked), steps=asked.steps, seed=asked.seed, quick=asked.quick)
        given = {"datasets": {"recovered": few.scenes}, "metrics": ["std"], "methods": ["random_noise"]}
        found.append(few.plan(**given, probe="taba_plain", probe_settings={"of": "redrawn"}))
    return found


def _drawn(asked: Asked) -> tuple[str, ...]:
    return tuple(model for model in asked.models if model.split("[")[0] in DRAWN)


def _few(asked: Asked) -> int:
    return max(2, asked.num_samples // REDRAWN)


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Error and deviation by area of each picture."""
    return _redrawn(found) if settings["of"] == "redrawn" else _generated(found)


def _generated(found: Findings) -> list[dict[str, Any]]:
    assert found.true_noise is not None
    assert found.noise is not None
    assert found.start is not None
    true, noise = found.true_noise.cpu(), found.noise.cpu()
    masks = {"threshold": plain_of(found.source, true.shape[1:])}
    if found.model.id == MIXTURE:
        masks["true"] = plain_of_mixture(found.start.cpu(), found.model.means.cpu())
    told = {name: by_mask(noise, true, mask) for name, mask in masks.items()}
    return [{"masks": {name: told[name][k] for name in told}} for k in range(len(true))]


def plain_of_mixture(pictures: Tensor, means: Tensor) -> Tensor:
    """The true mask of pictures of `scenes-mixture` (B, C, H, W): that of the component whose mean is nearest."""
    import torch

    from unsample.datasets.rendered import mixture_scenes

    nearest = torch.cdist(pictures.double().flatten(1), means.double().flatten(1)).argmin(1)
    scenes = mixture_scenes()
    return plain_of_scenes([scenes[k] for k in nearest.tolist()], pictures.shape[-1], pictures.shape[1:])


def by_mask(noise: Tensor, true: Tensor, plain: Tensor) -> list[dict[str, Any]]:
    """Of each picture, by area: mean absolute error of the noise, its deviation, and that of the true noise."""
    columns = {"error": mean_by_area((noise - true).abs(), plain)}
    columns |= {"std": deviation_by_area(noise, plain), "true_std": deviation_by_area(true, plain)}
    return [{name: each[k] for name, each in columns.items()} | {"share": s} for k, s in enumerate(share_of(plain))]


def dosed(scene: Scene, contrast: float) -> tuple[Scene, bool]:
    """The scene with the texture of one part at a contrast and the other part plain; whether that part is the object.

    A part that is plain in the scene gets a texture; which part is varied follows from the scene.
    """
    from unsample.datasets.scenes import TEXTURES

    of_object = scene.noise_seed % 2 == 0
    part, other = ("texture", "background_texture") if of_object else ("background_texture", "texture")
    own = getattr(scene, part)
    texture = own if own != "plain" else TEXTURES[1 + scene.noise_seed // 2 % (len(TEXTURES) - 1)]
    textures = {part: texture if contrast else "plain", other: "plain"}
    return scene.replace(**textures, contrast=contrast), of_object


def level_of(grid: Grid) -> int:
    """The noisiest point whose sigma is at most LEVEL; at least the first."""
    return max([1, *(i for i in range(1, grid.num_steps + 1) if grid.sigma[i] <= LEVEL)])


def _redrawn(found: Findings) -> list[dict[str, Any]]:
    """Scenes are noised to a middle level, the model makes pictures of that, and DDIM inverts these to that level."""
    import torch

    from unsample.datasets.scenes import render
    from unsample.experiment.findings import every
    from unsample.numbers.solvers.ddim import ddim_invert_at_target, ddim_sample
    from unsample.numbers.walk import walk
    from unsample.studies.taba_step_error import eps_between

    base, size, model = every(found.items, "scene") or [], found.source.shape[-1], found.model
    scenes = [dosed(scene, contrast)[0] for contrast in CONTRASTS for scene in base]  # contrast by contrast
    drawn = render(scenes, size)
    prompts = [scene.caption for scene in scenes] if model.takes_prompt else None
    with asking(model, found.setup.steps, prompts, len(scenes)) as predict:
        grid = predict.grid
        stop, start = level_of(grid), model.encode(drawn.images.to(model.device)).float()
        made = [torch.randn(start.shape[1:], generator=torch.Generator().manual_seed(s.noise_seed)) for s in scenes]
        noisy = grid.alpha[stop] * start + grid.sigma[stop] * torch.stack(made).to(start)
        clean, _ = walk(ddim_sample, predict, noisy, grid, range(stop, -1, -1))
        again, _ = walk(ddim_invert_at_target, predict, clean, grid, range(stop + 1))
        true, noise = (eps_between(clean, x, grid, 0, stop).cpu() for x in (noisy, again))
        pictures = model.decode(clean[-len(base) :]).float().clamp(0, 1).cpu()  # of the highest contrast
    shape, count = true.shape[1:], len(base)
    plain = plain_of_scenes(scenes[-count:], size, shape)
    masked = by_mask(noise[-count:], true[-count:], plain)
    agreement = (plain_of(pictures, shape) == plain).double().flatten(1).mean(1).tolist()
    doses = _by_dose(noise, true, drawn.object_mask, [dosed(scene, 1)[1] for scene in base])
    return [{"masks": {"true": masked[k]}, "agreement": agreement[k], "doses": doses[k]} for k in range(count)]


def _by_dose(noise: Tensor, true: Tensor, coverage: Tensor, of_object: Sequence[bool]) -> list[list[dict[str, Any]]]:
    """Of each scene and contrast, error and deviation in the part that is varied and in the other, without the edge."""
    import torch

    objects, grounds = (in_cells(part, noise.shape[1:]) for part in (coverage == 1, coverage == 0))
    varied = torch.tensor(of_object).repeat(len(CONTRASTS))[:, None, None, None]
    parts = {"varied": torch.where(varied, objects, grounds), "other": torch.where(varied, grounds, objects)}
    found = {p: (mean_by_area((noise - true).abs(), m), deviation_by_area(noise, m)) for p, m in parts.items()}
    count = len(of_object)
    places = [[d * count + k for d in range(len(CONTRASTS))] for k in range(count)]
    columns = {
        f"{p}_{name}": each for p, pair in found.items() for name, each in zip(("error", "std"), pair, strict=True)
    }
    return [[{name: each[at]["plain"] for name, each in columns.items()} for at in one] for one in places]


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, mask and area; and a row a scene, contrast and part."""
    for cell in cells:
        about = {"model": cell["model"], "unit": cell["item"]}
        source = "redrawn" if "doses" in cell["probed"] else "generated"
        for mask, found in cell["probed"].get("masks", {}).items():
            for area in AREAS:
                values = {name: found[name][area] for name in ("error", "std", "true_std")}
                more = {"plain_share": found["share"], "agreement": cell["probed"].get("agreement")}
                yield about | {"kind": "picture", "source": source, "mask": mask, "area": area} | values | more
        for contrast, found in zip(CONTRASTS, cell["probed"].get("doses", ()), strict=False):
            for part in PARTS:
                values = {name: found[f"{part}_{name}"] for name in ("error", "std")}
                yield about | {"kind": "dose", "source": source, "part": part, "contrast": contrast} | values


def figure(rows: Sequence[Row]) -> Figure:
    """Error and deviation by area, of pictures that have both, a line a model; and error against contrast of a part."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    pictures = _with_both_areas(rows)
    dosed_models = [m for m in models if any(r["model"] == m and r["kind"] == "dose" for r in rows)]
    drawn, axes = panels(2 + bool(dosed_models), columns=3, width=4.2, height=max(2.6, 0.8 + 0.24 * len(models)))
    for axis, value, title in zip(axes, ("error", "std"), ("mean absolute error", "standard deviation"), strict=False):
        for k, area in enumerate(AREAS[:2]):
            for mask, mark in (("threshold", "o"), ("true", "x")):
                at = [(y, mean(pictures, value, model=m, mask=mask, area=area)) for y, m in enumerate(models)]
                some = [(y, each) for y, each in at if each is not None]
                label = f"{area}, {'by the threshold' if mask == 'threshold' else 'true'}"
                if some:
                    axis.plot(
                        [x for _, x in some], [y for y, _ in some], mark, color=colour(k), label=label, markersize=5
                    )
        axis.set_yticks(range(len(models)), [short(m) for m in models] if axis is axes[0] else [""] * len(models))
        axis.invert_yaxis()
        axis.grid(axis="y", linewidth=0.3)
        axis.set_xlabel(f"{title} of the latent", fontsize=8)
    axes[1].axvline(1, color="#999999", linewidth=0.8)
    drawn.legend(*axes[0].get_legend_handles_labels(), fontsize=7, frameon=False, ncols=4, loc="outside upper left")
    for k, model in enumerate(dosed_models):
        for part, line in zip(PARTS, ("o-", "o:"), strict=True):
            means = [mean(rows, "error", model=model, part=part, contrast=c) for c in CONTRASTS]
            axes[2].plot(
                CONTRASTS, means, line, color=colour(k + 2), label=f"{short(model)}, {part} part", markersize=3
            )
    if dosed_models:
        axes[2].set_xlabel("contrast of the varied part", fontsize=8)
        axes[2].set_ylabel("mean absolute error", fontsize=8)
        axes[2].set_ylim(bottom=0)
        axes[2].legend(fontsize=6, frameon=False, ncols=2, loc="lower center")
    return drawn


def _with_both_areas(rows: Sequence[Row]) -> list[Row]:
    found = [r for r in rows if r["kind"] == "picture" and r["area"] != "all" and r["error"] is not None]
    keys = [(r["model"], r["unit"], r["mask"]) for r in found]
    return [row for row, key in zip(found, keys, strict=True) if keys.count(key) == 2]


STUDY = Study(
    name="taba_plain",
    question="Is DDIM inversion worse, and its latent less diverse, where the picture is plain?",
    paper=TABA,
    shows="Table 5",
    models=nature,
    num_samples=32,
    steps=40,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: 2 * asked.steps if _drawn(asked) else 0,  # to sigma .7 and back, of every second
    minutes=1.8,
    published="unsample study taba_plain --model CompVis/ldm-celebahq-256 --num-samples 10000 --steps 100",
    about=(
        "Areas by the paper's threshold on the finished picture, beside true ones where they are known: of "
        "scenes-mixture those of the nearest component, of the other models of scenes those of a drawn scene that was "
        "noised to sigma .7, made into a picture by the model, and inverted to that level again, so that its noise is "
        "known too.",
        "Dose and response: one part of a drawn scene, object or background, at five contrasts (0 is a plain part), "
        "with the same noise; edges are in neither part.",
        "A latent of scenes-sd stands for 4 by 4 pixels and is plain where all of them are; the paper does not say how "
        "its masks reach the latents.",
        "Deviations are of the numbers within one area of one picture, around their own mean; true_std is that of the "
        "true noise there: it is 1 in an area that was chosen without a look at the noise, and smaller where a "
        "threshold on the picture picks pixels whose noise happened to be alike.",
    ),
)
