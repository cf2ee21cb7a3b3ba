"""The first two steps from a network that was taught on what the model itself makes; the base after them.

Where the first step repels (its map has eigenvalues below -1), solvers end at a root that no trajectory passes, and
nothing that is computed from the picture and the step alone tells the right one. The model's own samples do: each is a
picture with its x_1 and x_2. A copy of the network learns to tell x_2 from the picture and from where a short attempt
of solvers leads. The base's own x_2 is kept where the network agrees with it; elsewhere a root of both steps at once is
sought from the network's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unsample.errors import BadOption
from unsample.methods.base import Method, Task, Walked
from unsample.methods.inner import Base, as_base
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.fixed_point import LOOSE, rms
from unsample.numbers.solvers.start import handed_on
from unsample.numbers.solvers.two_steps import ATTEMPT, BOTH, attempted, both_solved
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

LEAST = 3  # steps; of fewer all are the base's


@configured
def learned_start(
    base: Annotated[
        Base, Setting("the inversion of all later steps, and of the first two where the network agrees.")
    ] = "anderson",
    trained: Annotated[
        bool, Setting("false: no network; a root of the first two steps at once is sought from the base's own.")
    ] = True,
    file: Annotated[
        str | None,
        Setting("of the network; None: the one that `unsample train-inverse` wrote for these weights and steps."),
    ] = None,
    tol: Annotated[
        float | None,
        Setting("the search for that root ends where what is left has an RMS of tol * sigma_2; None: all of it runs."),
    ] = 1e-6,
) -> Method:
    """A learned inverter: its network was taught for one model, at one number of steps.

    The record's `learned` names the network's file by its hash, `learned_kept` says which pictures kept the base's
    own first steps.

    Raises:
        Incompatible: a base that keeps more than the noise, or that says itself what the first steps are.
        WeightsMissing (while inverting): there is no network for this model and grid.

    Reference:
        Ours; the root of both steps by Levenberg-Marquardt, as in `anderson` (arXiv:2309.04907 has the mixing).

    Example:
        >>> import unsample
        >>> unsample.methods.learned_start(trained=False, base="ddim").passes(unsample.methods.Walked(steps=50))
        143
    """
    if file is not None and not trained:
        raise BadOption("learned_start: trained=false takes no network, and file names one; give one of them")
    inner = as_base(base, "learned_start", goes_on=True)

    def begin(task: Task) -> State:
        import torch

        state = {} if inner.begin is None else inner.begin(task)
        if task.stop < LEAST:
            return state
        predict, x0, grid = task.predict, task.x0, task.grid
        if trained:
            copy, agrees, name = _network(task, file)
        own: list[Tensor] = [x0]
        told = state
        for i in (0, 1):
            x, told = inner.invert_step(predict, own[-1], grid, i, i + 1, told)
            own.append(x)
        x1, x2 = own[1:]
        kept = torch.zeros(len(x0), dtype=torch.bool, device=x0.device)
        start = x2
        if trained:
            from unsample.models.learned import second_point

            start = second_point(copy, predict, attempted(predict, x0, grid), x0, grid)
            kept = rms(start - x2) <= agrees * grid.sigma[2]
            told = {**told, "learned": name.expand(len(x0), -1), "learned_kept": kept}
        rows = (~kept).nonzero()[:, 0]
        if len(rows) > 0:
            one, two, left = both_solved(predict, x0, start[rows], grid, rows, tol)
            x1, x2 = x1.index_copy(0, rows, one), x2.index_copy(0, rows, two)
            if "residual" in told:
                found, off = rms(left) / rms(two), rms(left) <= LOOSE * grid.sigma[2]
                told = {
                    **told,
                    "residual": told["residual"].index_copy(0, rows, found),
                    "residual_step": told["residual_step"].index_fill(0, rows, 1),
                    "converged": told["converged"].index_copy(0, rows, off),
                }
        return {**handed_on(told, x0, x1, grid, 0, 1), "learned_x1": x1, "learned_x2": x2}

    def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
        if "learned_x1" not in state or i > 1:
            return inner.invert_step(predict, x, grid, i, j, state)
        if i == 0:
            return state["learned_x1"], state
        x2 = state["learned_x2"]
        return x2, handed_on(state, x, x2, grid, i, j)

    def notes(grid: Grid, stop: int, state: State) -> dict[str, Any]:
        told = {} if inner.notes is None else inner.notes(grid, stop, state)
        if "learned" not in state:
            return told
        name = bytes(state["learned"][0].tolist()).hex()
        return {**told, "learned": name, "learned_kept": [bool(kept) for kept in state["learned_kept"]]}

    def passes(walked: Walked) -> int:
        if walked.steps < LEAST:
            return inner.passes(walked)
        return inner.passes(walked) + walked.pair * (BOTH + trained * ATTEMPT) + trained

    return replace(inner, invert_step=step, passes=passes, begin=begin, starts_at_picture=True, notes=notes)


def _network(task: Task, file: str | None) -> tuple[Any, float, Tensor]:
    """The network, the distance at which it agrees, and the hash of its file as bytes (1, 32)."""
    import hashlib

    import torch

    from unsample.models.learned import default_path, opened

    model, w = task.predict.model, task.predict.scales[1]
    path = Path(file).expanduser() if file is not None else default_path(model, task.grid, w)
    copy, taught = opened(model, task.grid, w, path)
    with path.open("rb") as opened_file:
        digest = hashlib.file_digest(opened_file, "sha256").digest()
    return copy, taught.agrees, torch.tensor(list(digest), dtype=torch.uint8)[None]
