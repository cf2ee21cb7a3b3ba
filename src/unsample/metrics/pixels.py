"""How near one picture is to another: MSE, MAE, PSNR and three kinds of SSIM, and the ceiling a model's encoder sets.

`PSNR = -10 log10 MSE` in dB, in float64, of pictures in [0, 1]; infinite for equal pictures, and then said to be exact.
SSIM (Wang et al., 2004) has a Gaussian window of 11x11, sigma 1.5 and reflected borders, as torchmetrics 1.9 has it;
other windows and borders give other numbers. `ssim_global` is another thing under the same name, with one window, the
whole picture.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from unsample.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from unsample.metrics.subject import Settings, Subject

SSIM_WINDOW = 11
MS_SSIM_SIDE = 161  # below, the last of the five scales is smaller than the window
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
C1, C2 = 0.01**2, 0.03**2  # of SSIM, for a range of 1


def eight_bit(images: Tensor) -> Tensor:
    """Pictures in [0, 1] as a PNG holds them: clamped and rounded to 256 levels, float64."""
    return (images.double().clamp(0, 1) * 255).round() / 255


def psnr(images: Tensor, reference: Tensor) -> list[float]:
    """Peak signal to noise ratio of each picture, in dB; `inf` where the two are equal.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ.
    """
    return [decibels(m) for m in mse(images, reference)]


def mse(images: Tensor, reference: Tensor) -> list[float]:
    """Mean squared error of each picture over all its values.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ.
    """
    _check(images, reference)
    return (images.double() - reference.double()).square().flatten(1).mean(1).tolist()


def mae(images: Tensor, reference: Tensor) -> list[float]:
    """Mean absolute error of each picture over all its values.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ.
    """
    _check(images, reference)
    return (images.double() - reference.double()).abs().flatten(1).mean(1).tolist()


def decibels(mean_squared_error: float) -> float:
    """`-10 log10 MSE` of values in [0, 1]; `inf` for none at all."""
    return math.inf if mean_squared_error == 0 else -10 * math.log10(mean_squared_error)


def ssim(images: Tensor, reference: Tensor) -> list[float | None]:
    """Structural similarity of each picture; None where a side is under 11 pixels, the window's.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ.
    """
    _check(images, reference)
    if min(images.shape[2:]) < SSIM_WINDOW:
        return [None] * len(images)
    return ssim_map(images, reference).mean((1, 2)).tolist()


def ssim_map(images: Tensor, reference: Tensor) -> Tensor:
    """SSIM at every pixel, over the channels: (B, H, W), float64; borders are reflected, as in torchmetrics 1.9.

    Its mean is `ssim`. Where the whole window fits it is scikit-image's, which leaves out the five pixels at a border.
    """
    brightness, contrast = _ssim_parts(images, reference)
    return (brightness * contrast).mean(1)


def _ssim_parts(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of SSIM at every pixel: brightness, and contrast with structure, both (B, 3, H, W).

    The window is applied as sums of shifted pictures, rows and then columns: unlike a convolution in float64 that is
    quick, needs no memory to speak of, and gives the same digits in a batch as alone.
    """
    from torch.nn.functional import pad

    weights = [math.exp(-((k - SSIM_WINDOW // 2) ** 2) / (2 * 1.5**2)) for k in range(SSIM_WINDOW)]
    kernel = [w / sum(weights) for w in weights]
    reach = SSIM_WINDOW // 2

    def smooth(values: Tensor) -> Tensor:
        for axis in (-1, -2):
            length = values.shape[axis] - SSIM_WINDOW + 1
            total = values.narrow(axis, 0, length) * kernel[0]
            for k in range(1, SSIM_WINDOW):
                total.add_(values.narrow(axis, k, length), alpha=kernel[k])
            values = total
        return values

    x, y = (pad(p.double().cpu(), (reach,) * 4, mode="reflect") for p in (images, reference))
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    return _brightness(mean_x, mean_y), _contrast(var_x, var_y, smooth(x * y) - mean_x * mean_y)


def ssim_global(images: Tensor, reference: Tensor) -> list[float]:
    """SSIM with one window, the whole picture, of greyscale pictures: Algorithm 1 of the editing study.

    The image is brought to the size of the reference by Pillow's bicubic, if the two differ; both are 8 bit. Means,
    variances (over n) and covariance are those of the whole picture; C1 = (0.01 L)^2, C2 = (0.03 L)^2.

    Args:
        images: (B, 3, H, W) in [0, 1]; may be of another size.
        reference: (B, 3, H', W') in [0, 1].
    """
    from PIL import Image

    size = (reference.shape[3], reference.shape[2])
    found = []
    for image, target in zip(as_pil(images), as_pil(reference), strict=True):
        grey = image.convert("L")
        fitted = grey if grey.size == size else grey.resize(size, Image.Resampling.BICUBIC)
        x, y = (_flat(p) for p in (fitted, target.convert("L")))
        mean_x, mean_y = x.mean(), y.mean()
        covariance = ((x - mean_x) * (y - mean_y)).mean()
        variances = x.var(correction=0), y.var(correction=0)
        found.append(float(_brightness(mean_x, mean_y) * _contrast(*variances, covariance)))
    return found


def ms_ssim(images: Tensor, reference: Tensor) -> list[float | str]:
    """SSIM over five scales (Wang, Simoncelli and Bovik, 2003); for a side under 161 pixels, why there is none.

    Window 11x11, sigma 1.5, weights 0.0448, 0.2856, 0.3001, 0.2363, 0.1333, negative means set to zero; contrasts where
    the window fits, the last scale's SSIM with reflected borders, as torchmetrics 1.9 has it.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].

    Raises:
        BadInput: shapes that differ.
    """
    _check(images, reference)
    side = min(images.shape[2:])
    if side < MS_SSIM_SIDE:
        return [f"five scales need sides of at least {MS_SSIM_SIDE} pixels; got {side}"] * len(images)
    import torch
    from torch.nn.functional import avg_pool2d

    inner = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
    x, y = images.double(), reference.double()
    total = torch.ones(len(images), dtype=torch.float64)
    for scale, weight in enumerate(SCALES):
        brightness, contrast = _ssim_parts(x, y)
        last = scale == len(SCALES) - 1
        part = brightness * contrast if last else contrast[:, :, inner, inner]
        total = total * part.mean((1, 2, 3)).clamp(min=0) ** weight
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    return total.tolist()


def as_pil(images: Tensor) -> list[Image]:
    """8-bit pictures of (B, 3, H, W) in [0, 1]: clamped and rounded."""
    from PIL import Image

    levels = (images.detach().cpu().double().clamp(0, 1) * 255).round().byte()
    return [Image.fromarray(p.permute(1, 2, 0).contiguous().numpy()) for p in levels]


def _flat(grey: Image) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(grey, dtype=np.float64) / 255).flatten()


def _brightness(mean_x: Tensor, mean_y: Tensor) -> Tensor:
    return (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)


def _contrast(var_x: Tensor, var_y: Tensor, covariance: Tensor) -> Tensor:
    return (2 * covariance + C2) / (var_x + var_y + C2)


def ceiling_psnr(model: Any, images: Tensor) -> list[float]:
    """PSNR of the encoder's own round trip, 8 bit: no inversion through this model can do better on average.

    Args:
        model: an adapter.
        images: (B, 3, H, W) in [0, 1].
    """
    return psnr(eight_bit(encoded_alone(model, images)), eight_bit(images))


def encoded_alone(model: Any, images: Tensor) -> Tensor:
    """The encoder's own round trip of pictures (B, 3, H, W) in [0, 1], on the CPU."""
    import torch

    with torch.no_grad():
        back: Tensor = model.decode(model.encode(images.to(model.device)))
    return back.cpu()


def _check(images: Tensor, reference: Tensor) -> None:
    if images.shape != reference.shape or images.ndim != 4:
        raise BadInput(f"two batches of one shape are needed; got {tuple(images.shape)} and {tuple(reference.shape)}")


# ---------------------------------------------------------------- as the table calls them


def of_mse(subject: Subject, settings: Settings) -> list[float]:
    """See `mse`."""
    return mse(*subject.given("images", "reference"))


def of_mae(subject: Subject, settings: Settings) -> list[float]:
    """See `mae`."""
    return mae(*subject.given("images", "reference"))


def of_psnr(subject: Subject, settings: Settings) -> list[float]:
    """See `psnr`."""
    return psnr(*subject.given("images", "reference"))


def of_psnr_to_ceiling(subject: Subject, settings: Settings) -> list[float]:
    """`psnr` to the autoencoder's round trip of the source, of what the decoder gave: clamped, not rounded."""
    return psnr(*(pictures.clamp(0, 1) for pictures in subject.given("images", "ceiling")))


def of_ssim(subject: Subject, settings: Settings) -> list[float | str]:
    """See `ssim`."""
    small = f"the window needs sides of at least {SSIM_WINDOW} pixels"
    return [small if value is None else value for value in ssim(*subject.given("images", "reference"))]


def of_ssim_global(subject: Subject, settings: Settings) -> list[float]:
    """See `ssim_global`."""
    return ssim_global(*subject.given("images", "reference"))


def of_ms_ssim(subject: Subject, settings: Settings) -> list[float | str]:
    """See `ms_ssim`."""
    return ms_ssim(*subject.given("images", "reference"))
