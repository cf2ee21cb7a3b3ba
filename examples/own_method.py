"""A method of one's own: `python examples/own_method.py` holds it to the contract and compares it with `ddim`.

    unsample --plugin examples/own_method.py methods trapezoid
    unsample --plugin examples/own_method.py invert scene.png --method trapezoid --set num_iters=3 -o inverted
    unsample --plugin examples/own_method.py bench run --dataset scenes:4 --methods ddim,trapezoid -o run

The trapezoidal rule takes the mean of the directions at both ends of a step. Seen from either end that is the same
equation, so what walks up is undone by what walks down, as far as the iterations solve it. One is Heun's method; where
steps are large, more of them run away.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import unsample
from unsample.methods import Method, Setting, configured, direction, register, transfer


def trapezoid_step(predict: Any, x: Any, grid: Any, i: int, j: int, state: Any, *, num_iters: int) -> tuple[Any, Any]:
    """From grid point i to j, up or down: `x_j = x_i + h (d(x_i) + d(x_j)) / 2`, by fixed-point iterations."""
    here = direction(predict(x, i), grid)  # eps, or of a flow the velocity
    y = transfer(x, here, grid, i, j)  # Euler
    for _ in range(num_iters):
        y = transfer(x, (here + direction(predict(y, j), grid)) / 2, grid, i, j)
    return y, state


@register(
    summary="the trapezoidal rule, which is its own inverse",
    family="ODE, implicit",
    equation="x_j = x_i + h (d(x_i) + d(x_j)) / 2, num_iters times",
    cost="(1 + num_iters) T",
    year=2026,
    reference="unpublished",
    presets={"three": {"num_iters": 3}},
)
@configured
def trapezoid(num_iters: Annotated[int, Setting("iterations a step.", low=1)] = 1) -> Method:
    """The trapezoidal rule, up and down."""
    step = partial(trapezoid_step, num_iters=num_iters)
    return Method(
        invert_step=step,
        sample_step=step,
        passes=lambda walked: (1 + num_iters) * walked.steps * walked.pair,
        fresh=lambda x: {},  # it samples too: `unsample.sample(..., method="trapezoid")`
    )


def measured(steps: int = 25) -> dict[str, float]:
    """How far a picture of `scenes-ddpm` is off after a round trip, in RMS, by method."""
    model = unsample.load("scenes-ddpm")
    made = unsample.sample(model, num_inference_steps=steps, generator=0)
    found = {}
    for method in ("ddim", "trapezoid"):
        inversion = unsample.invert(model, latents=made.latents, method=method, num_inference_steps=steps)
        again = unsample.reconstruct(model, inversion)
        found[method] = float((again.latents - made.latents).square().mean().sqrt())
    return found


if __name__ == "__main__":
    from unsample.testing import check_method

    check_method(trapezoid)
    print(measured())
