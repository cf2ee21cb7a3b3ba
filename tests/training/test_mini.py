"""The small networks: their worlds, their schedules, and that the committed ones are all there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import unsample
from training.mini import FOLDER, HELD_OUT, NAMES, dominant, draw, scheduler_of
from unsample.models.base import Condition


def test_worlds_follow_from_seeds() -> None:
    ink, grey = (draw(world, range(HELD_OUT, HELD_OUT + 200)) for world in ("ink", "grey"))
    assert ink.shape == grey.shape == (200, 1, 16, 16)
    assert {*np.unique(ink)} == {-1.0, 1.0}
    assert (ink.max((1, 2, 3)) == 1).all()  # a shape in each
    assert 0.02 < (grey > -0.5).mean() < 0.6
    assert np.array_equal(draw("ink", [HELD_OUT + 7])[0], ink[7])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_noisiest_level_is_nearly_noise(schedule: str) -> None:
    alpha = scheduler_of(schedule, "v").alphas_cumprod.sqrt()
    assert 0.005 < float(alpha[-1]) < 0.02
    assert bool((alpha.diff() < 0).all())


def test_all_are_there_and_small() -> None:
    assert len(NAMES) == 12
    files = [path for name in NAMES for path in (FOLDER / name).rglob("*") if path.is_file()]
    assert sum(path.name.endswith(".safetensors") for path in files) == 12
    assert sum(path.stat().st_size for path in files) < 10**7


def test_a_network_denoises_its_world() -> None:
    model = unsample.load("mini-ink-linear-epsilon-0")
    grid = model.grid(10)
    x0 = torch.from_numpy(draw("ink", range(HELD_OUT, HELD_OUT + 64)))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.network(grid.alpha[4] * x0 + grid.sigma[4] * noise, grid.timesteps[4], Condition())
    assert float((found - noise).square().mean()) < 0.12


def test_the_dominant_eigenvalue_of_a_known_matrix() -> None:
    basis = torch.linalg.qr(torch.randn(256, 256, generator=torch.Generator().manual_seed(0))).Q
    values = torch.linspace(-3, 1, 256)
    values[0] = -4
    matrix = basis * values @ basis.T

    class Linear:
        """eps = A x at every time."""

        def network(self, x: torch.Tensor, timestep: float, condition: Condition) -> torch.Tensor:
            return (x.flatten(1) @ matrix).reshape(x.shape)

    grid = unsample.load("scenes-mixture").grid(10, timestep_spacing="trailing")
    c = grid.sigma[1] - grid.sigma[0] * grid.alpha[1] / grid.alpha[0]
    found = dominant(Linear(), grid, torch.zeros(2, 1, 16, 16))
    assert torch.allclose(found, torch.full((2,), -4 * c), rtol=1e-3)
