"""Direct inversion: the offsets where they are known, and the ablations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unsample
from tests.methods.test_null_text import SHAPE, smooth, texts
from tests.problems import gaussian, gaussian_ddim_step, gaussian_grid, normal, predictor, rms
from unsample.errors import BadOption, Incompatible
from unsample.methods import Walked, direct
from unsample.methods.base import Task

STEPS = 5


def inverted(dtype: torch.dtype = torch.float64, **settings: Any) -> tuple[Any, unsample.Inversion]:
    model, x0 = smooth(), 0.3 * normal(2, *SHAPE, seed=2, dtype=dtype)
    given = texts(2)
    return model, unsample.invert(
        model, latents=x0, method=direct(**settings), num_inference_steps=STEPS, keep_trajectory=True, **given
    )


def test_the_offsets_are_what_the_affine_steps_of_a_gaussian_miss() -> None:
    model = gaussian()
    grid = gaussian_grid(model, STEPS)
    pivots = [normal(2, 1, 1, 1, seed=k) for k in range(STEPS + 1)]
    predict = predictor(model, grid, 2)
    method = direct()
    assert method.fit is not None
    state = method.fit(Task(predict, predict, grid, STEPS, pivots[0], []), pivots, {})
    for j in range(STEPS):
        known = pivots[j] - gaussian_ddim_step(model, pivots[j + 1], grid, j + 1, j)
        assert rms(state["offsets"][:, j] - known) < 1e-12


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
def test_in_full_it_reconstructs_by_construction(dtype: torch.dtype, limit: float) -> None:
    model, inversion = inverted(dtype)
    made = unsample.reconstruct(model, inversion, keep_trajectory=True)
    assert direct().exact
    assert inversion.latents is not None
    assert rms(made.latents - inversion.latents) < limit
    assert made.trajectory is not None
    assert inversion.trajectory is not None
    assert rms(made.trajectory.flip(0) - inversion.trajectory) < limit  # every point is met again
    assert rms(unsample.reconstruct(model, inversion, use="noise").latents - inversion.latents) > 0.1
    assert inversion.nfe == [direct().passes(Walked(STEPS, 1, 2))] * 2


@pytest.mark.parametrize("settings", [{"scale": 0.4}, {"every": 2}, {"every": 49}, {"scale": 0.8, "every": 2}])
def test_the_ablations_leave_out_what_they_say(settings: dict[str, Any]) -> None:
    """Played by hand: x goes on from where the corrected step leads; the offset aims at the trajectory from there."""
    model, inversion = inverted(**settings)
    assert not direct(**settings).exact
    scale, every = settings.get("scale", 1.0), settings.get("every", 1)
    made = unsample.reconstruct(model, inversion, keep_trajectory=True)
    assert made.trajectory is not None
    assert inversion.trajectory is not None
    for k in range(STEPS):
        j = STEPS - 1 - k
        offset, reached = inversion.state["offsets"][:, j], made.trajectory[k + 1]
        if k % every:
            assert not offset.any()
        else:
            assert rms(offset - scale * (inversion.trajectory[j] - (reached - offset))) < 1e-14
            assert offset.any()
    assert rms(made.latents - inversion.trajectory[0]) > 1e-4 or STEPS % every == 1


def test_it_refuses_to_edit_and_to_be_played_back_under_another_guidance() -> None:
    model, inversion = inverted()
    with pytest.raises(Incompatible, match="direct cannot edit: .* give an editor"):
        unsample.edit(model, inversion, **texts(2))
    with pytest.raises(Incompatible, match="fitted under guidance 7.5"):
        unsample.reconstruct(model, inversion, guidance_scale=2)


@pytest.mark.parametrize("settings", [{"scale": 1.1}, {"scale": -0.1}, {"every": 0}, {"every": 1.5}, {"base": "edict"}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        direct(**settings)
