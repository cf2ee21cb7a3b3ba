"""ReNoise's inversion step: several predictions at the noisier point, averaged and regularised.

`x^(k+1) = F(x_i, eps(x^(k), t_j))`, x^(0) = x_i or the start that it is given, k = 0 .. K;
`x_j = F(x_i, reg(mean of eps_k, k in a window))` (Garibi et al., 2024, arXiv:2403.14602). Within and beyond the window
the iterates too go on from a regularised eps; where K ends before the window, the last iterate is the result and
nothing is regularised. A picture whose residual RMS(F(x) - x) is larger at the end than at the start keeps its best
iterate, as in `fixed_point`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.numbers.prediction import Prediction
from unsample.numbers.solvers.fixed_point import LOOSE, each, rms, with_residual
from unsample.numbers.solvers.regularise import match_patches, whiten
from unsample.numbers.solvers.stochastic import noisy_carry
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


@dataclass(frozen=True)
class RenoisePlan:
    """What a step does, by its timestep."""

    num_renoise_steps: int
    early_renoise_steps: int  # at most so many where the timestep is below `early_timestep`
    early_timestep: float
    early_window: tuple[int, int]  # the predictions k that are averaged, from and before, early
    late_window: tuple[int, int]  # and at the other steps
    average: bool
    lambda_ac: float
    lambda_kl: float
    num_reg_steps: int
    num_ac_rolls: int
    eta: float

    def last(self, timestep: float) -> int:
        """K: predictions are made for k = 0 .. K."""
        early = timestep < self.early_timestep
        return min(self.early_renoise_steps, self.num_renoise_steps) if early else self.num_renoise_steps

    def window(self, timestep: float) -> tuple[int, int]:
        """The predictions that are averaged, from and before."""
        return self.early_window if timestep < self.early_timestep else self.late_window

    def regularises_from(self, timestep: float) -> int:
        """The first prediction that is regularised; beyond K: none is."""
        if self.num_reg_steps == 0 or self.lambda_ac == self.lambda_kl == 0:
            return self.last(timestep) + 1
        low = self.window(timestep)[0]
        return low if self.average else min(low, 1)

    def compares(self, timestep: float) -> bool:
        """Whether a prediction at the forward-noised picture is asked for, which only the divergence needs."""
        return self.lambda_kl > 0 and self.regularises_from(timestep) <= self.last(timestep)

    def passes(self, timestep: float) -> int:
        """Predictions of one step."""
        return self.last(timestep) + 1 + self.compares(timestep)


def regularised(
    p: Prediction, reference: Tensor | None, rolls: Tensor, plan: RenoisePlan, levels: tuple[float, float]
) -> Prediction:
    """With eps regularised: patches towards the reference, then whitened; `rolls` (B, rounds, rolls, C, levels).

    x0 follows, so that `alpha x0 + sigma eps` stays (`levels` are alpha and sigma): a step along eps does not read it,
    one along a flow's velocity does. Where alpha is 0, eps fixes nothing.
    """
    eps = p.eps
    for outer in range(plan.num_reg_steps):
        if reference is not None:
            eps = match_patches(eps, reference, plan.lambda_kl)
        if plan.lambda_ac > 0:
            for roll in rolls[:, outer].unbind(1):
                eps = whiten(eps, roll, plan.lambda_ac / plan.num_ac_rolls)
    alpha, sigma = levels
    return Prediction(lambda: p.x0 + sigma / alpha * (p.eps - eps) if alpha > 0 else p.x0, eps)


def renoise_invert(plan: RenoisePlan) -> Step:
    """The step, from x or from `start`. Its state holds what `begin` drew, and each picture's `residual` and
    `converged`."""

    def step(
        predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State, start: Tensor | None = None
    ) -> tuple[Tensor, State]:
        iterates = Iterates(predict, x, grid, (i, j), plan, state, x if start is None else start)
        for k in range(plan.last(grid.timesteps[j]) + 1):
            iterates.advance(k)
        return iterates.finish()

    return step


class Iterates:
    """The iterates of one step."""

    def __init__(
        self,
        predict: Any,
        x: Tensor,
        grid: Grid,
        ends: tuple[int, int],
        plan: RenoisePlan,
        state: State,
        guess: Tensor,
    ) -> None:
        self.predict, self.x, self.grid, self.plan, self.state = predict, x, grid, plan, state
        self.i, self.j = ends
        self.timestep = grid.timesteps[self.j]
        self.noise = state["noises"][:, self.j - 1] if plan.eta > 0 else None
        self.guess, self.best, self.count = guess, x, 0
        self.mean: Prediction | None = None
        self.first = self.smallest = self.latest = self.relative = x.new_zeros(len(x))
        self.reference: Tensor | None = None
        if plan.compares(self.timestep):
            there = grid.alpha[self.j] * state["renoise_x0"] + grid.sigma[self.j] * state["renoise_noise"]
            self.reference = predict(there, self.j).eps

    def image(self, p: Prediction) -> Tensor:
        """F(x_i, eps)."""
        return noisy_carry(self.x, p, self.grid, self.i, self.j, self.plan.eta, self.noise)

    def pulled(self, p: Prediction, k: int) -> Prediction:
        """Regularised with the k-th rolls of the step."""
        levels = (self.grid.alpha[self.j], self.grid.sigma[self.j])
        return regularised(p, self.reference, self.state["renoise_rolls"][:, self.j - 1, k], self.plan, levels)

    def advance(self, k: int) -> None:
        """One prediction, into the mean and on to the next iterate."""
        p = self.predict(self.guess, self.j)
        image = self.image(p)
        self.judge(image, k)
        low, high = self.plan.window(self.timestep)
        if self.plan.average and low <= k < high:
            self.count += 1
            self.mean = p if self.mean is None else _mean(self.mean, p, self.count)
        replaced = k == self.plan.last(self.timestep) and self.mean is not None  # by the mean: not worth regularising
        if k >= self.plan.regularises_from(self.timestep) and not replaced:
            image = self.image(self.pulled(p, k))
        self.guess = image

    def judge(self, image: Tensor, k: int) -> None:
        """Keep the image of the smallest residual."""
        import torch

        residual, scale = rms(image - self.guess), rms(self.guess)
        self.first = residual if k == 0 else self.first
        better = (residual < self.smallest) | (k == 0)
        self.best = torch.where(each(better, image), image, self.best)
        self.smallest = torch.where(better, residual, self.smallest)
        self.latest = residual
        self.relative = torch.where(residual > 0, residual / scale, 0.0)

    def finish(self) -> tuple[Tensor, State]:
        """The point reached and the state: from the mean where there is one."""
        import torch

        x_next = self.guess
        if self.mean is not None:
            last = self.plan.last(self.timestep)
            regular = self.plan.regularises_from(self.timestep) <= last
            x_next = self.image(self.pulled(self.mean, last + 1) if regular else self.mean)
        fine = (self.latest <= self.first) | (self.relative <= LOOSE)
        fine &= x_next.flatten(1).isfinite().all(1)
        told = with_residual(self.state, self.relative, fine, self.j)
        return torch.where(each(fine, x_next), x_next, self.best), told


def _mean(mean: Prediction, p: Prediction, count: int) -> Prediction:
    """The running mean with one more prediction in it, `count` with it."""
    return Prediction(mean.x0 + (p.x0 - mean.x0) / count, mean.eps + (p.eps - mean.eps) / count)
