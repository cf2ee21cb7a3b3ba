"""The walk of two branches: under an editor that takes nothing, the source is its reconstruction, the edit its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unsample
from tests.problems import PROMPTS, mixture, normal
from unsample.edits import Editor
from unsample.edits.base import Steering
from unsample.errors import Incompatible
from unsample.methods import METHODS, get_method


class Idle(Steering):
    halves = ()


IDLE = Editor(name="idle", steer=lambda branches: Idle())
STEPS = 6
pytestmark = pytest.mark.filterwarnings("ignore")


def inverted(name: str) -> tuple[Any, Any]:
    model, method = mixture(), get_method(name, {"preset": "quick"})
    made = unsample.sample(
        model, list(PROMPTS), num_inference_steps=STEPS, noise=normal(2, *model.sample_shape), keep_trajectory=True
    )
    given = {"trajectory": made.trajectory} if method.needs_trajectory else {}
    found = unsample.invert(
        model, latents=made.latents, prompt=list(PROMPTS), method=method, num_inference_steps=STEPS, **given
    )
    return model, found


@pytest.mark.parametrize("name", [n for n in METHODS if get_method(n).refuses_vp is None])
def test_under_an_idle_editor_each_branch_is_as_it_is_alone(name: str) -> None:
    model, inversion = inverted(name)
    method, targets = get_method(name), list(PROMPTS)[::-1]
    if method.edit_step is not None or (method.refuses_edit and method.edit_state is None):
        with pytest.raises(Incompatible, match=name):
            unsample.edit(model, inversion, targets, editor=IDLE)
        return
    made = unsample.edit(model, inversion, targets, editor=IDLE)
    again = unsample.reconstruct(model, inversion)
    torch.testing.assert_close(made.reconstruction.double(), again.images.double(), rtol=0, atol=1e-6)
    if method.refuses_edit is None:
        alone = unsample.edit(model, inversion, targets)
        torch.testing.assert_close(made.latents, alone.latents, rtol=0, atol=1e-8)
        assert [a > b for a, b in zip(made.nfe, alone.nfe, strict=True)] == [True, True]
    assert made.meta["editor"] == {"name": "idle", "settings": {}}


def test_prompts_share_one_source() -> None:
    model, inversion = inverted("ddim")
    both = unsample.edit(model, inversion[0], list(PROMPTS), editor=IDLE, guidance_scale=3)
    one = unsample.edit(model, inversion[0], PROMPTS[1], editor=IDLE, guidance_scale=3)
    torch.testing.assert_close(both.latents[1:], one.latents, rtol=0, atol=1e-8)
    assert both.nfe[1] == one.nfe[0] == 3 * STEPS  # a source at guidance 1 costs one pass a step
