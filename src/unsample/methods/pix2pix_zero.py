"""pix2pix-zero's inversion: every predicted eps is pulled towards white Gaussian noise before the step is taken.

`num_reg_steps` times: `num_ac_rolls` times `eps -= lambda_ac grad L_ac / num_ac_rolls`, then `eps -= lambda_kl grad
L_kl` (Parmar et al., 2023, arXiv:2302.03027; losses in `solvers.regularise`); then the step of the base.
The gradients are those of eps alone: no pass backward through the network. The authors' loop leaves out the first and
the last timestep (48 of 50); here all T steps run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.errors import Incompatible
from unsample.methods.base import Method, Task
from unsample.methods.ddim import ddim
from unsample.methods.inner import Base, as_base, holds
from unsample.methods.settings import Setting, configured
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid
    from unsample.numbers.prediction import Prediction


@configured
def pix2pix_zero(
    base: Annotated[
        Base,
        Setting(
            "the step whose eps is regularised: any that keeps the noise alone and needs no gradients. The bare name "
            "`ddim` is DDIM as the authors pair it, asked at the source level; a configured one, `ddim()` or "
            "`base.eps_at=target`, is taken as it is."
        ),
    ] = "ddim",
    lambda_ac: Annotated[float, Setting("weight of the autocorrelation, at least 0.")] = 20.0,
    lambda_kl: Annotated[float, Setting("weight of the divergence from N(0, 1), at least 0.")] = 20.0,
    num_reg_steps: Annotated[int, Setting("rounds of regularisation a prediction.", low=1)] = 5,
    num_ac_rolls: Annotated[
        int,
        Setting("autocorrelation steps a round, each with fresh seeded rolls for every channel and level.", low=1),
    ] = 5,
    lowest_roll: Annotated[
        int,
        Setting(
            "1 draws rolls from [1, side / 2); 0 from [0, side / 2), as both the authors' code (`randrange`) and "
            "diffusers do, though a roll of 0 compares eps with itself and asks it to vanish.",
            among=(0, 1),
        ),
    ] = 1,
) -> Method:
    """Inversion with autocorrelation and KL regularisation of eps.

    A step that would raise the loss it descends is not taken (`solvers.regularise` says why); one step's predictions
    share their rolls, so that an implicit base solves one equation.

    Raises:
        Incompatible: a base that keeps more than the noise, differentiates, or regularises eps already.

    Reference:
        Parmar, Singh, Zhang, Li, Lu and Zhu, 2023, arXiv:2302.03027.

    Example:
        >>> import unsample
        >>> method = unsample.methods.pix2pix_zero(base=unsample.methods.fixed_point(5))
        >>> method.passes(unsample.methods.Walked(steps=50)), method.needs_grad
        (250, False)
    """
    inner = ddim(eps_at="source") if base == "ddim" else as_base(base, "pix2pix_zero", needs_grad=False)
    if holds(inner, _regularises):
        raise Incompatible(f"pix2pix_zero(base={inner.name}) makes no sense: its eps is regularised already")
    rates = (lambda_ac / num_ac_rolls, lambda_kl)

    def begin(task: Task) -> State:
        return _rolls(task, inner, (num_reg_steps, num_ac_rolls), lowest_roll)

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        pulled = Regularised(predict, grid, state["ac_rolls"][:, j - 1], rates)
        return inner.invert_step(pulled, x, grid, i, j, state)

    def notes(grid: Grid, stop: int, state: State) -> dict[str, Any]:
        told = {} if inner.notes is None else inner.notes(grid, stop, state)
        return {**told, "regularised": {"name": inner.name, "settings": dict(inner.settings)}}  # which "ddim" it was

    return replace(inner, invert_step=step, begin=begin, no_root="it solves for a regularised eps", notes=notes)


class Regularised:
    """A `predict` whose eps is regularised, and its x0 with it."""

    def __init__(self, predict: Any, grid: Grid, rolls: Tensor, rates: tuple[float, float]) -> None:
        """`rolls` (B, rounds, rolls a round, C, levels); `rates` of the two losses."""
        self.predict, self.grid, self.rolls, self.rates = predict, grid, rolls, rates

    def __call__(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """As `Predict`."""
        from unsample.numbers.prediction import Prediction

        found = self.predict(x, i, rows)
        alpha, sigma, clip = self.grid.eval_alpha[i], self.grid.eval_sigma[i], self.grid.clip
        if alpha == 0:
            return found  # every eps equals x there
        eps = self.regularised(found.eps, self.rolls if rows is None else self.rolls[rows])
        x0 = (x - sigma * eps) / alpha
        return Prediction(x0 if clip is None else x0.clamp(-clip, clip), eps)

    def __getattr__(self, name: str) -> Any:
        """A base that asks for anything but eps would go round the regulariser."""
        raise Incompatible(f"pix2pix_zero regularises the guided eps alone, and its base asks for predict.{name}")

    def regularised(self, eps: Tensor, rolls: Tensor) -> Tensor:
        """The rounds of both losses."""
        from unsample.numbers.solvers.regularise import normalise, whiten

        by_ac, by_kl = self.rates
        for outer in range(rolls.shape[1]):
            for roll in rolls[:, outer].unbind(1) if by_ac > 0 else ():
                eps = whiten(eps, roll, by_ac)
            eps = normalise(eps, by_kl) if by_kl > 0 else eps
        return eps


def _rolls(task: Task, base: Method, count: tuple[int, int], lowest: int) -> State:
    """The rolls of every step, drawn before the walk: (B, T, rounds, rolls a round, C, levels)."""
    from unsample.numbers.solvers.regularise import LEAST_SIDE, draw_rolls

    shape = task.x0.shape[1:]
    if len(shape) != 3 or min(shape[-2:]) < LEAST_SIDE:
        raise Incompatible(f"pix2pix_zero needs latents of at least {LEAST_SIDE} x {LEAST_SIDE}; got {tuple(shape)}")
    state = {} if base.begin is None else base.begin(task)
    rolls = draw_rolls(task.generators, (task.stop, *count), shape, lowest)
    return {**state, "ac_rolls": rolls.to(task.x0.device)}


def _regularises(method: Method) -> bool:
    """Whether it pulls eps towards white noise itself."""
    return method.name == "pix2pix_zero" or (method.name == "renoise" and method.settings["num_reg_steps"] > 0)
