"""Forward diffusion first: the first few inversion steps are replaced by adding seeded noise, the rest are inverted.

`x_j = alpha_j x_0 + sigma_j n` for j = 1 .. k, k = max(1, round(fraction T)), then the base from k on (Staniszewski,
Kucinski and Deja, 2024, arXiv:2410.23530, Sec. 5): the first steps of DDIM inversion err most, and correlate the noise
in plain areas. The level reached is that of grid point k, for every model; the authors' code noises some models to
timesteps[k] and goes on from timesteps[k - 1], one level off. The result depends on the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.errors import BadOption
from unsample.methods.base import Method, Task, Walked
from unsample.methods.inner import Base, as_base
from unsample.methods.known import known
from unsample.methods.settings import KnownTo, Setting, configured
from unsample.numbers.solvers.ddpm_maps import forward_noised
from unsample.numbers.solvers.noisy import drowned, ratio
from unsample.numbers.solvers.start import handed_on
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

FRACTION = 0.04


@configured
def forward_first(
    base: Annotated[Base, Setting("the inversion that goes on from there; any that keeps the noise alone.")] = "ddim",
    fraction: Annotated[
        float,
        Setting(
            "of the steps walked, from 0 to 1; at least one step is replaced. 1 is forward diffusion alone.", high=1.0
        ),
    ] = FRACTION,
    shared_noise: Annotated[
        int | None,
        Setting(
            "None draws one noise a picture; a number is the seed of one noise that all pictures share, as the "
            "authors' `forward_seed`. A shared one hides in correlations that are taken across pictures."
        ),
    ] = None,
    x0_noise: KnownTo = None,
) -> Method:
    """Forward diffusion for the first fraction of the steps, then an inversion.

    With `x0_noise`, in place of `fraction`, it goes to the first level that is no less noisy than the picture is, and
    adds only what that level has more. Behind an autoencoder `8bit` begins at the latents that decode to the picture.

    The record's `forward_steps` and `forward_timestep` say how far the forward diffusion went.

    Raises:
        Incompatible: a base that keeps more than the noise, or that says itself what the first steps are; `x0_noise`
            of more than the noisiest level has.

    Reference:
        Staniszewski, Kucinski and Deja, 2024, arXiv:2410.23530, Sec. 5.

    Example:
        >>> import unsample
        >>> unsample.methods.forward_first(base="fixed_point").passes(unsample.methods.Walked(steps=50))
        480
    """
    if x0_noise is not None and fraction != FRACTION:
        raise BadOption("forward_first: fraction and x0_noise both say how many steps are replaced; give one of them")
    inner = as_base(base, "forward_first", goes_on=True)

    def fewest(steps: int) -> int:
        return forward_steps(fraction, steps) if x0_noise is None else 1

    def begin(task: Task) -> State:
        import torch

        state = {} if inner.begin is None else inner.begin(task)
        replaced, x0 = forward_steps(fraction, task.stop), task.x0
        if x0_noise is not None:
            x0, noise = known(task, x0_noise)
            replaced = 1 + sum(ratio(task.grid, i) < noise for i in range(1, task.stop + 1))
            if replaced > task.stop:
                raise drowned(task.grid, task.stop, noise)
            state = {**state, "x0_noise": torch.full((len(x0),), noise, dtype=torch.float64)}
        return {
            **state,
            "forward_x0": x0,
            "forward_noise": task.noise() if shared_noise is None else _shared(task.x0, shared_noise),
            "forward_steps": torch.full((len(task.x0),), replaced),
        }

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if j > int(state["forward_steps"][0]):
            return inner.invert_step(predict, x, grid, i, j, state)
        has = grid.alpha[j] * float(state["x0_noise"][0]) if "x0_noise" in state else 0.0
        more = max(0.0, 1 - (has / grid.sigma[j]) ** 2) ** 0.5  # of the level's noise, what the picture lacks
        x_next = forward_noised(state["forward_x0"], more * state["forward_noise"], grid, j)
        return x_next, handed_on(state, x, x_next, grid, i, j)

    def notes(grid: Grid, stop: int, state: State) -> dict[str, Any]:
        told = {} if inner.notes is None else inner.notes(grid, stop, state)
        replaced = int(state["forward_steps"][0])
        told |= {} if x0_noise is None else {"x0_noise": float(state["x0_noise"][0])}
        return {**told, "forward_steps": replaced, "forward_timestep": grid.timesteps[replaced]}

    return replace(
        inner,
        invert_step=step,
        passes=lambda walked: beyond(inner.passes, walked, fewest(walked.steps)),
        backward=lambda walked: beyond(inner.backward, walked, fewest(walked.steps)),
        begin=begin,
        starts_at_picture=True,
        no_root="its first steps are drawn, not solved",
        notes=notes,
    )


def forward_steps(fraction: float, steps: int) -> int:
    """k = max(1, round(fraction T)), of the steps walked."""
    return max(1, round(fraction * steps))


def beyond(cost: Callable[[Walked], int], walked: Walked, count: int) -> int:
    """What a base spends after the first `count` steps: it may treat the very first ones apart, as `hybrid` does."""
    count = min(count, walked.steps)
    return cost(walked) - cost(replace(walked, steps=count, timesteps=walked.timesteps[:count]))


def _shared(x0: Tensor, seed: int) -> Tensor:
    """One noise of the shape of a picture for all of them; a generator of its own, so that no batch changes it."""
    import torch

    from unsample.numbers.draws import draw_noise

    return draw_noise([torch.Generator().manual_seed(seed)], x0.shape[1:]).to(x0).expand_as(x0)
