"""DNAEdit: the alignment of the noise as its authors write it, its exact replay, and its edits in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import unsample
from tests.methods.test_flow_edit import STEPS, asked, inverted
from tests.problems import mixture, rms
from unsample.errors import Incompatible, UnsampleWarning
from unsample.methods import dna_edit


@pytest.fixture(scope="module")
def flow() -> Any:
    return mixture(scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0))


def test_it_moves_the_noise_by_what_the_velocity_misses_of_the_lines(flow: Any) -> None:
    x, inversion = inverted(flow, dna_edit(), keep_trajectory=True)
    grid, path = inversion.meta.grid, inversion.trajectory
    assert path is not None
    sigma = grid.sigma
    # the drawn noise is not kept: with x_1 = x_0 + sigma_1 v(y) and offset y - x_1, y is the point asked, and n from it
    noise = (inversion.state["offsets"][:, 0] + path[1] - (1 - sigma[1]) * x) / sigma[1]
    assert abs(float(noise.std()) - 1) < 0.1
    for i in range(STEPS):
        y = x + (sigma[i + 1] - sigma[i]) / (1 - sigma[i]) * (noise - x)
        missed = (y - x) / (sigma[i + 1] - sigma[i]) - asked(flow, y, grid.timesteps[i + 1], "left")
        noise = noise - (1 - sigma[i]) * missed
        x = y - (sigma[i + 1] - sigma[i]) * missed
        assert rms(path[i + 1] - x) < 1e-9
    assert rms(inversion.noise - x) < 1e-9
    assert inversion.nfe == [STEPS] * 2


@pytest.mark.parametrize("strength", [None, 1.0])
@pytest.mark.parametrize("mvg", [0.3, 1.0])
def test_it_is_played_back_point_by_point_at_the_price_of_sampling(flow: Any, mvg: float, strength: Any) -> None:
    x, inversion = inverted(flow, dna_edit(mvg=mvg), keep_trajectory=True, strength=strength, guidance_scale=2.0)
    again = unsample.reconstruct(flow, inversion, keep_trajectory=True)
    assert rms(again.latents - x) < 1e-13
    assert again.trajectory is not None
    assert inversion.trajectory is not None
    assert rms(again.trajectory.flip(0) - inversion.trajectory) < 1e-13
    assert again.nfe == inversion.nfe == [2 * inversion.meta.stop_index] * 2


def test_its_edit_is_mobile_velocity_guidance_written_out(flow: Any) -> None:
    x, inversion = inverted(flow, dna_edit(mvg=0.7))
    grid, reference, z = inversion.meta.grid, x, inversion.noise
    for i in range(STEPS, 0, -1):
        dt = grid.sigma[i - 1] - grid.sigma[i]
        v = asked(flow, z + inversion.state["offsets"][:, i - 1], grid.timesteps[i], "right")
        reference = reference + dt * (v - inversion.state["velocities"][:, i - 1])
        z = z + dt * (0.7 * v + 0.3 * (z - reference) / grid.sigma[i])
    made = unsample.edit(flow, inversion, "right", guidance_scale=1.0)
    assert rms(made.latents - z) < 1e-9
    assert made.nfe == [STEPS] * 2
    apart = (made.latents[:, None] - flow.means).flatten(2).square().mean(2).sqrt()
    assert (apart.argmin(1) >= len(flow.means) // 2).all()


def test_an_edit_to_the_same_prompt_keeps_the_picture_where_the_guidance_follows_the_record(flow: Any) -> None:
    x, inversion = inverted(flow, dna_edit(mvg=1.0))
    assert rms(unsample.edit(flow, inversion, "left", guidance_scale=1.0).latents - x) < 1e-13
    x, inversion = inverted(flow, dna_edit(mvg=0.5))
    assert 0 < rms(unsample.edit(flow, inversion, "left", guidance_scale=1.0).latents - x) < 0.1


def test_its_reconstruction_holds_under_the_guidance_of_the_inversion_and_no_other(flow: Any) -> None:
    with pytest.warns(UnsampleWarning, match="dna_edit accounts for guidance only if it is the same both ways"):
        x, inversion = inverted(flow, dna_edit(), guidance_scale=1.0, sampling_guidance_scale=3.0)
    assert rms(unsample.reconstruct(flow, inversion, guidance_scale=1.0).latents - x) < 1e-13
    assert rms(unsample.reconstruct(flow, inversion).latents - x) > 1e-3
    with pytest.raises(Incompatible, match="dna_edit does not run on a diffusion model: .* use uni_inv"):
        inverted(mixture(), dna_edit())
    assert torch.equal(inverted(flow, dna_edit())[1].noise, inverted(flow, dna_edit())[1].noise)
