"""What may accelerate a fixed-point iteration: the average of the last two images, and Anderson's mixing.

Anderson (1965): `x_(k+1) = sum_i w_i F(x_i)` over the last m iterates, with the weights that minimise
`|sum_i w_i r_i|` under `sum_i w_i = 1`, `r_i = F(x_i) - x_i` (beta = 1). AIDI (arXiv:2309.04907) uses both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsample.numbers.solvers.fixed_point import Accelerator

if TYPE_CHECKING:
    from torch import Tensor


def average_two(images: Sequence[Tensor], residuals: Sequence[Tensor]) -> Tensor:
    """Half of each of the last two images: AIDI-E. The first iterate has no other and is the plain one."""
    return 0.5 * images[-1] + 0.5 * images[-2] if len(images) > 1 else images[-1]


def anderson(ridge: float) -> Accelerator:
    """AIDI-A. A picture whose least squares are singular, not finite or no improvement takes the plain image.

    Args:
        ridge: added to the diagonal of the normal equations, over their mean diagonal.
    """

    def mix(images: Sequence[Tensor], residuals: Sequence[Tensor]) -> Tensor:
        import torch

        if len(images) == 1:
            return images[-1]
        weights = mixing_weights(residuals, ridge)
        stack = torch.stack(tuple(images), 1)  # (B, m, C, H, W)
        shaped = weights.to(stack.dtype)[(...,) + (None,) * (stack.dim() - 2)]
        return torch.where(shaped != 0, shaped * stack, 0).sum(1)  # a lost image of weight 0 counts for nothing

    return mix


def mixing_weights(residuals: Sequence[Tensor], ridge: float) -> Tensor:
    """Each picture's weights (B, m), newest last: float64, of sum 1; (0, ..., 0, 1) where they cannot be had.

    In differences to the newest residual r the constraint is gone: minimise `|r + D a|`, `D_i = r_i - r`. The Gram
    matrix of r_i itself would be singular where two of them are parallel, which is where mixing helps most.
    """
    import torch

    newest = residuals[-1].flatten(1).double()
    older = torch.stack([r.flatten(1).double() for r in residuals[:-1]], 1)  # (B, m - 1, CHW)
    rise = older - newest[:, None]
    gram = rise @ rise.mT
    mean = gram.diagonal(dim1=1, dim2=2).mean(1)
    gram = gram + ridge * torch.diag_embed(mean[:, None].expand(gram.shape[:2]))
    solved, info = torch.linalg.solve_ex(gram, -(rise @ newest[:, :, None]))
    left = (newest[:, None] + solved.mT @ rise).square().sum((1, 2))
    fine = (info == 0) & solved.isfinite().all((1, 2)) & (left <= newest.square().sum(1))
    solved = torch.where(fine[:, None], solved[..., 0], 0.0)
    return torch.cat([solved, 1 - solved.sum(1, keepdim=True)], 1)
