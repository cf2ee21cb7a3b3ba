"""Masks of an edit: 0 is the source's reconstruction, 1 the edit, to the bit; what a mask was is recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import unsample
from tests.problems import PROMPTS, mixture, normal
from unsample.errors import Incompatible
from unsample.methods import METHODS, get_method

STEPS = 6
HALF = np.zeros((8, 8), dtype=bool)
HALF[:, :4] = True
quiet = pytest.mark.filterwarnings("ignore")


def inverted(name: str = "ddim", count: int = 2) -> tuple[Any, Any]:
    """Pictures, inverted: they keep their source's pixels."""
    model, method = mixture(), get_method(name, {"preset": "quick"})
    prompts = list(PROMPTS)[:count]
    made = unsample.sample(model, prompts, num_inference_steps=STEPS, noise=normal(count, *model.sample_shape))
    given = {}
    if method.needs_trajectory:
        kept = unsample.sample(
            model, prompts, num_inference_steps=STEPS, noise=normal(count, 3, 8, 8), keep_trajectory=True
        )
        return model, unsample.invert(
            model,
            latents=kept.latents,
            prompt=prompts,
            method=method,
            num_inference_steps=STEPS,
            trajectory=kept.trajectory,
        )
    return model, unsample.invert(model, made.images, prompt=prompts, method=method, num_inference_steps=STEPS, **given)


@quiet
@pytest.mark.parametrize("name", [n for n in METHODS if get_method(n).refuses_vp is None])
def test_a_mask_of_zeros_is_the_reconstruction_and_of_ones_the_edit(name: str) -> None:
    model, inversion = inverted(name)
    method, targets = get_method(name), list(PROMPTS)[::-1]
    if method.refuses_edit and method.edit_state is None:
        with pytest.raises(Incompatible, match=name):
            unsample.edit(model, inversion, targets, mask=HALF)
        return
    again = unsample.reconstruct(model, inversion)
    none = unsample.edit(model, inversion, targets, mask=np.zeros((8, 8)))
    assert torch.equal(none.latents, again.latents)
    assert torch.equal(none.images, again.images)
    if method.refuses_edit is None:
        alone = unsample.edit(model, inversion, targets)
        every = unsample.edit(model, inversion, targets, mask=np.ones((8, 8)))
        assert torch.equal(every.latents, alone.latents)
        assert torch.equal(every.images, alone.images)
    half = unsample.edit(model, inversion, targets, mask=HALF, mask_dilate=0)
    assert torch.equal(half.latents[..., 4:], again.latents[..., 4:])
    assert not torch.equal(half.latents[..., :4], again.latents[..., :4])
