"""TABA's fix: forward diffusion in place of the first inversion steps, from none of them to all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import TABA, Asked, Cells, Row, Study, nature
from unsample.studies.first_steps import curves, levels_of, looked_at, mean_absolute, plans_of_levels, rows_by_level

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

SHARES = (0.0, 0.04, 0.1, 0.3, 1.0)
FIX = 0.04  # what the paper settles on
COLUMNS = (
    *(
        "sigma",
        "neighbours",
        "kl",
        "std_plain",
        "std_textured",
        "picture_mae",
        "picture_ssim",
        "mae_plain",
        "mae_textured",
    ),
    *("interpolation_sharpness", "edit_ssim", "edit_clip_image", "edit_clip_source", "edit_clip_target"),
)
SEEDS, AUTOENCODER = "two seeds", "autoencoder"


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion, and the same after forward diffusion over the first steps."""
    shares = {k: float(level.split()[0]) / 100 for level, k in levels_of(SHARES, asked.steps).items()}
    methods = [f"forward_first[fraction={share:g}]" if share else "ddim" for share in shares.values()]
    return plans_of_levels(asked, "taba_forward", methods)


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Latents by area, pictures that come back, with the fix once more from another seed, interpolations and edits."""
    from unsample.metrics.pixels import encoded_alone
    from unsample.studies.areas import deviation_by_area, mean_by_area, plain_of

    assert found.inversion is not None
    assert found.true_noise is not None
    replaced = int(found.inversion.meta.get("forward_steps", 0))
    looked = [looked_at(found, settings, replaced)]
    shape = found.inversion.noise.shape
    for noise, ending in ((found.inversion.noise, ""), (found.true_noise, "_noise")):
        told = deviation_by_area(noise, plain_of(found.source, shape[1:]))
        looked.append([{f"std_{area}{ending}": each[area] for area in ("plain", "textured")} for each in told])
    if "noise" in found.made:
        played = found.made["noise"].images.cpu()
        looked.append(_against(played, found.source, "picture"))
        by_area = mean_by_area((played - found.source).abs(), plain_of(found.source, found.source.shape[1:]))
        looked.append([{f"mae_{area}": each[area] for area in ("plain", "textured")} for each in by_area])
        if replaced and replaced == levels_of((FIX,), found.setup.steps)[f"{100 * FIX:g} %"]:
            looked.append(_against(_once_more(found), played, "seeds"))
            looked.append(_against(encoded_alone(found.model, found.source).float(), found.source, "autoencoder"))
    return [{k: v for told in each for k, v in told.items()} for each in zip(*looked, strict=True)]


def _against(pictures: Tensor, others: Tensor, name: str) -> list[dict[str, Any]]:
    from unsample.metrics import Subject, measure

    ssim = measure(["ssim"], Subject(images=pictures, reference=others))["ssim"].values
    return [
        {f"{name}_mae": far, f"{name}_ssim": near}
        for far, near in zip(mean_absolute(pictures, others), ssim, strict=True)
    ]


def _once_more(found: Findings) -> Tensor:
    """The pictures that come back when the forward diffusion draws other noise."""
    import unsample
    from unsample.experiment.findings import item_seeds, seeded

    prompts = found.prompts()
    seeds = seeded(item_seeds(found.setup.seed, [f"again:{item.digest()}" for item in found.items]))
    again = unsample.invert(
        found.model,
        latents=found.start,
        prompt=prompts,
        method=found.setup.method,
        num_inference_steps=found.setup.steps,
        generator=seeds,
        progress=False,
    )
    return unsample.reconstruct(found.model, again, use="noise", progress=False).images.cpu()


def rows(cells: Cells, asked: Asked) -> Iterator[Row]:
    """A row a picture and level, of the true noise, and of the two floors of reconstruction."""
    yield from rows_by_level(cells, SHARES, asked.steps, COLUMNS)
    for cell in cells:
        told = cell.get("probed") or {}
        for level, name in ((SEEDS, "seeds"), (AUTOENCODER, "autoencoder")):
            if f"{name}_mae" in told:
                about = {"model": cell["model"], "unit": cell["item"], "replaced": level, "k": told["k"]}
                yield about | {"picture_mae": told[f"{name}_mae"], "picture_ssim": told[f"{name}_ssim"]}


def figure(rows: Sequence[Row]) -> Figure:
    """Each quantity by the share of steps that forward diffusion replaces."""
    names = {"correlation": "pixel correlation", "std_plain": "std, plain areas", "std_textured": "std, textured areas"}
    shown = [row for row in rows if row["replaced"] not in (SEEDS, AUTOENCODER)]
    return curves(
        shown, names | {"picture_mae": "picture error", "interpolation_sharpness": "interpolations' sharpness"}
    )


STUDY = Study(
    name="taba_forward",
    question="Does forward diffusion over the first 4 % of steps make noise of latents, and keep the picture?",
    paper=TABA,
    shows="the fix of its later versions",
    models=nature,
    num_samples=8,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: 16 * asked.steps,
    minutes=2.8,
    published="unsample study taba_forward --model DeepFloyd/IF-I-XL-v1.0 --num-samples 1024",
    about=(
        "Of the fix we have a summary by others and not the authors' text; what it says stands beside a claim.",
        "Forward diffusion adds noise that has nothing to do with the noise that the picture was made from: its "
        "latents are to be like noise, not to be that noise, so that no error against the true noise is shown.",
        "The correlation is TABA's, the 20 largest within 8x8 patches, but over all patches of all pictures at once, "
        "so that few pictures tell; the row `noise` is the true noise of the same pictures, whose floor is its own. "
        "Over a few pictures two sets of white noise differ in it, so that the claim is about `neighbours`, the "
        "absolute correlation of neighbouring values within one latent.",
        "`sigma` is the noise level from which the inversion goes on: one share of steps reaches different levels on "
        "different grids.",
        "`two seeds` is how far two reconstructions of a picture lie apart that differ in the seed of the forward "
        "diffusion, `autoencoder` what the autoencoder alone changes. Two independent errors of one size lie further "
        "apart than each from the picture, so that the floor of two seeds is not hard to meet; where it is not met, "
        "the two have an error in common, which is not that of the seed. The error of DDIM inversion stands beside it.",
        "Interpolations go half way to the latent of one of two fixed pictures of the model, on the small networks and "
        "scenes-mixture; their sharpness is that of the same interpolation of true noises times the number shown. "
        "Edits are sampled with the target prompt at guidance 1.",
    ),
)
