"""Regularising a predicted eps towards what white Gaussian noise would be, by small gradient steps on eps itself.

`L_ac = sum over channels, levels of a pyramid and both axes of mean(eps roll(eps, r))^2`, and
`L_kl = var + mean^2 - 1 - log(var + 1e-7)` (pix2pix-zero, Parmar et al., 2023, arXiv:2302.03027), or the
patch-wise KL divergence to another eps (ReNoise, Garibi et al., 2024, arXiv:2403.14602). No gradient runs through the
network: the gradients here are closed forms. Trap: on a nearly constant eps a step at the published rates overshoots,
by up to 6.5 in the patch-wise divergence. A step that raises the loss it descends is therefore not taken, which changes
nothing where the published steps descend (on the bundled models: white pictures too, to every digit looked at).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SMALLEST_LEVEL = 8  # the pyramid ends at the first level whose side is at most this
LEAST_SIDE = 4  # below, [1, side / 2) has no roll and a patch no spread
PATCH = 4  # side of the patches of the patch-wise divergence
KL_FLOOR, PATCH_FLOOR = 1e-7, 1e-6  # the authors' guards of the logarithm and of the divisions
GRADIENT_LIMIT = 100.0  # of the patch-wise divergence, element by element


def level_sides(shape: Sequence[int]) -> list[int]:
    """The shorter side of every level of the pyramid over pictures (..., H, W)."""
    sides = [min(shape[-2:])]
    while sides[-1] > SMALLEST_LEVEL:
        sides.append(sides[-1] // 2)
    return sides


def draw_rolls(
    generators: Sequence[torch.Generator], count: Sequence[int], shape: Sequence[int], lowest: int
) -> Tensor:
    """Rolls (B, *count, C, levels), uniform in [lowest, side / 2), each picture's from its own generator."""
    import torch

    sides = level_sides(shape)
    sizes = (*count, shape[0])
    return torch.stack(
        [
            torch.stack([torch.randint(lowest, side // 2, sizes, generator=g, device=g.device) for side in sides], -1)
            for g in generators
        ]
    ).cpu()


# ---------------------------------------------------------------- autocorrelation


def rolled(x: Tensor, rolls: Tensor, axis: int) -> Tensor:
    """`torch.roll` along `axis` (-2 or -1) with a roll of its own for each channel: rolls (B, C)."""
    import torch

    side = x.shape[axis]
    at = (torch.arange(side, device=x.device) - rolls[..., None]) % side  # (B, C, side)
    return x.gather(axis, (at[..., :, None] if axis == -2 else at[..., None, :]).expand_as(x))


def halved(x: Tensor) -> Tensor:
    """The next level: means of 2 x 2 blocks; an odd last row or column is left out."""
    import torch.nn.functional as F

    return F.avg_pool2d(x, 2)


def spread(gradient: Tensor, shape: Sequence[int]) -> Tensor:
    """The transpose of `halved`."""
    import torch.nn.functional as F

    wide = gradient.repeat_interleave(2, -2).repeat_interleave(2, -1) / 4
    return F.pad(wide, (0, shape[-1] - wide.shape[-1], 0, shape[-2] - wide.shape[-2]))


def autocorrelation_loss(eps: Tensor, rolls: Tensor) -> Tensor:
    """L_ac of each picture: (B,). `rolls` (B, C, levels)."""
    loss = eps.new_zeros(len(eps))
    for level in range(rolls.shape[-1]):
        eps = halved(eps) if level else eps
        for axis in (-2, -1):
            loss = loss + (eps * rolled(eps, rolls[..., level], axis)).mean((-2, -1)).square().sum(1)
    return loss


def autocorrelation_gradient(eps: Tensor, rolls: Tensor) -> Tensor:
    """The gradient of L_ac: `2 m (roll(eps, r) + roll(eps, -r)) / HW` a level and axis, m its autocorrelation."""
    levels = [eps]
    for _ in range(rolls.shape[-1] - 1):
        levels.append(halved(levels[-1]))
    gradient = eps.new_zeros(levels[-1].shape)
    for level in reversed(range(len(levels))):
        x, r = levels[level], rolls[..., level]
        if level < len(levels) - 1:
            gradient = spread(gradient, x.shape)
        for axis in (-2, -1):
            there, back = rolled(x, r, axis), rolled(x, -r, axis)
            slope = 2 * (x * there).mean((-2, -1), keepdim=True) / (x.shape[-2] * x.shape[-1])
            gradient = gradient + slope * (there + back)
    return gradient


def whiten(eps: Tensor, rolls: Tensor, rate: float) -> Tensor:
    """One step down L_ac, of the pictures whose loss does not rise."""
    moved = eps - rate * autocorrelation_gradient(eps, rolls)
    return _kept(eps, moved, autocorrelation_loss(eps, rolls), autocorrelation_loss(moved, rolls))


# ---------------------------------------------------------------- divergence from N(0, 1), picture by picture


def kl_loss(eps: Tensor) -> Tensor:
    """L_kl of each picture, over all its elements: (B,)."""
    flat = eps.flatten(1)
    variance = flat.var(1)
    return variance + flat.mean(1).square() - 1 - (variance + KL_FLOOR).log()


def kl_gradient(eps: Tensor) -> Tensor:
    """`2 (eps - mean) (1 - 1 / (var + 1e-7)) / (n - 1) + 2 mean / n`."""
    flat = eps.flatten(1)
    count, mean = flat.shape[1], flat.mean(1, keepdim=True)
    pull = 1 - 1 / (flat.var(1, keepdim=True) + KL_FLOOR)
    return (2 * (flat - mean) * pull / (count - 1) + 2 * mean / count).view_as(eps)


def normalise(eps: Tensor, rate: float) -> Tensor:
    """One step down L_kl, of the pictures whose loss does not rise."""
    moved = eps - rate * kl_gradient(eps)
    return _kept(eps, moved, kl_loss(eps), kl_loss(moved))


def _kept(eps: Tensor, moved: Tensor, before: Tensor, after: Tensor) -> Tensor:
    import torch

    return torch.where((after <= before)[(...,) + (None,) * (eps.dim() - before.dim())], moved, eps)


# ---------------------------------------------------------------- divergence from another eps, patch by patch


def patches(eps: Tensor) -> Tensor:
    """(B, C, h, w, 16): the whole 4 x 4 patches; rows and columns beyond the last one are left out."""
    return eps.unfold(-2, PATCH, PATCH).unfold(-2, PATCH, PATCH).flatten(-2)


def patch_kl_loss(own: Tensor, other: Tensor) -> Tensor:
    """`|log((v + e) / (u + e)) + (u + (mean - mean')^2) / (v + e) - 1|` of each patch, u own and v the other variance.

    Twice the KL divergence of two Gaussians, and never taken the root of: as in the authors' code.
    """
    u, v = own.var(-1), other.var(-1)
    apart = (own.mean(-1) - other.mean(-1)).square()
    return (((v + PATCH_FLOOR) / (u + PATCH_FLOOR)).log() + (u + apart) / (v + PATCH_FLOOR) - 1).abs()


def patch_kl_gradient(own: Tensor, other: Tensor) -> Tensor:
    """Of `patch_kl_loss` summed over the patches; the absolute value turns its sign where the sum is negative."""
    u, v = own.var(-1, keepdim=True), other.var(-1, keepdim=True)
    mean, far, count = own.mean(-1, keepdim=True), other.mean(-1, keepdim=True), own.shape[-1]
    total = ((v + PATCH_FLOOR) / (u + PATCH_FLOOR)).log() + (u + (mean - far).square()) / (v + PATCH_FLOOR) - 1
    by_variance = 1 / (v + PATCH_FLOOR) - 1 / (u + PATCH_FLOOR)
    by_mean = 2 * (mean - far) / (v + PATCH_FLOOR)
    return total.sign() * (by_variance * 2 * (own - mean) / (count - 1) + by_mean / count)


def match_patches(eps: Tensor, other: Tensor, rate: float) -> Tensor:
    """One step towards the statistics of `other`, of the patches whose divergence does not rise."""
    own, far = patches(eps), patches(other)
    moved = own - rate * patch_kl_gradient(own, far).clamp(-GRADIENT_LIMIT, GRADIENT_LIMIT)
    moved = _kept(own, moved, patch_kl_loss(own, far), patch_kl_loss(moved, far))
    return _from_patches(moved, eps)


def _from_patches(own: Tensor, eps: Tensor) -> Tensor:
    b, c, h, w, _ = own.shape
    whole = own.view(b, c, h, w, PATCH, PATCH).transpose(3, 4).reshape(b, c, h * PATCH, w * PATCH)
    eps = eps.clone()
    eps[..., : h * PATCH, : w * PATCH] = whole
    return eps
