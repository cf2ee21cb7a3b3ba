"""Both first steps as one equation: its root is the trajectory's, and what it costs is what is said."""

from __future__ import annotations

import torch

import unsample
from tests.problems import seeded
from unsample.numbers.solvers.fixed_point import rms
from unsample.numbers.solvers.two_steps import ATTEMPT, BOTH, attempted, both_solved, going, led
from unsample.studies.asking import asking

STEPS = 10
MODEL = "mini-ink-linear-epsilon-0"


def test_from_near_the_truth_the_root_is_the_trajectory() -> None:
    model = unsample.load(MODEL)
    made = unsample.sample(model, generator=[2, 3], num_inference_steps=STEPS, keep_trajectory=True, progress=False)
    assert made.trajectory is not None
    x2, x1, x0 = made.trajectory[-3:]
    with asking(model, STEPS, None, 2) as predict:
        grid, rows = predict.grid, torch.tensor([0, 1])
        assert torch.allclose(led(x0, going(x0, x1, grid, 0, 1), going(x1, x2, grid, 1, 2), grid), x2, atol=1e-5)
        start = x2 + 0.02 * torch.randn(x2.shape, generator=seeded(1))
        one, two, left = both_solved(predict, x0, start, grid, rows, None)
        assert predict.cost.nfe == [BOTH] * 2
        assert (rms(left) < 0.1 * rms(start - x2)).all()
        assert (rms(two - x2) < rms(start - x2)).all()
        again, _ = model_step(predict, two, grid, 2, 1)
        assert torch.allclose(again, one, atol=1e-6)
        _, alone, _ = both_solved(predict, x0, start[1:], grid, rows[1:], None)
        assert torch.allclose(alone[0], two[1], atol=1e-4)


def model_step(predict, x, grid, i, j):  # type: ignore[no-untyped-def]
    from unsample.numbers.solvers.ddim import ddim_sample

    return ddim_sample(predict, x, grid, i, j, {})


def test_an_attempt_costs_what_is_said_and_holds_where_each_step_led() -> None:
    model = unsample.load(MODEL)
    x0 = unsample.sample(model, generator=[4], num_inference_steps=STEPS, progress=False).latents
    with asking(model, STEPS, None, 1) as predict:
        found = attempted(predict, x0, predict.grid)
        assert predict.cost.nfe == [ATTEMPT]
        parts = found.features.chunk(7, 1)
        assert torch.equal(parts[0], x0)
        assert torch.equal(parts[3], found.first)
        assert torch.equal(parts[5], found.second)
        assert torch.allclose(going(x0, found.x1, predict.grid, 0, 1), found.first)
        assert rms(parts[4]) < rms(parts[2])  # more rounds leave less
