"""What `x0_noise` says of a picture: the start that it stands for, and the std of what is not known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unsample.errors import Incompatible
from unsample.methods.base import Task
from unsample.methods.settings import EIGHT_BIT
from unsample.numbers.solvers.decoding import LEVEL, latents_of

if TYPE_CHECKING:
    from torch import Tensor


def known(task: Task, x0_noise: float | str) -> tuple[Tensor, float]:
    """x0 (B, C, H, W), and the std of its error on the same scale.

    A picture in 8 bits is off by up to half a level, the same of every picture of a model on pixels. Where an
    autoencoder stands between, x0 becomes the latents whose decoded picture rounds to it, and is then taken as exact.

    Raises:
        Incompatible: "8bit" where there is no picture, or latents in place of it.
    """
    if x0_noise != EIGHT_BIT:
        return task.x0, float(x0_noise)
    seen = task.seen
    shown = None if seen is None else seen.decode(task.x0)
    if seen is None or shown is None or shown.numel() == 0:
        raise Incompatible("x0_noise='8bit' is of pictures, and this model makes none; give a number, a std of x0")
    if shown.shape[-2:] == task.x0.shape[-2:]:
        scale = seen.encode(shown + LEVEL / 2) - seen.encode(shown)
        if (scale - scale.mean()).abs().max() <= 1e-3 * scale.mean().abs():
            return task.x0, round(float(scale.mean().abs()) / 3**0.5, 8)
    if seen.pictures is None:
        raise Incompatible(
            "x0_noise='8bit' is of pictures, and latents were given: what rounding did to them is not known; give the "
            "pictures themselves, or a number, the std of the error of the latents"
        )
    return latents_of(seen.decode, task.x0, seen.pictures).to(task.x0), 0.0
