"""EDICT: exact inversion by two coupled latents (Wallace, Gokul and Naik, 2023, arXiv:2211.12446).

Down: `x' = a x + b eps(y)`, `y' = a y + b eps(x')`, `x = p x' + (1 - p) y'`, `y = p y' + (1 - p) x`; up: the same lines
undone from the last to the first. The record is the pair: without the second latent the round trip is lost. Undoing the
mixing magnifies the difference of the two by 1 / p^2 a step; hence float64 between the network's calls, as the authors.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated

from unsample.errors import BadOption
from unsample.methods.base import Kept, Method, Task
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.edict import edict_steps
from unsample.numbers.solvers.reversible import check_reversible

if TYPE_CHECKING:
    from unsample.numbers.grid import Grid
    from unsample.numbers.walk import State

MOST_GAP = 1e5  # 0.93 makes 1e3 in 50 steps, 1e5 in 80 and 1e12 in 200, where the noise is lost
SAFE = 0.9  # below, what inverting magnifies no longer fits into a float: (1 / .9^2)^50 is 4e4, (1 / .5^2)^50 is 1e30


def _begin(task: Task) -> State:
    return {"second": task.x0}  # both start as the picture


@configured
def edict(
    p: Annotated[
        float,
        Setting(
            "the mixing weight, in (0, 1]; 1 does not mix. The authors use 0.93, and 1 in their reconstruction script. "
            "It is tuned to 50 steps: inverting magnifies the gap between the two latents by p^(-2T), 1e3 at 50 steps "
            "and 1e31 at 500, so take it nearer to 1 for many more (0.93^(50 / T)).",
            high=1.0,
        ),
    ] = 0.93,
    leapfrog: Annotated[
        bool,
        Setting(
            "which latent moves first alternates from step to step. The authors count the steps from the noisiest "
            "point reached, here the parity of the grid index decides: the same for an even number of steps, and with "
            "the two latents' parts exchanged for an odd one."
        ),
    ] = True,
) -> Method:
    """EDICT: a reversible sampler of two coupled latents.

    The round trip needs the guidance of inversion and of sampling to be the same, and by default they are. The
    authors' editing script is `invert(..., guidance_scale=3, strength=0.8)` and `edit` at guidance 3, which is the
    default here; inverting goes all the way to the noise by default, as in their reconstructions.

    Raises:
        Incompatible: when inverting, a grid that ends at alpha = 0, or `clip`.

    Warns:
        UserWarning: p below 0.9, where the two latents run apart by 1 / p^2 a step and the round trip is not exact.

    Reference:
        Wallace, Gokul and Naik, 2023, arXiv:2211.12446, section 3. The authors' code agrees with it; its interpolation
        of alphas_cumprod between two timesteps has the two weights exchanged, which shows when 1000 is no multiple of
        the number of steps. Here the levels are those of the scheduler.

    Example:
        >>> import unsample
        >>> unsample.methods.edict().passes(unsample.methods.Walked(steps=50))
        100
    """
    if p == 0:
        raise BadOption("edict: p must be above 0; at 0 the mixing keeps one of the two latents only")
    if p < SAFE:
        warnings.warn(
            f"edict: p={p:g} magnifies the difference of the two latents by {1 / p**2:.3g} at every step of the "
            "inversion; the noise will be useless and the round trip not exact; use p from 0.9 to 1",
            stacklevel=3,
        )

    def check_grid(grid: Grid, stop: int) -> None:
        check_reversible("edict", grid, stop)
        if p >= SAFE and p ** (-2 * stop) > MOST_GAP:
            warnings.warn(
                f"edict: over {stop} steps p={p:g} magnifies the gap between its two latents {p ** (-2 * stop):.0e} "
                f"times, and the noise is of little use; use p={0.93 ** (50 / stop):.3f}, or fewer steps",
                stacklevel=3,
            )

    up, down = edict_steps(p, leapfrog)
    return Method(
        invert_step=up,
        sample_step=down,
        passes=lambda walked: 2 * walked.steps * walked.pair,
        check_grid=check_grid,
        begin=_begin,
        fresh=lambda x: {"second": x},  # both start as the noise
        keeps={"second": Kept("the second, coupled latent"), "rest": Kept("what rounding took off the noise")},
        stores="noise to double precision and the second, coupled latent",
        exact=p >= SAFE,
        reversible=True,
        edit_guidance_scale=3.0,
    )
