"""BDIA: exact inversion by bi-directional integration (Zhang, Lewis and Kleijn, 2023, arXiv:2307.10829).

`x_(i-1) = gamma x_(i+1) - gamma DDIM(x_i, i -> i+1) + DDIM(x_i, i -> i-1)`, one network call a step; up it is solved
for x_(i+1), from a first step of plain DDIM. The record is the noise and the point before it. Up, an error grows by
1 / gamma a step: at the .5 of the authors' editing script 50 steps leave nothing of the noise.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Annotated

from unsample.errors import BadOption
from unsample.methods.base import Kept, Method, Task
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.bdia import bdia_weights
from unsample.numbers.solvers.reversible import check_reversible, two_point_steps

if TYPE_CHECKING:
    from unsample.numbers.walk import State

SAFE = 0.9  # below, (1 / gamma)^50 passes 1e3 and reaches 1e15 at .5


def _begin(task: Task) -> State:
    return {"cleaner": task.x0}


@configured
def bdia(
    gamma: Annotated[
        float,
        Setting(
            "in (0, 1], how much of the step just made is taken again from its other end; near 0 it is DDIM. The "
            "authors use 0.5 for 10 steps and for editing, 1 for 40 steps.",
            high=1.0,
        ),
    ] = 1.0,
) -> Method:
    """BDIA-DDIM: a reversible sampler that keeps the point before the last.

    The round trip needs the guidance of inversion and of sampling to be the same, and by default they are.

    Raises:
        BadOption: gamma of 0: that is DDIM, which has no exact inverse.
        Incompatible: when inverting, a grid that ends at alpha = 0, or `clip`.

    Warns:
        UserWarning: gamma below 0.9.

    Reference:
        Zhang, Lewis and Kleijn, 2023, arXiv:2307.10829, the BDIA-DDIM update. An older README of the authors gives
        gamma the opposite meaning (1 - gamma here). Their editing code starts the inversion at timestep
        -1000 / steps, which no network knows; here timestep 0 stands for the clean end.

    Example:
        >>> import unsample
        >>> list(unsample.methods.bdia().keeps)
        ['cleaner', 'rest']
    """
    if gamma == 0:
        raise BadOption("bdia: gamma must be above 0; at 0 it is ddim, which cannot be undone exactly")
    if gamma < SAFE:
        warnings.warn(
            f"bdia: gamma={gamma:g} magnifies every error by {1 / gamma:.3g} at every step of the inversion; the noise "
            "will be useless and the round trip not exact in float32; use gamma from 0.9 to 1",
            stacklevel=3,
        )
    up, down = two_point_steps(bdia_weights(gamma))
    return Method(
        invert_step=up,
        sample_step=down,
        check_grid=partial(check_reversible, "bdia"),
        begin=_begin,
        fresh=lambda x: {},  # the first step is DDIM
        keeps={"cleaner": Kept("the point before the noise"), "rest": Kept("what rounding took off the noise")},
        stores="noise to double precision and the point before it",
        exact=gamma >= SAFE,
        reversible=True,
    )
