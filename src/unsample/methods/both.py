"""What inversion-free edits share: a record of the picture and its noises, and both prompts asked side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.methods.base import Axis, Kept, Method, Task, nothing
from unsample.numbers.solvers.coupled import noised_source, stay

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.guidance import Cost, Predict
    from unsample.numbers.grid import Grid
    from unsample.numbers.walk import State, Step


@dataclass(frozen=True)
class Both:
    """The two predictions of an edit, counted as one."""

    source: Predict  # the inversion's prompt
    target: Predict  # the edit's

    @property
    def cost(self) -> Cost:
        """What both have cost."""
        return self.target.cost


def played_by_target(plain: Step) -> Step:
    """A step of one prediction, where there are two."""

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        return plain(predict.target, x, grid, i, j, state)

    return step


def inversion_free(draws: int = 1) -> Method:
    """A method that keeps the picture and `draws` noises a step, and asks the network nothing before an edit."""

    def begin(task: Task) -> State:
        return {"source": task.x0, "forward_noise": task.noise(task.stop * draws, *task.x0.shape[1:])}

    def up(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        return noised_source(state, grid, j, 0, draws), state

    each = Axis("K", lambda timesteps, stop: (stop * draws,))
    return Method(
        invert_step=up,
        sample_step=stay(draws),
        passes=nothing,
        begin=begin,
        keeps={
            "source": Kept("the picture, in the range of the model"),
            "forward_noise": Kept("the noises of an edit, the last step's first", each),
        },
        stores="the picture, and the noises of an edit",
        fitted=True,
        exact=True,
        needs_prompt=True,
    )
