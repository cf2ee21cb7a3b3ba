"""RF-Inversion: a rectified flow steered both ways by a linear quadratic regulator (Rout et al., arXiv:2410.10792).

Up: `x_j = x_i + h (v + gamma ((y - x_i) / (1 - sigma_i) - v))` under the empty prompt, y a drawn noise: gamma = 0 is
Euler's inversion, gamma = 1 ends in y whatever the picture is. Down, in a window of the first steps: `x_j = x_i + h
(v + eta ((x_i - x_0) / sigma_i - v))`, which pulls an edit back to the picture x_0. So the record holds the picture,
and how well it reconstructs says little of its noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from unsample.errors import BadOption
from unsample.methods.base import Kept, Method, Task
from unsample.methods.settings import Setting, configured
from unsample.numbers.solvers.rf_inversion import towards_noise, towards_picture

if TYPE_CHECKING:
    from unsample.numbers.walk import State


def _begin(task: Task) -> State:
    return {"picture": task.x0, "drawn_noise": task.noise()}


@configured
def rf_inversion(
    gamma: Annotated[
        float, Setting("the pull towards a drawn noise while inverting; 0 none, 1 ends in that noise.", high=1.0)
    ] = 0.5,
    eta: Annotated[float, Setting("the pull towards the picture in the window of sampling.", high=1.0)] = 0.9,
    start: Annotated[
        float, Setting("where the window begins, as a part of the steps from the noisiest on.", high=1.0)
    ] = 0.0,
    stop: Annotated[
        float, Setting("where it ends, likewise; the authors' examples have 0.25, and more for faces.", high=1.0)
    ] = 0.25,
    decay: Annotated[
        float,
        Setting("the power with which `eta` falls over the steps, eta (1 - k / T)^decay: 0 keeps it, 1 is linear."),
    ] = 0.0,
) -> Method:
    """RF-Inversion on a flow model: steered towards a typical noise, and back towards the picture.

    Inversion is without a prompt: at guidance 0 where the model has an unconditional prediction (as the authors, who
    give FLUX the empty prompt). Edits are at 3.5. The window is of the steps that are played.

    Reference:
        Rout et al., 2024, arXiv:2410.10792, the controlled forward and reverse ODEs. The authors' code takes the level
        in (y - x) / (1 - t) from t = k / T and the step from the shifted table; here both are the grid's sigma.

    Example:
        >>> import unsample
        >>> unsample.methods.rf_inversion(stop=0.5).keeps["picture"].what
        "the picture's own latent"
    """
    if start >= stop:
        raise BadOption(f"rf_inversion: start must be below stop; got {start:g} and {stop:g}, a window without steps")

    def weight(k: int, steps: int) -> float:
        inside = int(start * steps) <= k < int(stop * steps)
        return eta * (1 - k / steps) ** decay if inside else 0.0

    return Method(
        invert_step=towards_noise(gamma),
        sample_step=towards_picture(weight),
        begin=_begin,
        keeps={"picture": Kept("the picture's own latent")},
        stores="noise and the picture, to which sampling is pulled",
        fitted=True,
        exact=eta == 1 and stop == 1 and decay == 0,  # the last step then goes straight to the picture
        guidance_scale=0.0,
        sampling_guidance_scale=1.0,
        edit_guidance_scale=3.5,
        handles_guidance=False,
        refuses_vp="its controllers are those of a rectified flow; use a flow model, or ddim",
    )
