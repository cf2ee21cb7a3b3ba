"""What came of an inversion, picture by picture: lost, not converged, or fine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from unsample.errors import Diverged, LostAt, UnsampleWarning
from unsample.methods import Method
from unsample.numbers.health import health
from unsample.numbers.verdict import first_steps, graded
from unsample.numbers.walk import State
from unsample.numeric import finite
from unsample.verbs.running import Run, Watch, not_finite

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


def say_sampler(grid: Grid, method: Method) -> None:
    """Warn where the scheduler's own sampler is another one than the method's steps on the scheduler's grid."""
    does, scheduler = grid.meta.get("sampler"), grid.meta.get("scheduler", "")
    follows = method.name == "dpm_solver" and scheduler.startswith("DPMSolver") and "noise" not in (does or "")
    if does is None or follows:
        return
    way = "; method dpm_solver follows it" if scheduler == "DPMSolverMultistepScheduler" and "noise" not in does else ""
    text = (
        f"{scheduler} {does}; {method.name} goes over its timesteps and noise levels with steps of its own, so that "
        f"sampler makes another picture of the same noise{way}"
    )
    warnings.warn(UnsampleWarning("sampler", text), stacklevel=3)


def statuses(run: Run, noise: Tensor, state: State, method: Method) -> list[str]:
    """What came of each picture; one warning names those that were lost, another those that did not converge.

    Raises:
        Diverged: all of them were lost.
    """
    watch = run.watch
    _find_lost(watch, noise, state, method, pure_noise=run.stop == run.grid.num_steps)
    converged = state.get("converged")
    status = ["ok" if converged is None or bool(converged[k]) else "not_converged" for k in range(run.count)]
    status = ["diverged" if k in watch.lost_at else own for k, own in enumerate(status)]
    short = {k: float(state["residual"][k]) for k, own in enumerate(status) if own == "not_converged"}
    watch.warn_lost(stacklevel=4)
    if short:
        warnings.warn(_not_converged(method.name, short), stacklevel=3)
    watch.warn_nonfinite(status, stacklevel=4)
    return status


def _find_lost(watch: Watch, noise: Tensor, state: State, method: Method, *, pure_noise: bool) -> None:
    """Pictures whose record is not finite, or whose noise a reversible method has blown up, are lost."""
    steps = len(watch.points) - 1
    for name in method.keeps:
        for k in not_finite(state[name]):
            watch.lost_at.setdefault(k, LostAt("end", of=steps, what=f"{name} is not finite"))
    stds = dict(enumerate(noise.flatten(1).std(1).tolist())) if method.reversible and pure_noise else {}
    for k in (k for k, std in stds.items() if std > 100):
        watch.lost_at.setdefault(k, LostAt("end", of=steps, what=f"noise std {stds[k]:.3g}"))
    odd = {k: std for k, std in stds.items() if std <= 100 and not 0.8 <= std <= 1.25}
    if odd:
        warnings.warn(_odd_noise(method.name, odd), stacklevel=4)
    if len(watch.lost_at) == len(noise):
        message = f"invert with {watch.model.id} diverged: {method.name} lost every picture at {watch.lost_at[0]}"
        message += "; try guidance 1, strength below 1, or another timestep_spacing" if method.reversible else ""
        raise Diverged(f"{message}{watch.cost.because(0)}", watch.cost.nonfinite, watch.places(len(noise)))


def _odd_noise(method: str, stds: dict[int, float]) -> UnsampleWarning:
    """Noises whose standard deviation is far from 1, in words."""

    def text(name: Callable[[int], str]) -> str:
        each = ", ".join(f"{std:.3g} for {name(k)}" for k, std in stds.items())
        return (
            f"invert: {method} recovered a noise of std {each}, not 1: its round trip may be exact all the same, but "
            "edits and interpolations will suffer; try guidance 1 or more steps"
        )

    return UnsampleWarning("noise", text, stds)


def _not_converged(method: str, residuals: dict[int, float]) -> UnsampleWarning:
    """The largest relative residuals of the pictures that did not converge, in words."""

    def text(name: Callable[[int], str]) -> str:
        each = [f"{name(k)} (largest relative residual of a step {value:.1e})" for k, value in residuals.items()]
        return (
            f"invert: {method} did not converge for {', '.join(each)}; the best iterate was kept; try more iterations, "
            "more steps or guidance 1"
        )

    return UnsampleWarning("not_converged", text, residuals)


def residuals(state: State) -> list[float | None] | None:
    """The largest relative residual of any step, one a picture; None for a method without residuals."""
    if "residual" not in state:
        return None
    return [finite(value) for value in state["residual"].tolist()]


def judged(
    run: Run, method: Method, x0: Tensor, found: tuple[Tensor, State, Sequence[str]], radius: Tensor | None, exact: bool
) -> list[dict[str, Any]]:
    """The figures of each noise, the walk's largest residual and its step, the first step, and the grade.

    Args:
        run: the walk up that was made.
        method: by which.
        x0: where it began.
        found: the noise, the last state, and what came of each picture.
        radius: (B,) of the first step, where it was asked for.
        exact: whether x0 was given, not encoded from pictures.
    """
    noise, state, status = found
    whole = run.stop == run.grid.num_steps
    rows = health(noise, pure_noise=whole)
    first = run.watch.first
    leaves = None if method.ungraded or first is None else first_steps(x0, first, run.grid, radius)
    guidance = max(run.predict.scales) if run.model.guidance == "cfg" else 1.0
    largest, steps = residuals(state) or [None] * len(rows), state.get("residual_step")
    ungraded = _ungraded(method, state, whole)
    for k, row in enumerate(rows):
        row["residual"] = largest[k]
        row["residual_step"] = None if steps is None or largest[k] is None else int(steps[k])
        row["first_step"] = leaves and leaves[k]
        row["grade"], row["grade_reason"] = graded(
            row,
            status[k],
            ungraded,
            exact=exact,
            steps=run.grid.num_steps,
            flow=run.grid.is_flow,
            guidance=guidance,
        )
    return rows


def _ungraded(method: Method, state: State, whole: bool) -> str | None:
    """Why a walk has no grade."""
    if method.ungraded is not None:
        return method.ungraded
    if not whole:
        return "it stops at a strength below 1, where there is no noise yet"
    if "residual" not in state:
        return f"{method.name} solves no equation, so that no residual tells whether its noise makes the picture again"
    return None
