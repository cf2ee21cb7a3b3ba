"""Text embeddings fitted to an inversion trajectory: under them a guided sampling step lands on its next point.

`min over e of mean((step(x_i; e) - x*_j)^2)` by Adam, one embedding a picture and a step, each started where the one
before it ended (null-text inversion, arXiv:2211.09794, Eq. 3, and prompt tuning inversion, arXiv:2305.04441). Only one
half of a guided prediction depends on e; the other is asked for once a step. Every picture has its own moments and its
own end, and gradients go to its embedding alone, never to the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from unsample.numbers.prediction import Prediction
from unsample.numbers.solvers.fixed_point import rms
from unsample.numbers.solvers.gradient import gradient_of
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

Half = Literal["unconditional", "condition"]
"""Which half of a guided prediction has the embedding that is fitted."""

THRESHOLD_GROWTH = 1e-3  # over a whole walk; the 2e-5 a step of the authors' 50 steps
MOMENTS = 0.9, 0.999  # Adam's decay of the mean and of the square, and what keeps it from dividing by 0
TINY = 1e-8


@dataclass(frozen=True)
class Descent:
    """How an embedding is fitted. `done` is the fraction of the grid that is behind: 0 at the noisiest step.

    At 50 steps, rate and threshold are those of the authors' code at its step k, `rate (1 - k / 100)` and
    `below + 2e-5 k`; at other numbers of steps they keep their course, so that the rate never falls below one half.
    """

    num_inner_steps: int = 10
    learning_rate: float = 1e-2
    stop_below: float | None = None

    def rate(self, done: float) -> float:
        """The learning rate of a step."""
        return self.learning_rate * (1 - done / 2)

    def threshold(self, done: float) -> float:
        """The loss under which a picture makes no further update at a step."""
        return -1.0 if self.stop_below is None else self.stop_below + THRESHOLD_GROWTH * done


def with_embeds(predict: Any, half: Half, embeds: Tensor) -> Any:
    """`predict` with other embeddings (B, L, D) in one half."""
    halves = {"condition": predict.condition, "unconditional": predict.unconditional}
    halves[half] = replace(halves[half] or predict.condition, prompt_embeds=embeds)
    return predict.with_condition(halves["condition"], halves["unconditional"])


def matters(predict: Any, half: Half, i: int) -> bool:
    """Whether the guidance at grid point i asks that half at all."""
    asked = predict.scales[i] != (1 if half == "unconditional" else 0)
    return bool(asked if isinstance(asked, bool) else asked.any())  # a scale for all, or one a picture


@dataclass(frozen=True)
class Target:
    """One sampling step, from `x` at grid point i to `pivot` at i - 1, as a function of the embeddings."""

    predict: Any
    half: Half
    x: Tensor
    i: int
    pivot: Tensor
    other: Prediction | None  # of the half that is not fitted; None where guidance does not ask it

    @staticmethod
    def at(predict: Any, half: Half, x: Tensor, i: int, pivot: Tensor) -> Target:
        """The step at grid point i, with the other half asked for."""
        asked = matters(predict, "condition" if half == "unconditional" else "unconditional", i)
        ask = predict.conditional if half == "unconditional" else predict.free
        return Target(predict, half, x, i, pivot, ask(x, i) if asked else None)

    def reached(self, embeds: Tensor, rows: Tensor | None = None) -> Tensor:
        """Where the step leads under embeddings (B, L, D), for the pictures that `rows` names."""
        x = self.x if rows is None else self.x[rows]
        p = self._prediction(embeds, x, rows)
        grid, j = self.predict.grid, self.i - 1
        landed: Tensor = grid.alpha[j] * p.x0 + grid.sigma[j] * p.eps
        return landed

    def _prediction(self, embeds: Tensor, x: Tensor, rows: Tensor | None) -> Prediction:
        other = self.other
        if not matters(self.predict, self.half, self.i):
            assert other is not None
            return other
        if other is not None and rows is not None:
            other = Prediction(other.x0[rows], other.eps[rows])
        changed = with_embeds(self.predict, self.half, embeds)
        own: Prediction = (changed.free if self.half == "unconditional" else changed.conditional)(x, self.i, rows)
        if other is None:
            return own
        pair = (own, other) if self.half == "unconditional" else (other, own)
        joined: Prediction = self.predict.guided(*pair, self.i)
        return joined

    def losses(self, embeds: Tensor, rows: Tensor) -> Tensor:
        """Mean squared distance from the pivot, a picture: (rows,)."""
        every = len(rows) == len(self.x)
        reached = self.reached(embeds, None if every else rows)
        return (reached - self.pivot[rows]).flatten(1).square().mean(1)

    def miss(self, reached: Tensor) -> Tensor:
        """How far the step led from the pivot, over the RMS of the pivot: (B,)."""
        import torch

        distance = rms(reached - self.pivot)
        return torch.where(distance == 0, 0.0, distance / rms(self.pivot))


class Adam:
    """Adam (arXiv:1412.6980, Algorithm 1) for one float32 embedding a picture, each with its own moments and count.

    Not `torch.optim`, whose step imports torch's compiler, and which knows no rows that stand still.
    """

    def __init__(self, start: Tensor, rate: float) -> None:
        """`start` (B, L, D)."""
        import torch

        self.embeds, self.rate = start.detach().float(), rate
        self.mean, self.square = torch.zeros_like(self.embeds), torch.zeros_like(self.embeds)
        self.count = torch.zeros(len(start), *[1] * (start.ndim - 1), device=start.device)

    def update(self, target: Target, rows: Tensor) -> Tensor:
        """One step down for the pictures in `rows`, one evaluation of each; their losses before it.

        A picture whose loss or gradient is not finite keeps its embedding, and its loss is given as nan.
        """
        import torch

        with torch.enable_grad():
            leaf = self.embeds.clone().requires_grad_()
            losses = target.losses(leaf, rows)
            total = torch.where(losses.isfinite(), losses, 0.0).sum()
            gradient = gradient_of(total, leaf, target.predict, target.i)
        sound = losses.isfinite() & gradient[rows].flatten(1).isfinite().all(1)
        self._move(rows[sound], gradient[rows[sound]])
        return torch.where(sound, losses.detach(), torch.nan)

    def _move(self, rows: Tensor, gradient: Tensor) -> None:
        self.count[rows] += 1
        self.mean[rows] = MOMENTS[0] * self.mean[rows] + (1 - MOMENTS[0]) * gradient
        self.square[rows] = MOMENTS[1] * self.square[rows] + (1 - MOMENTS[1]) * gradient.square()
        mean, square = (
            m[rows] / (1 - decay ** self.count[rows])
            for m, decay in zip((self.mean, self.square), MOMENTS, strict=True)
        )
        self.embeds = self.embeds.index_add(0, rows, mean / (square.sqrt() + TINY), alpha=-self.rate)


def fit_each_step(
    predict: Any, pivots: list[Tensor], half: Half, start: Tensor, descent: Descent, steps: Iterable[int]
) -> tuple[Tensor, State]:
    """An embedding a step.

    Args:
        predict: under the guidance of sampling.
        pivots: the points of the inversion trajectory, clean first.
        half: which half of the prediction is fitted.
        start: (B, L, D), the embedding that the noisiest step starts from.
        descent: how.
        steps: 0 to len(pivots) - 2, from the noisiest step on; a progress bar, say.

    Returns:
        (B, T, L, D), the embedding of the last step first; and `residual`, the largest relative distance from a pivot,
        and `residual_step`, the noisier end of that step, both (B,).
    """
    import torch

    x, embeds, kept = pivots[-1], start.float(), []
    missed: list[Tensor] = []
    for k in steps:
        i = len(pivots) - 1 - k
        target = Target.at(predict, half, x, i, pivots[i - 1])
        if matters(predict, half, i):
            embeds = _descend(target, embeds, descent, k / predict.grid.num_steps)
        x = target.reached(embeds)
        missed.append(target.miss(x))
        lost = ~x.flatten(1).isfinite().all(1)
        kept.append(torch.where(lost.reshape(-1, *[1] * (embeds.ndim - 1)), torch.nan, embeds))  # it plays nothing back
    return torch.stack(kept[::-1], 1), _largest(torch.stack(missed), range(len(pivots) - 1, 0, -1))


def _largest(missed: Tensor, points: Sequence[int]) -> State:
    """Of the distances (T, B) at grid points."""
    import torch

    largest, place = missed.max(0)
    return {"residual": largest, "residual_step": torch.tensor(points, device=missed.device)[place]}


def _descend(target: Target, start: Tensor, descent: Descent, done: float) -> Tensor:
    """The embeddings after the inner steps of one step; a picture stops after the update that found it good enough."""
    import torch

    adam = Adam(start, descent.rate(done))
    active = torch.arange(len(start), device=start.device)
    for _ in range(descent.num_inner_steps):
        losses = adam.update(target, active)
        active = active[losses >= descent.threshold(done)]  # nan is not
        if len(active) == 0:
            break
    return adam.embeds


def fit_one_for_all(
    predict: Any, pivots: list[Tensor], half: Half, start: Tensor, descent: Descent, sweeps: Iterable[int]
) -> tuple[Tensor, State]:
    """One embedding for all steps: each sweep goes over the steps, from the noisiest, with one update at each.

    A step starts at its pivot, not where the one before it led. A picture ends with the first sweep whose losses all
    lie under their thresholds. Arguments and results as in `fit_each_step`, with `sweeps` for `steps` and T = 1.
    """
    import torch

    points = [i for i in range(len(pivots) - 1, 0, -1) if matters(predict, half, i)]
    targets = [Target.at(predict, half, pivots[i], i, pivots[i - 1]) for i in points]
    adam = Adam(start, descent.rate(0))
    active = torch.arange(len(start), device=start.device)
    missed = torch.zeros(len(targets), len(start), dtype=pivots[0].dtype, device=start.device)
    for _ in sweeps:
        if len(active) == 0:
            break
        going = torch.zeros(len(active), dtype=torch.bool, device=start.device)
        for k, target in enumerate(targets):
            losses = adam.update(target, active)
            missed[k, active] = torch.where(losses == 0, 0.0, losses.sqrt() / rms(target.pivot[active]))
            going |= losses >= descent.threshold((len(pivots) - 1 - target.i) / predict.grid.num_steps)
        active = active[going]
    lost = ~missed.isfinite().all(0)
    embeds = torch.where(lost.reshape(-1, *[1] * (start.ndim - 1)), torch.nan, adam.embeds)  # it plays nothing back
    return embeds[:, None], _largest(missed, points)
