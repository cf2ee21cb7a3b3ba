"""The proximal guidance step (Han et al., 2023, arXiv:2306.05414): only the largest differences are guided.

`eps = eps_u + w prox(eps_c - eps_u)`, with prox hard (l0) or soft (l1) thresholding at a quantile of |eps_c - eps_u|,
one a picture; then, where the difference was dropped, x is pulled back onto the inversion trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.numbers.grid import Grid
from unsample.numbers.prediction import Prediction
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor


def proximal_factor(delta: Tensor, quantile: float, soft: bool) -> Tensor:
    """prox(delta) / delta, element by element, in [0, 1]; 0 where delta is 0.

    Args:
        delta: (B, ...).
        quantile: of |delta|, picture by picture; what lies under it is dropped.
        soft: whether what remains is shortened by it (l1).
    """
    import torch

    size = delta.abs()
    threshold = size.flatten(1).quantile(quantile, dim=1).reshape(-1, *[1] * (delta.ndim - 1))
    kept = (size >= threshold) & (size > 0)
    return torch.where(kept, (size - threshold) / size if soft else torch.ones_like(size), 0.0)


@dataclass(frozen=True)
class Proximal:
    """Settings of the step; the state's `pivots` (B, K, C, H, W) are the inversion trajectory's points, clean first."""

    quantile: float = 0.7
    soft: bool = False
    recon_t: int = 400
    recon_lr: float = 1.0
    dilate_mask: int = 1

    def __call__(self, predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        """From noisier i to cleaner j."""
        free, bound = predict.pair(x, i)
        # both hold x = alpha x0 + sigma eps, so the factor of eps is that of x0; at alpha = 0 only x0 tells them apart
        delta = bound.eps - free.eps if grid.eval_alpha[i] > 0 else bound.x0 - free.x0
        factor = proximal_factor(delta, self.quantile, self.soft)
        gain = predict.scales[i] * factor
        joined = Prediction(free.x0 + gain * (bound.x0 - free.x0), free.eps + gain * (bound.eps - free.eps))
        p = predict.clamped(joined)
        x = grid.alpha[j] * p.x0 + grid.sigma[j] * p.eps
        if grid.timesteps[i] < self.recon_t:
            x = x.lerp(state["pivots"][:, j], self.recon_lr * (1 - self._edited(factor)))
        return x, state

    def _edited(self, factor: Tensor) -> Tensor:
        """1 where the difference was kept and around it, else 0."""
        from torch.nn.functional import max_pool2d

        r = self.dilate_mask
        return max_pool2d((factor > 0).to(factor), 2 * r + 1, stride=1, padding=r)
