"""How well an edit kept what it was not to touch: the field's convention, and the honest one.

`pie_*` (PIE-Bench, arXiv:2310.01506, and its code): both pictures times 1 - mask, then the metric over the *whole*
frame. Zeros count as perfect, so the figures flatter as the mask grows: for PSNR by 10 log10 of the share kept.
`masked_*`: the mean over the pixels outside the mask alone. Of SSIM that is every window that lies wholly outside, of
LPIPS each layer's map enlarged to the picture (their receptive fields do reach into the mask).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from unsample.errors import BadInput
from unsample.metrics import lpips
from unsample.metrics.pixels import SSIM_WINDOW, decibels, mse, psnr, ssim_map
from unsample.metrics.subject import Found, Settings, Subject

if TYPE_CHECKING:
    from torch import Tensor

ALL = "the mask covers the whole picture: nothing outside is to be kept"


def kept_pixels(subject: Subject) -> Tensor:
    """1 outside the mask: (B, 1, H, W), float64.

    Raises:
        BadInput: a mask of another size.
    """
    images, reference, mask = subject.given("images", "reference", "mask")
    if images.shape != reference.shape or mask.shape != (len(images), 1, *images.shape[2:]):
        shapes = ", ".join(str(tuple(t.shape)) for t in (images, reference, mask))
        raise BadInput(f"image, reference and mask must be of one size, the mask (B, 1, H, W); got {shapes}")
    return 1 - mask.double()


def zeroed(subject: Subject) -> Subject:
    """Both pictures with the edited region blackened."""
    keep = kept_pixels(subject)
    images, reference = subject.given("images", "reference")
    return replace(subject, images=images.double() * keep, reference=reference.double() * keep)


def _where_kept(keep: Tensor, values: Sequence[float | str]) -> list[float | str]:
    """The values, and for whole-image masks why there is none."""
    return [v if bool(k.any()) else ALL for k, v in zip(keep, values, strict=True)]


def _over_the_frame(metric: Callable[[Tensor, Tensor], Sequence[float | str]], subject: Subject) -> list[float | str]:
    return _where_kept(kept_pixels(subject), metric(*zeroed(subject).given("images", "reference")))


def pie_mse(subject: Subject, settings: Settings) -> list[float | str]:
    """Zero and average."""
    return _over_the_frame(mse, subject)


def pie_psnr(subject: Subject, settings: Settings) -> list[float | str]:
    """Zero and average."""
    return _over_the_frame(psnr, subject)


def pie_ssim(subject: Subject, settings: Settings) -> list[float | str]:
    """Zero and average."""
    from unsample.metrics.pixels import of_ssim

    return _where_kept(kept_pixels(subject), of_ssim(zeroed(subject), settings))


def pie_lpips(subject: Subject, settings: Settings) -> Found:
    """Zero and average, on SqueezeNet as PIE-Bench has it; the blackened region is -1 to the network."""
    found = lpips.of_lpips("squeeze", zeroed(subject), settings)
    return Found(_where_kept(kept_pixels(subject), found.values), found.details)


def masked_mse(subject: Subject, settings: Settings) -> list[float | str]:
    """Over the pixels outside."""
    keep = kept_pixels(subject)
    images, reference = subject.given("images", "reference")
    error = ((images.double() - reference.double()).square() * keep).flatten(1).sum(1)
    counts = keep.flatten(1).sum(1) * images.shape[1]
    return [float(e / c) if c > 0 else ALL for e, c in zip(error, counts, strict=True)]


def masked_psnr(subject: Subject, settings: Settings) -> list[float | str]:
    """Over the pixels outside."""
    return [v if isinstance(v, str) else decibels(v) for v in masked_mse(subject, settings)]


def masked_ssim(subject: Subject, settings: Settings) -> list[float | str]:
    """Over the windows that hold no edited pixel."""
    from torch.nn.functional import max_pool2d

    keep = kept_pixels(subject)
    if min(keep.shape[2:]) < SSIM_WINDOW:
        return [f"the window needs sides of at least {SSIM_WINDOW} pixels"] * len(keep)
    clean = 1 - max_pool2d(1 - keep, SSIM_WINDOW, stride=1)[:, 0]  # (B, H - 10, W - 10)
    inner = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))  # windows that lie in the frame
    total = (ssim_map(*subject.given("images", "reference"))[:, inner, inner] * clean).sum((1, 2))
    none = f"no {SSIM_WINDOW}x{SSIM_WINDOW} window lies wholly outside the mask"
    counts = clean.sum((1, 2))
    values = [float(t / c) if c > 0 else none for t, c in zip(total, counts, strict=True)]
    return _where_kept(keep, values)


def masked_lpips(subject: Subject, settings: Settings) -> Found:
    """Over the pixels outside, on the network of the settings."""
    from torch.nn.functional import interpolate

    keep, net = kept_pixels(subject), settings.lpips_net
    size = keep.shape[2:]
    images, reference = subject.given("images", "reference")
    parts = lpips.layers(images, reference, net, settings)
    whole = sum(interpolate(part, size=size, mode="bilinear", align_corners=False) for part in parts)
    counts = keep.flatten(1).sum(1)
    total = (whole * keep).flatten(1).sum(1)
    values = [float(t / c) if c > 0 else ALL for t, c in zip(total, counts, strict=True)]
    return Found(values, lpips.details(net, settings))
