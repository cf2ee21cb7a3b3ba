"""Tables 9, 12 and 13 of TABA: what latents become when the first inversion steps use the true predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import TABA, Asked, Cells, Row, Study, nature
from unsample.studies.first_steps import curves, levels_of, looked_at, plans_of_levels, rows_by_level

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unsample.experiment.findings import Findings

SHARES = (0.0, 0.06, 0.1, 1.0)
COLUMNS = (
    *("neighbours", "kl", "noise_mae", "image_mae", "interpolation_mae", "interpolation_sharpness"),
    *("edit_mae", "edit_ssim", "edit_clip_image", "edit_clip_source", "edit_clip_target"),
)


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion, and the same with the first k predictions replaced; interpolations on the quick models."""
    counts = sorted({*levels_of(SHARES, asked.steps).values()})
    methods = [f"oracle[num_steps={k}]" if k else "ddim" for k in counts]
    return plans_of_levels(asked, "taba_replacement", methods)


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Latents, errors, interpolations and edits."""
    assert found.inversion is not None
    told = found.inversion.meta["method"]["settings"]
    return looked_at(found, settings, int(told.get("num_steps", 0)))


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture and level."""
    return rows_by_level(cells, SHARES, asked.steps, COLUMNS)


def figure(rows: Sequence[Row]) -> Figure:
    """Table 9 as curves."""
    names = {"correlation": "pixel correlation", "kl": "KL", "noise_mae": "noise error", "image_mae": "picture error"}
    return curves(rows, names)


STUDY = Study(
    name="taba_replacement",
    question="Is most of the difference between latents and noise made in the first inversion steps?",
    paper=TABA,
    shows="Tables 9, 12 and 13, Fig. 7",
    models=nature,
    num_samples=8,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    probe_passes=lambda asked: 10 * asked.steps,
    minutes=3.1,
    published="unsample study taba_replacement --model DeepFloyd/IF-I-XL-v1.0 --num-samples 1024",
    about=(
        "The predictions that are put in are those of the sampling run that made the picture; 100 % therefore is the "
        "true noise up to rounding.",
        "The correlation is TABA's, the 20 largest within 8x8 patches, but over all patches of all pictures at once, "
        "so that few pictures tell; the true noise of the same pictures has the floor. `neighbours` is the absolute "
        "correlation of neighbouring values within one latent.",
        "Interpolations go half way to the latent of one of two fixed pictures of the model, on the small networks and "
        "scenes-mixture; they are held against the same made of the true noises, since the Frechet distance of the "
        "paper needs thousands of pictures.",
        "So are edits, where the paper holds diversities against the source; their target prompt has guidance 1.",
    ),
)
