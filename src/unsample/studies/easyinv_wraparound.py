"""Whether EasyInv's Table 1 is what PSNR gives that is computed on bytes, where differences and squares wrap around."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsample.studies.base import EASYINV, SD, Asked, Cells, Row, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from unsample.experiment.findings import Findings

NAME = "easyinv_wraparound"
PUBLISHED = {"ddim": (0.621, 29.717), "renoise": (0.641, 31.025), "fixed_point": (0.563, 29.107)}
PUBLISHED |= {"easyinv": (0.646, 30.189)}  # row to SSIM and PSNR in dB
GUIDANCE = (1.0, 7.5)
HALVINGS = 16


def wrapped_psnr(images: Tensor, reference: Tensor) -> list[float]:
    """PSNR of 8-bit pictures (B, C, H, W) in [0, 1] as byte arithmetic gives it: `(a - b)^2` modulo 256, in dB."""
    from unsample.metrics.pixels import decibels, eight_bit

    a, b = ((eight_bit(p) * 255).round().long() for p in (images, reference))
    squares = (a - b).square() % 256
    return [decibels(m / 255**2) for m in squares.double().flatten(1).mean(1).tolist()]


def unrelated_psnr() -> float:
    """What `wrapped_psnr` tends to, in dB, where every difference of bytes is as frequent as any other."""
    from unsample.metrics.pixels import decibels

    return decibels(sum(d * d % 256 for d in range(256)) / 256 / 255**2)


def brought_to(source: Tensor, images: Tensor, ssim: float) -> Tensor:
    """Pictures with the same error, made larger or smaller until SSIM is what is wanted: (B, C, H, W).

    `source + a (images - source)`, clamped, with a between 0 and 64 found by halving on the logarithm.
    """
    import torch

    from unsample.metrics.pixels import eight_bit, ssim_map

    def at(exponent: Tensor) -> Tensor:
        return eight_bit(source + torch.exp2(exponent)[:, None, None, None] * (images - source))

    low, high = (torch.full((len(source),), e, dtype=torch.float64) for e in (-6.0, 6.0))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = ssim_map(at(middle), eight_bit(source)).mean((1, 2)) > ssim
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return at(low)


def plans(asked: Asked) -> list[dict[str, Any]]:
    """DDIM inversion of drawn scenes, without guidance and with the authors' own."""
    return [
        asked.plan(
            methods=["ddim"],
            datasets={"record": asked.scenes},
            metrics=["psnr", "ssim"],
            guidance=list(GUIDANCE),
            inversion_guidance="same",
            probe=NAME,
        )
    ]


def probe(found: Findings, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """PSNR by both conventions: of the reconstruction, of its error at the published SSIMs, of a picture of noise."""
    import torch

    from unsample.experiment.findings import item_seeds, seeded
    from unsample.metrics.pixels import eight_bit, psnr, ssim

    if "record" not in found.pictures:
        return [{} for _ in found.items]
    source, made = eight_bit(found.source), found.pictures["record"].double()
    chance = seeded(item_seeds(found.setup.seed, [item.digest() for item in found.items]))
    noise = torch.stack([torch.rand(source.shape[1:], generator=g) for g in chance]).double()
    pictures = {"reconstruction": eight_bit(made), "noise": eight_bit(noise)}
    pictures |= {row: brought_to(source, made, wanted) for row, (wanted, _) in PUBLISHED.items()}
    each: list[dict[str, Any]] = [{} for _ in found.items]
    for name, shown in pictures.items():
        values = zip(psnr(shown, source), wrapped_psnr(shown, source), ssim(shown, source), strict=True)
        for told, (right, wrapped, similar) in zip(each, values, strict=True):
            told[name] = {"psnr": right, "wrapped": wrapped, "ssim": similar}
    return each


def rows(cells: Cells, asked: Asked) -> Iterable[Row]:
    """A row a picture, guidance and what is held against it."""
    for cell in cells:
        for name, found in cell["probed"].items():
            about = {"model": cell["model"], "unit": cell["item"], "w": cell["guidance"], "picture": name}
            published = PUBLISHED.get(name)
            about["kind"] = "as published" if published else name
            about |= {"ssim": found["ssim"], "psnr": found["psnr"], "psnr_wrapped": found["wrapped"]}
            about["ssim_published"], about["psnr_published"] = published or (None, None)
            about["psnr_off"] = found["psnr"] - published[1] if published else None
            about["wrapped_off"] = found["wrapped"] - published[1] if published else None
            yield about | {"wrapped_distance": abs(found["wrapped"] - published[1]) if published else None}


def figure(rows: Sequence[Row]) -> Figure:
    """PSNR by both conventions over SSIM, with the published points and what unrelated pictures have."""
    from unsample.studies.plotting import colour, models_of, panels, short

    models = models_of(rows)
    figure, axes = panels(len(models), columns=2, width=5.2, height=3.6)
    for axis, model in zip(axes, models, strict=True):
        here = [r for r in rows if r["model"] == model and r["kind"] != "noise"]
        for k, (value, label) in enumerate((("psnr", "computed rightly"), ("psnr_wrapped", "bytes that wrap around"))):
            axis.plot([r["ssim"] for r in here], [r[value] for r in here], ".", color=colour(k), label=label, alpha=0.6)
        for name, (ssim, psnr) in PUBLISHED.items():
            axis.plot([ssim], [psnr], "k*", markersize=9, label="published" if name == "ddim" else None)
        axis.axhline(unrelated_psnr(), color="gray", linewidth=1, linestyle="--", label="noise, wrapped around")
        axis.set_title(short(model), fontsize=9)
        axis.set_xlabel("SSIM", fontsize=8)
        axis.set_ylabel("PSNR, dB", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=7, frameon=False)
    return figure


STUDY = Study(
    name=NAME,
    question="Is an SSIM of .62 beside a PSNR of 29 to 31 dB what byte arithmetic gives that wraps around?",
    paper=EASYINV,
    shows="Table 1, columns SSIM and PSNR",
    models=(SD,),
    num_samples=16,
    steps=25,
    plans=plans,
    rows=rows,
    figure=figure,
    probe=probe,
    minutes=0.2,
    published="unsample study easyinv_wraparound --model CompVis/stable-diffusion-v1-4 --num-samples 2298 --steps 50",
    about=(
        "The authors' code holds no metric, so this is a hypothesis of ours and not a claim of the paper: pictures "
        "that are arrays of bytes, `mean((a - b) ** 2)` taken modulo 256.",
        "Each reconstruction's own error is made larger or smaller until SSIM is a published one; then both "
        "conventions are computed. How SSIM and PSNR go together depends on the pictures: drawn scenes have plain "
        "areas, where SSIM falls at small errors, so the rightly computed PSNR lies higher than photographs' would.",
        "Stability AI's model card gives the autoencoder of Stable Diffusion 1.4 alone, on COCO 2017 at 256 pixels, "
        "23.4 dB and an SSIM of .69: no inversion through it is expected above it by six decibels.",
    ),
)
