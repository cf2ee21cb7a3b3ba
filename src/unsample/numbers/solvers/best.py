"""What an iteration keeps of each picture: its best iterate, how good that is, and whether the picture goes on.

A picture whose residual grows is returned at its best iterate; one that is lost costs nothing more. Methods that look
for a root of their own (gradient descent, Newton-Raphson, the exact inversion of DPM-Solver) share this account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unsample.numbers.solvers.fixed_point import LOOSE, with_residual
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor


class Best:
    """The best iterate of each picture of a step.

    Args:
        x: (B, C, H, W); what a picture has before anything was seen of it.
    """

    def __init__(self, x: Tensor) -> None:
        import torch

        self.iterate = x
        self.active = torch.arange(len(x), device=x.device)
        self.smallest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.relative, self.first = self.smallest.clone(), self.smallest.clone()
        self.seen = False

    @property
    def rows(self) -> Tensor | None:
        """The pictures that go on, None for all."""
        return None if len(self.active) == len(self.smallest) else self.active

    def see(self, candidate: Tensor, score: Tensor, relative: Tensor) -> Tensor:
        """Keep the candidates that are the best so far of the active pictures; (A,) whether they are.

        Args:
            candidate: (A, C, H, W).
            score: (A,), what the best is chosen by.
            relative: (A,), its residual over its size, which is what the result tells.
        """
        import torch

        better = score < self.smallest[self.active]
        if not self.seen:  # a picture that is lost from the start goes out as not finite
            candidate = torch.where(score.isfinite()[:, None, None, None], candidate, torch.nan)
            better = torch.ones_like(better)
            self.first, self.seen = score.clone(), True
        chosen = self.active[better]
        self.iterate = self.iterate.index_copy(0, chosen, candidate[better])
        self.smallest = self.smallest.index_copy(0, chosen, score[better])
        self.relative = self.relative.index_copy(0, chosen, relative[better])
        return better

    def go_on(self, going: Tensor) -> bool:
        """Only the active pictures of `going` (A,) go on; whether there are any."""
        self.active = self.active[going]
        return len(self.active) > 0

    def judged(self, state: State, within: Tensor | None, j: int) -> State:
        """The state with `residual`, the largest of any step, `residual_step`, where it was, and `converged`.

        Args:
            state: of the steps before.
            within: (B,) whether the tolerance was met; None without one: then a picture has converged when its residual
                fell, to 1 % of its size at least.
            j: the grid point of this step.
        """
        import torch

        if within is None:
            within = (self.smallest < self.first) & (self.relative <= LOOSE)
        converged = within | (self.relative <= 10 * torch.finfo(self.relative.dtype).eps)
        return with_residual(state, self.relative, converged, j)


def relative_size(residual: Tensor, size: Tensor) -> Tensor:
    """residual / size, and 0 where there is no residual."""
    import torch

    return torch.where(residual == 0, torch.zeros_like(residual), residual / size)
