"""DPM-Solver++ as the sampler (Lu et al., 2022, arXiv:2211.01095), and its inversion (Hong et al., arXiv:2311.18387).

`x_i = a x_j + b (m_j + c (m_j - m_(j+1)))`, m = x0 predicted, is solved for x_j by backward Euler; of order 2 the term
with c is fixed at anchors from a fine naive run. Running the sampler on the reversed grid (diffusers'
`DPMSolverMultistepInverseScheduler`) is no inverse of it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from unsample.errors import BadOption
from unsample.methods.base import Method, Task, Walked
from unsample.methods.settings import Setting, configured
from unsample.numbers.walk import State

FINE_STEP = 10  # the authors' code


@configured
def dpm_solver(
    order: Annotated[int, Setting("1 (DDIM) or 2 (multistep, midpoint).", among=(1, 2))] = 2,
    exact: Annotated[
        bool,
        Setting(
            "true solves each sampling step for its input; false runs the sampler on the reversed grid, one pass a "
            "step; the settings below are then refused."
        ),
    ] = True,
    max_iters: Annotated[int, Setting("iterations a step at most.", low=1)] = 500,
    tol: Annotated[
        float | None,
        Setting(
            "a picture's step ends at this mean squared residual an element (the authors' sum of squares of 1e-3 over "
            "16,384); None runs all iterations."
        ),
    ] = 6e-8,
    step_size: Annotated[
        float | None,
        Setting(
            "rho of `x_j <- x_j - rho (f(x_j) - x_i)`; at 0.5 the first step of order 2 takes 1, as in the authors' "
            "code; None is that code's own course for order 2, 10 / timestep (0.5 at most)."
        ),
    ] = 0.5,
    warmup: Annotated[int, Setting("iterations over which rho grows to its value.")] = 20,
    patience: Annotated[int, Setting("iterations without progress after which rho is halved.")] = 20,
    fine_step: Annotated[
        int, Setting("timesteps between the points of the fine run to the anchors; of order 2 only.", low=1)
    ] = FINE_STEP,
) -> Method:
    """Inversion of DPM-Solver++ 1 or 2M, played back by DPM-Solver++.

    The record is the noise alone, but it belongs to this sampler: plain DDIM from the same noise makes another picture.
    The first and the last sampling step are of order 1. The timesteps and levels are the scheduler's own: give the
    model a `DPMSolverMultistepScheduler` (of flow sigmas too) and the walk is the one that diffusers samples by.

    Raises:
        BadOption: settings of the exact inversion when `exact` is false.
        Incompatible: when inverting with order 2, levels between which no more are known (angles).

    Reference:
        Lu et al., 2022, arXiv:2211.01095, Algorithm 2; Hong et al., 2024, arXiv:2311.18387, Algorithms 1 and 2.

    Example:
        >>> import unsample
        >>> unsample.methods.dpm_solver(order=1, exact=False).passes(unsample.methods.Walked(steps=50))
        50
    """
    from unsample.numbers.solvers.dpm_exact import Correction, dpm_exact
    from unsample.numbers.solvers.dpm_solver import dpm_reverse, dpm_sample

    how = Correction(max_iters, tol, step_size, warmup, patience)
    if step_size == 0:
        raise BadOption("dpm_solver: step_size must be more than 0; got 0")
    if not exact and (how, fine_step) != (Correction(), FINE_STEP):
        raise BadOption("dpm_solver: exact=False iterates nothing; leave the settings of the iteration out")
    return Method(
        invert_step=dpm_exact(order, how, fine_step) if exact else dpm_reverse(order),
        sample_step=dpm_sample(order),
        passes=lambda walked: _passes(walked, order, max_iters, fine_step) if exact else walked.steps * walked.pair,
        begin=_stop if exact else None,
        fresh=lambda x: {},
        handles_guidance=exact,
    )


def _stop(task: Task) -> State:
    """Sampling starts at the noisiest point reached, with a step of order 1: the inversion must know where."""
    import torch

    return {"stop": torch.full((len(task.x0),), task.stop, dtype=torch.int64, device=task.x0.device)}


def _passes(walked: Walked, order: int, max_iters: int, fine_step: int) -> int:
    """A start and the iterations; of order 2, but for both ends, two fine runs and an anchor in place of the start."""
    from unsample.numbers.solvers.dpm_exact import fine_steps

    steps = walked.steps
    total = steps * (1 + max_iters)
    if order == 2:
        at = walked.timesteps or tuple(1000 * k // steps for k in range(1, steps + 1))
        cuts = [fine_steps(a, b, fine_step) for a, b in pairwise(at)]  # cuts[k]: from grid point k + 1 to k + 2
        total += sum(a + b for a, b in pairwise(cuts))
    return total * walked.pair
