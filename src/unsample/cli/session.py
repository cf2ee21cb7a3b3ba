"""A loaded model, and the figures of what it made. From here on torch is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.cli import talk
from unsample.cli.options import Placement
from unsample.models.domain import REAL_MODELS
from unsample.models.loading import MIXTURE
from unsample.preflight.known import KnownModel

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.verbs.results import Inversion

OUT_OF_DOMAIN = 20.0  # dB of the encoder's round trip


def load(known: KnownModel, where: Placement) -> Model:
    """Load a model, with the libraries' own bars and log lines silenced."""
    from unsample.models.loading import quiet_libraries
    from unsample.verbs.api import load as load_model

    if not talk.hears_everything():
        quiet_libraries()
    if known.folder is None and known.name != MIXTURE:
        talk.say(f"fetching {known.name} from the hub ...")
    model: Model = load_model(
        known.name,
        device=where.device,
        dtype=where.dtype,
        offload=where.offload,
        vae_tiling=where.vae_tiling,
        local_files_only=known.from_file,
    )
    return model


@dataclass(frozen=True)
class Figures:
    """How near a picture is to its source. None: not measured."""

    psnr: float | None = None  # inf: equal
    ssim: float | None = None
    ceiling: float | None = None  # inf: the encoder loses nothing

    @property
    def out_of_domain(self) -> bool:
        """Whether the model's encoder cannot hold this picture."""
        return self.ceiling is not None and self.ceiling < OUT_OF_DOMAIN

    @property
    def reasons(self) -> list[str]:
        """Why it cannot, in words."""
        if not self.out_of_domain:
            return []
        return [f"the encoder alone brings the picture back at {self.ceiling:.1f} dB, under {OUT_OF_DOMAIN:.0f}"]

    def spoken(self, after: str = "") -> str:
        """For the line on the terminal; `after` follows the decibels."""
        if self.psnr is None:
            return "not measured (the inversion holds no source)"
        if math.isinf(self.psnr):
            return f"exact{after} (every pixel equal)"
        limited = not after and self.ceiling is not None and math.isfinite(self.ceiling)
        return f"{self.psnr:.1f} dB{after}" + (f" (ceiling {self.ceiling:.1f})" if limited else "")

    def entries(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "psnr": self.psnr if self.psnr is not None and math.isfinite(self.psnr) else None,
            "exact": self.psnr is not None and math.isinf(self.psnr),
            "ssim": self.ssim,
            "ceiling_psnr": self.ceiling if self.ceiling is not None and math.isfinite(self.ceiling) else None,
        }


def measured(model: Model, inversion: Inversion, picture: Tensor) -> Figures:
    """Figures of one picture as it is written, 8 bit, against the source as the model saw it.

    Args:
        model: whose encoder sets the ceiling.
        inversion: of that one picture.
        picture: (1, 3, H, W) in [0, 1].
    """
    from unsample.metrics.pixels import ceiling_psnr, eight_bit, psnr, ssim

    if inversion.source is None or inversion.source.shape[1:3] != picture.shape[2:]:
        return Figures()
    source = inversion.source.permute(0, 3, 1, 2).float() / 255
    ceiling = ceiling_psnr(model, source)[0]
    made, source = eight_bit(picture.cpu()), eight_bit(source)
    return Figures(psnr(made, source)[0], ssim(made, source)[0], ceiling)


def open_inversion(model: Model, path: str, allow_other_model: bool) -> Inversion:
    """A saved inversion, compared with the model before anything is played."""
    from unsample.errors import BadInput
    from unsample.verbs.playing import check_model
    from unsample.verbs.results import Inversion

    inversion = Inversion.load(path)
    try:
        check_model(model, inversion, allow_other_model)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    return inversion


def as_pil(picture: Tensor) -> Image:
    """One picture (1, 3, H, W) in [0, 1] as the 8 bits that were measured."""
    from unsample.metrics.pixels import as_pil as pictures

    return pictures(picture)[0]


def warn_out_of_domain(model: Model, found: Sequence[tuple[str, Figures]]) -> None:
    """One warning for the pictures that a model's encoder cannot hold."""
    outside = [f"{name} ({figures.ceiling:.1f} dB)" for name, figures in found if figures.out_of_domain]
    if outside:
        talk.warn(
            f"{', '.join(outside)}: outside the world of {model.id}, whose encoder alone brings it back at under "
            f"{OUT_OF_DOMAIN:.0f} dB; give a model that knows such pictures: {REAL_MODELS}"
        )
