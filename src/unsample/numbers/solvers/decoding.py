"""The latents behind a picture in 8 bits: those whose decoded picture rounds to it.

An autoencoder's encoder is no inverse of its decoder, and loses many times what rounding does. A picture that was
decoded from latents tells them nearly: `z = argmin | D(z) - y |^2`, y known within half a level and, where it is black
or white, on one side alone. L-BFGS through the decoder, from what the encoder says. Decoder inversion by gradients,
with Adam: Hong, Lee, Jeon, Bae and Chun, 2024, arXiv:2311.18387.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from unsample.errors import Incompatible
from unsample.numbers.solvers.fixed_point import each
from unsample.numbers.solvers.gradient import OPTIMIZERS, Memory

if TYPE_CHECKING:
    from torch import Tensor

LEVEL = 1 / 255
ROUNDED = LEVEL / 12**0.5  # the RMS of what rounding leaves
UPDATES = 150  # at most
LONGEST = 0.1  # the RMS of an update at most


def off(decoded: Tensor, pictures: Tensor) -> Tensor:
    """What a decoded picture is off, nothing where both are beyond the same end of the range."""
    difference = decoded - pictures
    over = (pictures >= 1) & (difference > 0)
    under = (pictures <= 0) & (difference < 0)
    return difference.masked_fill(over | under, 0.0)


def latents_of(decode: Callable[[Tensor], Tensor], start: Tensor, pictures: Tensor) -> Tensor:
    """The latents (B, C, h, w) whose decoded pictures are nearest to `pictures`; each ends within the rounding.

    Each picture keeps the best of its iterates, so that none ends further off than it began.

    The cost is not that of an inversion: it is counted nowhere, up to 150 passes through the decoder and back.

    Args:
        decode: latents to pictures in [0, 1], differentiable.
        start: (B, C, h, w), where to begin.
        pictures: (B, 3, H, W), of whole levels.

    Raises:
        Incompatible: a decoder whose output carries no gradient.
    """
    import torch

    rule, memory = OPTIMIZERS["lbfgs"], list[torch.Tensor]()
    at, best = start, start
    smallest = torch.full((len(start),), torch.inf, device=start.device)
    active = torch.arange(len(start), device=start.device)
    for k in range(UPDATES):
        with torch.enable_grad():
            z = at.detach().requires_grad_(True)
            difference = off(decode(z), pictures[active]).flatten(1)
            size = difference.square().mean(1)
            if not size.requires_grad:
                raise Incompatible(
                    "x0_noise='8bit' looks for the latents behind a picture by gradients through the decoder, and this "
                    "one's output carries none (it runs under no_grad, or detaches); give a number"
                )
            gradient = torch.autograd.grad(size.sum() / ROUNDED**2, z)[0]
        size = size.detach().sqrt().float()
        better = size < smallest[active]
        best = best.index_copy(0, active[better], at[better])
        smallest = smallest.index_copy(0, active[better], size[better])
        going = size.isfinite() & (size > ROUNDED)
        memory = _cut(memory, going)
        active, at, gradient = active[going], at[going], gradient[going]
        if len(active) == 0:
            break
        change, memory = rule(gradient.flatten(1), memory, k, 1.0)
        length = change.norm(dim=1) / change.shape[1] ** 0.5
        change = change * each((LONGEST / length.clamp(min=1e-12)).clamp(max=1), change)
        memory[1] = change
        at = at + change.view_as(at)
    return best


def _cut(memory: Memory, going: Tensor) -> Memory:
    return [kept[going] for kept in memory]
