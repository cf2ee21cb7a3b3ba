"""A mixture seen as a flow: its velocity against automatic differentiation, and against the same mixture's eps."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import unsample
from tests.problems import mixture, normal, rms
from unsample.models.base import Condition


def test_the_velocity_is_the_score_of_the_density() -> None:
    model = mixture(scheduler=FlowMatchEulerDiscreteScheduler())
    for sigma in (0.1, 0.5, 0.9):
        x = normal(2, *model.sample_shape, seed=5).requires_grad_()
        s = (1 - sigma) ** 2 * model.variances + sigma**2
        logs = -0.5 * ((x[:, None] - (1 - sigma) * model.means) ** 2 / s + s.log()).flatten(2).sum(2)
        (score,) = torch.autograd.grad(logs.logsumexp(1).sum(), x)
        eps = -sigma * score
        x0 = (x - sigma * eps) / (1 - sigma)
        assert rms(model.network(x.detach(), 1000 * sigma, Condition()) - (eps - x0)) < 1e-12


def test_its_ends_divide_by_nothing() -> None:
    model = mixture(scheduler=FlowMatchEulerDiscreteScheduler())
    x = normal(2, *model.sample_shape, seed=6)
    assert rms(model.network(x, 0, Condition()) + x) < 1e-12  # all picture, no noise
    assert rms(model.network(x, 1000.0, Condition()) - (x - model.means.mean(0))) < 1e-12  # all noise


@pytest.mark.parametrize("steps", [30])
def test_a_flow_is_sampled_inverted_and_saved(steps: int, tmp_path: object) -> None:
    model = mixture(scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0))
    noise = normal(1, *model.sample_shape, seed=7)
    made = unsample.sample(model, "left", noise=noise, num_inference_steps=steps)
    found = unsample.invert(model, latents=made.latents, prompt="left", method="fixed_point", num_inference_steps=steps)
    found.save(f"{tmp_path}/a.safetensors")
    again = unsample.reconstruct(model, f"{tmp_path}/a.safetensors")
    assert rms(found.noise - noise) < 1e-3
    assert rms(again.latents - made.latents) < 1e-3
