"""Prompt tuning inversion: the conditional embedding where it is known, and what an edit mixes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unsample
from tests.methods.test_null_text import SHAPE, line, smooth, texts
from tests.problems import normal, rms
from unsample.errors import BadOption
from unsample.methods import Walked, prompt_tuning
from unsample.numbers.grid import grid_from_scheduler

pytestmark = pytest.mark.filterwarnings("ignore:the noisiest of", "ignore:.*did not converge")


@pytest.mark.parametrize("w", [1.0, 4.0])
def test_it_finds_the_embedding_that_is_known(w: float) -> None:
    """With eps = 0.3 x + m, the m_c that lands on the trajectory solves one linear equation a step; at w = 1 too."""
    x0, given, model = normal(2, 1, 1, 1, seed=4), texts(2), smooth(line, (1, 1, 1))
    given["negative_prompt_embeds"] = torch.full((1, 2, 3), 0.2)
    method = prompt_tuning(num_inner_steps=500, learning_rate=0.03)
    inversion = unsample.invert(
        model, latents=x0, method=method, num_inference_steps=3, sampling_guidance_scale=w, keep_trajectory=True,
        **given,
    )  # fmt: skip
    assert inversion.nfe == [method.passes(Walked(3, 1, 1 if w == 1 else 2))] * 2
    assert inversion.backward == [1500, 1500]
    assert inversion.trajectory is not None
    grid = grid_from_scheduler(model.scheduler, 3)
    for i in range(1, 4):
        x, wanted = (inversion.trajectory[k].flatten() for k in (i, i - 1))
        slope = grid.sigma[i - 1] - grid.alpha[i - 1] * grid.sigma[i] / grid.alpha[i]
        eps = (wanted - grid.alpha[i - 1] / grid.alpha[i] * x) / slope
        mean = (eps - 0.3 * x - (1 - w) * 0.2) / w
        assert rms(inversion.state["condition"][:, i - 1].double().mean((1, 2)) - mean) < 1e-3
    assert rms(unsample.reconstruct(model, inversion).latents - x0) < 1e-3


def test_an_edit_mixes_the_fitted_embedding_with_the_targets() -> None:
    model, x0, target = smooth(), 0.3 * normal(1, *SHAPE, seed=2), normal(1, 2, 3, seed=9).float()
    edits = {}
    for share in (0.0, 0.25, 1.0):
        method = prompt_tuning(num_inner_steps=3, interpolation=share)
        inversion = unsample.invert(model, latents=x0, method=method, num_inference_steps=1, **texts(1))
        given = {"negative_prompt_embeds": torch.zeros(1, 2, 3)}
        edits[share] = unsample.edit(model, inversion, prompt_embeds=target, **given).latents
        mixed = (1 - share) * inversion.state["condition"][:, 0] + share * target
        by_hand = unsample.sample(
            model, num_inference_steps=1, guidance_scale=7.5, noise=inversion.noise, prompt_embeds=mixed, **given
        )
        assert rms(edits[share] - by_hand.latents) < 1e-6
        if share == 0:
            assert torch.equal(edits[share], unsample.reconstruct(model, inversion).latents)
    assert rms(edits[0.0] - edits[0.25]) > 1e-3


def test_pictures_stop_one_by_one_where_a_threshold_is_given() -> None:
    model, x0, given = smooth(line, (1, 1, 1)), normal(2, 1, 1, 1, seed=1), texts(2)
    given["prompt_embeds"] *= torch.tensor([0.01, 1.0])[:, None, None]
    free, stopped = (
        unsample.invert(model, latents=x0, method=prompt_tuning(early_stop=e), num_inference_steps=6, **given)
        for e in (None, 1e-4)
    )
    assert free.backward == [60, 60]
    assert len(set(stopped.backward)) == 2
    assert max(stopped.backward) <= 60


@pytest.mark.parametrize(
    "settings", [{"interpolation": 1.5}, {"num_inner_steps": 2.0}, {"learning_rate": -1}, {"gradient_checkpointing": 0}]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        prompt_tuning(**settings)
