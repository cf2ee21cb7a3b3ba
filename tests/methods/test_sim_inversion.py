"""SimInversion is DDIM inversion whose own guidance is 0.5, up and back, and 7.5 for edits."""

from __future__ import annotations

from typing import Any

import torch

import unsample
from tests.methods.test_null_text import SHAPE, smooth, texts
from tests.problems import normal


def test_it_is_ddim_at_one_half_both_ways() -> None:
    model, x0, target = smooth(), 0.3 * normal(2, *SHAPE, seed=2), normal(2, 2, 3, seed=9).float()
    given: dict[str, Any] = {"latents": x0, "num_inference_steps": 6, **texts(2)}
    given["negative_prompt_embeds"] = torch.full((1, 2, 3), 0.4)
    own = unsample.invert(model, method="sim_inversion", **given)
    half = unsample.invert(model, method="ddim", guidance_scale=0.5, **given)
    assert torch.equal(own.noise, half.noise)
    assert own.nfe == [12, 12]
    again = unsample.reconstruct(model, own)
    assert torch.equal(again.latents, unsample.reconstruct(model, half).latents)
    assert again.meta["guidance_scale"] == 0.5
    edited = unsample.edit(model, own, prompt_embeds=target)
    assert torch.equal(edited.latents, unsample.edit(model, half, prompt_embeds=target, guidance_scale=7.5).latents)
    told = unsample.invert(model, method="sim_inversion", guidance_scale=2.0, **given)
    assert told.meta["guidance_scale"] == 2.0
