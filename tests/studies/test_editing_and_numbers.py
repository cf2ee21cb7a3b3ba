"""What the studies of editing, order, precision and damage compute, against answers that are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unsample.numbers.prediction import Prediction
from unsample.studies import convergence, edit_methods, edit_schedules, edited, quantisation


def test_an_order_is_found_where_it_was_planted() -> None:
    for order in (1.0, 2.0, 4.0):
        errors = [3.0 * steps**-order for steps in (30, 60, 120, 240)]
        assert convergence.orders(errors) == [None, *[pytest.approx(order)] * 3]
    assert convergence.orders([1.0, 0.0]) == [None, None]
    assert convergence.orders([0.5, 0.5, 0.5]) == [None, 0.0, 0.0]


def gaussian(deviation: float) -> Any:
    """A model of N(0, deviation^2) in closed form, on the grid of a study."""
    from diffusers import DDIMScheduler

    from unsample.models.gaussian import GaussianModel

    variances = torch.full((1, 1, 2, 2), deviation**2, dtype=torch.float64)
    return GaussianModel(torch.zeros_like(variances), variances, DDIMScheduler(clip_sample=False))


def test_the_flow_is_that_of_a_gaussian_and_the_orders_are_those_of_the_rules() -> None:
    """Of N(0, s^2) the flow keeps x over sqrt(alpha^2 s^2 + sigma^2)."""
    from unsample.methods import get_method
    from unsample.models.base import Condition
    from unsample.models.guidance import Predict

    model, x = gaussian(0.5), torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    condition = Condition()
    grids = {n: convergence.even_grid(model, n) for n in (80, 160)}
    last = grids[160]
    wide = [math.sqrt(0.25 * last.alpha[k] ** 2 + last.sigma[k] ** 2) for k in (0, -1)]
    picture = x * wide[0] / wide[1]
    predict = Predict(model, last, condition, None, 1.0, 3)
    assert convergence.relative(convergence.runge_kutta(predict, x, last), picture) == pytest.approx(
        [0.0] * 3, abs=1e-5
    )
    for name, settings, order in (("ddim", {}, 1), ("rex", {}, 4)):
        found = []
        for grid in grids.values():
            predict = Predict(model, grid, condition, None, 1.0, 3)
            (down, _), (up, _) = convergence.ends(get_method(name, settings), predict, x, picture, grid)
            found.append((convergence.relative(down, picture)[0], convergence.relative(up, x)[0]))
        for errors in zip(*found, strict=True):
            assert convergence.orders(errors)[1] == pytest.approx(order, abs=0.5), name


def test_runge_kutta_is_of_order_4_where_the_flow_is_a_power() -> None:
    """With eps = z the flow is dz/du = e^u z, so z = exp(e^u) up to a factor."""

    def error(steps: int) -> float:
        levels = [math.exp(-1 + 2 * k / steps) for k in range(steps + 1)]
        grid: Any = SimpleNamespace(alpha=[1.0] * (steps + 1), sigma=levels, num_steps=steps)

        def predict(x: Tensor, k: int) -> Prediction:
            return Prediction(x, x)

        found = float(convergence.runge_kutta(predict, torch.ones(1, 1, dtype=torch.float64), grid))
        return abs(found / math.exp(levels[0] - levels[-1]) - 1)

    assert math.log2(error(16) / error(32)) == pytest.approx(4, abs=0.25)


def test_courses_of_one_mean_have_it() -> None:
    from unsample.models.guidance import guidance_scales

    grid: Any = SimpleNamespace(num_steps=20)
    for course in edit_schedules.COURSES:
        scales = guidance_scales(course.peak, course.schedule, grid)[1:]
        assert math.fsum(scales) / len(scales) == pytest.approx(course.mean), course
    assert {course.mean for course in edit_schedules.COURSES} == {edit_schedules.PEAK, edit_schedules.HALF}


def test_a_price_counts_a_backward_pass_as_two() -> None:
    ddim = {"method": "ddim", "passes": 60, "backward": 0, "seconds": 2.0}
    fitted = {"method": "null_text", "passes": 300, "backward": 200, "seconds": 25.0}
    assert edit_methods.priced(fitted, ddim) == {"times_ddim": 12.5, "passes_times_ddim": 700 / 60}
    assert edit_methods.priced(ddim | {"method": "identity"}, ddim)["times_ddim"] is None


def test_a_mean_and_its_width_are_those_of_the_rows_that_fit() -> None:
    rows = [{"method": m, "ssim": v} for m, v in (("a", 1.0), ("a", 3.0), ("a", None), ("b", 9.0))]
    mean, width = edited.mean_of(rows, "ssim", method="a")
    assert mean == 2.0
    assert width == pytest.approx(1.96 * math.sqrt(2.0 / 2))
    assert math.isnan(edited.mean_of(rows, "ssim", method="c")[0])


def test_a_picture_keeps_its_levels_as_a_png() -> None:
    import base64
    import io

    import numpy as np
    from PIL import Image

    picture = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(0))
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(edited.as_png(picture.double() / 255)))))
    assert (torch.from_numpy(read.copy()).permute(2, 0, 1) == picture).all()


def test_damages_are_as_large_as_they_must_be() -> None:
    smooth = torch.linspace(0.1, 0.9, 64).expand(1, 3, 64, 64) + 0.0011
    rough = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert quantisation.squared(quantisation.damaged(rough, "float pixels"), rough) == [0.0]
    eight = quantisation.squared(quantisation.damaged(rough, "8 bit"), rough)[0]
    assert eight == pytest.approx(1 / 12 / 255**2, rel=0.05)  # uniform rounding
    for pictures in (smooth, rough):
        errors = [quantisation.squared(quantisation.damaged(pictures, d), pictures)[0] for d in ("jpeg 95", "jpeg 75")]
        assert eight < errors[0] < errors[1] or pictures is smooth
    assert quantisation.squared(quantisation.damaged(smooth, "jpeg 95"), smooth)[0] < 1e-4
    outside = torch.tensor([[-0.5, 1.5]]).expand(1, 3, 1, 2)
    assert quantisation.damaged(outside, "float pixels").flatten().tolist() == [0.0, 1.0] * 3
