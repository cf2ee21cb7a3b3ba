"""What came of an inversion, picture by picture: the first step looked at, and a grade.

Most of what is lost is lost at the first step, where the picture hardly fixes the noise: several points y may solve
it, and all of them make the picture again. So a small residual says that the noise found makes the picture again, and
not that it is the one that made it. Neither do the noise's own figures (mean, std, correlation), nor the size of the
first step's eps (`shell`): wrong roots have those of noise, and the true one of a sharp network may not. What tells is
whether the step's map contracts where it ended (`spectrum.first_step_radius`): wrong roots lie where it does not, or
hardly does, since between two roots of a map there is a place where it does not contract. Of the later steps it says
nothing. The longer they are, and the stronger the guidance, the more a residual is magnified, and there are other roots
of them too: what is asked of the residual follows from the number of steps (`SURE`), and where no bound was found that
keeps the wrong ones out, none is called recovered. Flow models are held to what few steps are.

The bounds of 50 steps were chosen on pictures that small networks (training/mini), scenes-ddpm and scenes-sd made from
tune seeds, on their own grids and on trailing ones, and have their table on report seeds in docs/methods.md. Those of
few steps, flows and guidance were tightened on that page's second table, and then tried on tune seeds
(`benchmarks.verdict`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from unsample.numbers.solvers.fixed_point import LOOSE
from unsample.numbers.solvers.leaving import OUTER, shell
from unsample.numeric import finite

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid

Grade = Literal["recovered", "reconstructs only", "neither"]

LATENT = 0.1  # recovered: at most this mean squared error of the noise, a cosine of about 0.95; another noise has 2
RECON = 1e-3  # reconstructs: at most this of the picture in the model's range, 36 dB of pixels
CONTRACTS = 0.9  # the radius below which the root is taken for the only one; wrong ones were found from 0.93 on
SURE = ((50, 1e-3, 3.0), (20, 1e-4, 1.0))
"""With so many steps or more: the largest relative residual of a step that recovers (LOOSE is that of one that
reconstructs), and the strongest guidance under which one does; at 3 in 20 steps, and at 7.5, wrong roots passed."""


def first_steps(x0: Tensor, x1: Tensor, grid: Grid, radius: Tensor | None = None) -> list[dict[str, Any]]:
    """Of each picture the RMS of the eps that its first step went along, and whether that is more than noise has.

    Args:
        x0: (B, C, H, W), at the clean end.
        x1: (B, C, H, W), at grid point 1.
        grid: the noise levels.
        radius: (B,) of `spectrum.first_step_radius`, where it was asked for.

    Returns:
        For each picture `shell`, `outer` (whether it is above 1.1) and `radius`; None for what is not finite, or was
        not asked for.
    """
    sizes = shell(x0, x1, grid, 0, 1).tolist()
    radii = [None] * len(sizes) if radius is None else [finite(r) for r in radius.tolist()]
    return [
        {"shell": finite(size), "outer": size > OUTER, "radius": own} for size, own in zip(sizes, radii, strict=True)
    ]


def sure(steps: int, flow: bool) -> tuple[float, float]:
    """With so many steps the largest residual and the strongest guidance of a noise that is recovered; 0 of too few."""
    held_to = SURE[-1:] if flow else SURE
    return next(((tight, guided) for least, tight, guided in held_to if steps >= least), (0.0, 0.0))


def graded(
    row: Mapping[str, Any],
    status: str,
    ungraded: str | None,
    *,
    exact: bool,
    steps: int,
    flow: bool = False,
    guidance: float = 1.0,
) -> tuple[Grade | None, str]:
    """The grade of a picture, and why: None where there is none to give.

    Args:
        row: its `residual`, `residual_step` and `first_step`.
        status: what came of it; "diverged" is neither.
        ungraded: why such an inversion has no grade.
        exact: whether it began at latents. A picture tells them to half a level at best, and what rounding did to it is
            found as noise: it never comes to "recovered".
        steps: of the walk.
        flow: whether the model is one.
        guidance: the strongest classifier-free guidance of a step.
    """
    if ungraded is not None:
        return None, ungraded
    if status == "diverged":
        return "neither", "it diverged"
    residual, radius = row["residual"], (row["first_step"] or {}).get("radius")
    told = "the largest relative residual of a step is not finite"
    if residual is not None:
        where = "" if row["residual_step"] is None else f", at step {row['residual_step']}"
        told = f"the largest relative residual of a step is {residual:.1e}{where}"
    if residual is None or residual > LOOSE:
        return "neither", f"{told}: not at most {LOOSE:g}"
    if not exact:
        return (
            "reconstructs only",
            f"{told}; what rounding did to the picture is in its noise, since latents were not given",
        )
    tight, guided = sure(steps, flow)
    walked = f"{steps} steps of a flow" if flow else f"{steps} steps"
    if tight == 0:
        return "reconstructs only", f"{told}; in fewer than {SURE[-1][0]} steps no figure tells the true noise"
    if guidance > guided:
        return (
            "reconstructs only",
            f"{told}; in {walked} under guidance {guidance:g}, above {guided:g}, later steps have other roots as well, "
            "and no figure tells the true one",
        )
    if radius is None:
        return "reconstructs only", f"{told}; whether its noise is the true one takes the first step's spectral radius"
    if radius >= CONTRACTS:
        return "reconstructs only", f"{told}; the first step hardly contracts (spectral radius {radius:.2f})"
    if residual > tight:
        return "reconstructs only", f"{told}: not at most {tight:g} in {walked}"
    return "recovered", f"{told}; the first step contracts (spectral radius {radius:.2f})"
