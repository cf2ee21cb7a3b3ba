"""Fresh noise in place of an inversion: the floor of every comparison.

`x_stop = n ~ N(0, I)`, seeded, whatever the picture is. What a metric gives to this row it gives for nothing. The seed
follows from the picture's content by default, so two pictures never share a noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unsample.methods.base import DRAWN, Method, Task, nothing
from unsample.methods.settings import configured

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid
    from unsample.numbers.walk import State


def _begin(task: Task) -> State:
    return {"fresh": task.noise()}


def _up(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
    return state["fresh"], state


@configured
def random_noise() -> Method:
    """Noise that knows nothing of the picture; the floor. It reconstructs some other picture.

    Reference:
        The model's own prior: Ho, Jain and Abbeel, 2020, arXiv:2006.11239.

    Example:
        >>> import unsample
        >>> unsample.methods.random_noise().passes(unsample.methods.Walked(steps=50))
        0
    """
    return Method(invert_step=_up, passes=nothing, begin=_begin, stores="fresh noise", no_root=DRAWN)
