"""The implicit step: it solves the sampling step, picture by picture, and says when it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import (
    SD_TABLE,
    float64_tables,
    gaussian,
    gaussian_grid,
    gaussian_ode,
    mixture,
    mixture_picture,
    normal,
    predictor,
    rms,
    slope,
    smooth_network,
)
from unsample.errors import BadOption
from unsample.methods import fixed_point
from unsample.numbers.grid import Grid, grid_from_scheduler
from unsample.numbers.prediction import Prediction
from unsample.numbers.solvers.ddim import ddim_invert_at_target, ddim_sample
from unsample.numbers.solvers.fixed_point import fixed_point_invert
from unsample.numbers.walk import walk

# One step at which F(y) = y_i + gain * eps(y): alpha = 1 on both sides, so the test chooses the contraction itself.
LINE = Grid((1.0, 1.0), (0.0, 1.0), (0, 10), (1.0, 1.0), (0.1, 1.0))


class Asked:
    """A `predict` made of a function eps(y, call), which counts the rows it is asked for."""

    def __init__(self, eps: Any, count: int) -> None:
        self.eps, self.calls, self.cost = eps, 0, [0] * count

    def __call__(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        which = list(range(len(x))) if rows is None else rows.tolist()
        for k in which:
            self.cost[k] += 1
        self.calls += 1
        eps = self.eps(x, torch.tensor(which), self.calls)
        return Prediction(x - eps, eps)


def pictures(model: Any, count: int = 2) -> Tensor:
    return torch.cat([mixture_picture(model, k, k + 5) for k in range(count)]).double() * 2 - 1


TABLES: dict[str, dict[str, Any]] = {
    "linear": {"timestep_spacing": "trailing"},
    "stable-diffusion": {**SD_TABLE, "set_alpha_to_one": False, "steps_offset": 1},
    "v": {"prediction_type": "v_prediction"},
    "zero-snr-v": {"timestep_spacing": "trailing", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "zero-snr-sample": {"timestep_spacing": "trailing", "prediction_type": "sample", "rescale_betas_zero_snr": True},
}


@pytest.mark.parametrize("table", TABLES)
def test_fixed_point_round_trip_is_exact(table: str) -> None:
    scheduler = float64_tables(DDIMScheduler(**{"clip_sample": False} | TABLES[table]))
    model = mixture(scheduler=scheduler)
    x = pictures(model)
    inversion = unsample.invert(model, latents=x, method=fixed_point(80, 1e-13), num_inference_steps=50)
    again = unsample.reconstruct(model, inversion)
    assert inversion.status == ["ok", "ok"]
    assert rms(again.latents - x) <= 1e-10  # 50 steps of the tolerance, magnified by the way back
    plain = unsample.reconstruct(model, unsample.invert(model, latents=x, num_inference_steps=50))
    assert rms(plain.latents - x) > 1e-2  # and the round trip of plain DDIM is not


def test_each_step_solves_the_sampling_step_for_its_input() -> None:
    model = mixture(prompts=False)
    grid, x = gaussian_grid(model, 20), pictures(model)
    predict = predictor(model, grid, 2)
    for i, j in [(0, 1), (10, 11), (19, 20)]:
        noisier, state = fixed_point_invert(200, 1e-14)(predict, x, grid, i, j, {})
        back, _ = ddim_sample(predict, noisier, grid, j, i, {})
        assert rms(back - x) < 1e-12  # tol, magnified by at most alpha_i / alpha_j
        assert state["converged"].all()


def test_the_noise_is_no_more_right_than_that_of_ddim() -> None:
    """A round trip of 1e-13 and a noise that is 2e-2 from the truth: two different measurements."""
    model, x0, errors = gaussian(), 0.4 + 0.5 * normal(5, 1, 1, 1), []
    counts = (25, 50, 100)
    for steps in counts:
        grid = gaussian_grid(model, steps)
        noise, _ = walk(fixed_point_invert(60, 1e-14), predictor(model, grid, 5), x0, grid, range(steps + 1))
        back, _ = walk(ddim_sample, predictor(model, grid, 5), noise, grid, range(steps, -1, -1))
        assert rms(back - x0) < 1e-12  # rounding
        errors.append(rms(noise - gaussian_ode(model, x0, grid, 0, steps)))
    assert errors[1] > 1e-2
    assert slope(counts, errors) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tol", [None, 1e-3])
def test_one_iteration_is_ddim_digit_for_digit(dtype: torch.dtype, tol: float | None) -> None:
    model = unsample.wrap(smooth_network, DDIMScheduler(), sample_shape=(3, 4, 4))
    x = normal(2, 3, 4, 4, dtype=dtype)
    plain = unsample.invert(model, latents=x, method="ddim", num_inference_steps=20)
    with pytest.warns(UserWarning, match="did not converge") if tol else _nothing():
        once = unsample.invert(model, latents=x, method=fixed_point(1, tol), num_inference_steps=20)
    assert once.noise.dtype is dtype
    assert torch.equal(once.noise, plain.noise)
    assert once.nfe == plain.nfe == [20, 20]
    assert plain.status == ["ok", "ok"]
    assert once.status == (["not_converged"] * 2 if tol else ["ok", "ok"])


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


# ---------------------------------------------------------------- per picture


def test_a_picture_that_has_converged_costs_nothing_more() -> None:
    gains = torch.tensor([0.0, 0.1, 0.9])[:, None, None, None]
    predict = Asked(lambda y, rows, call: 1 + gains[rows] * y, 3)
    x = normal(3, 1, 2, 2)
    y, state = fixed_point_invert(400, 1e-6)(predict, x, LINE, 0, 1, {})
    assert state["converged"].all()
    assert predict.cost[0] == 2  # the second call finds the residual to be 0
    assert predict.cost[1] < 10 < predict.cost[2]
    assert rms(y - (x + 1) / (1 - gains)) < 1e-4  # tol / (1 - 0.9)
    model = mixture()
    inversion = unsample.invert(
        model, latents=pictures(model, 3), method=fixed_point(100, 1e-8), num_inference_steps=50
    )
    assert inversion.status == ["ok"] * 3
    assert len(set(inversion.nfe)) > 1
    assert max(inversion.nfe) < 1000


def test_what_a_picture_gets_does_not_depend_on_its_neighbours() -> None:
    model = mixture()
    x = pictures(model, 3)
    method = fixed_point(100, 1e-8)
    together = unsample.invert(model, latents=x, method=method, num_inference_steps=50)
    for k in range(3):
        alone = unsample.invert(model, latents=x[k : k + 1], method=method, num_inference_steps=50)
        # a matrix product of another height rounds differently (1e-16), and the score magnifies it
        assert rms(alone.noise - together.noise[k]) < 1e-11
        assert alone.nfe == together.nfe[k : k + 1]


def test_a_picture_stops_at_its_tolerance_and_not_before() -> None:
    gains = torch.tensor([0.5])[:, None, None, None]
    for tol in (1e-2, 1e-4, 1e-8):
        predict = Asked(lambda y, rows, call: gains * y, 1)
        y, state = fixed_point_invert(100, tol)(predict, torch.ones(1, 1, 2, 2).double(), LINE, 0, 1, {})
        # F(x_k) - x_k = 2^-k, x_k = 2 - 2^(1 - k)
        k = next(k for k in range(100) if 0.5 ** (k + 1) <= tol * (2 - 0.5**k))
        assert predict.cost == [k + 1]
        assert float(y.mean()) == pytest.approx(2 - 0.5 ** (k + 1), abs=1e-15)  # F(x_k), no further call
        assert float(state["residual"]) <= tol


def test_the_residual_of_the_worst_step_is_what_is_told() -> None:
    step = fixed_point_invert(3, None)
    x = torch.ones(1, 1, 2, 2).double()
    _, slow = step(Asked(lambda y, rows, call: 0.5 * y, 1), x, LINE, 0, 1, {})
    _, fast = step(Asked(lambda y, rows, call: 0.01 * y, 1), x, LINE, 0, 1, slow)
    assert torch.equal(fast["residual"], slow["residual"])
    _, worst = step(Asked(lambda y, rows, call: 0.9 * y, 1), x, LINE, 0, 1, slow)
    assert float(worst["residual"]) > float(slow["residual"])


# ---------------------------------------------------------------- when it fails


def test_the_best_iterate_is_kept_when_the_iteration_diverges() -> None:
    model = unsample.wrap(lambda x, t: 30 * x, DDIMScheduler(), sample_shape=(1, 4, 4))
    x = normal(1, 1, 4, 4)
    for method in (fixed_point(8), fixed_point(8, 1e-6)):
        with pytest.warns(UserWarning, match="did not converge for picture 0 .* the best iterate was kept"):
            inversion = unsample.invert(model, latents=x, method=method, num_inference_steps=10)
        assert inversion.status == ["not_converged"]
        assert inversion.noise.isfinite().all()
    runaway = Asked(lambda y, rows, call: 5 * y, 1)
    y, state = fixed_point_invert(20, None)(runaway, torch.ones(1, 1, 2, 2), LINE, 0, 1, {})
    first, _ = ddim_invert_at_target(Asked(lambda y, rows, call: 5 * y, 1), torch.ones(1, 1, 2, 2), LINE, 0, 1, {})
    assert torch.equal(y, first)  # the residual grew from the first iterate on, which is DDIM's
    assert not state["converged"].any()


def test_the_smallest_residual_decides_which_iterate_is_kept() -> None:
    """Converges for three calls and then jumps away: F of the third is kept."""
    eps = lambda y, rows, call: 0.5 * y if call <= 3 else 100 * y  # noqa: E731
    y, _ = fixed_point_invert(6, None)(Asked(eps, 1), torch.ones(1, 1, 2, 2).double(), LINE, 0, 1, {})
    assert torch.equal(y, torch.full((1, 1, 2, 2), 1.875).double())


def test_a_runaway_picture_is_given_up_early_when_a_tolerance_is_asked_for() -> None:
    predict = Asked(lambda y, rows, call: 5 * y, 1)
    _, state = fixed_point_invert(50, 1e-6)(predict, torch.ones(1, 1, 2, 2), LINE, 0, 1, {})
    assert predict.cost[0] < 5
    assert not state["converged"].any()


def test_an_iterate_that_is_not_finite_is_never_the_best_one() -> None:
    def eps(y: Tensor, rows: Tensor, call: int) -> Tensor:
        return torch.full_like(y, torch.nan) if call == 3 else 0.5 * y

    predict = Asked(eps, 1)
    y, state = fixed_point_invert(10, None)(predict, torch.ones(1, 1, 2, 2).double(), LINE, 0, 1, {})
    assert torch.equal(y, torch.full((1, 1, 2, 2), 1.75).double())  # F of the second
    assert predict.cost == [3]  # and nothing more is spent on it
    assert state["residual"].isfinite().all()


def test_a_picture_of_zeros_converges() -> None:
    """RMS(x) = 0 there, and 0 / 0 is not a residual."""
    model = unsample.wrap(lambda x, t: 0.5 * x, DDIMScheduler(), sample_shape=(1, 4, 4))
    inversion = unsample.invert(model, latents=torch.zeros(1, 1, 4, 4), method=fixed_point(5, 1e-3))
    assert inversion.status == ["ok"]
    assert inversion.noise.abs().max() == 0


@pytest.mark.parametrize("settings", [{"num_iters": 0}, {"num_iters": 2.5}, {"num_iters": True}, {"num_iters": "5"}])
@pytest.mark.parametrize("tol", [None, 0.1])
def test_numbers_of_iterations_that_cannot_be_are_refused(settings: dict[str, Any], tol: float | None) -> None:
    with pytest.raises(BadOption, match="num_iters must be a whole number of at least 1"):
        fixed_point(**settings, tol=tol)


@pytest.mark.parametrize("tol", [-1, float("nan"), float("inf"), "1e-3", True])
def test_tolerances_that_cannot_be_are_refused(tol: Any) -> None:
    with pytest.raises(BadOption, match="tol must be a finite number of at least 0"):
        fixed_point(tol=tol)


def test_the_clip_of_a_config_is_used_in_both_directions() -> None:
    scheduler = float64_tables(DDIMScheduler(clip_sample=True, clip_sample_range=0.05))
    model = mixture(scheduler=scheduler)
    x = pictures(model, 1)
    free, clipped = (
        unsample.invert(model, latents=x, num_inference_steps=20, clip=clip).noise for clip in ("off", "config")
    )
    assert rms(free - clipped) > 1e-2
    assert grid_from_scheduler(scheduler, 20, clip="config").clip == 0.05
