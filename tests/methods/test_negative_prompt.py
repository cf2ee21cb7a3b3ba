"""Negative-prompt inversion: it is the source's prompt that an edit is guided away from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unsample
from tests.methods.test_null_text import SHAPE, smooth, texts
from tests.problems import normal, rms
from unsample.errors import BadOption, Incompatible
from unsample.methods import negative_prompt

NEGATIVE = torch.full((1, 2, 3), 0.4)


def inverted(**settings: Any) -> tuple[Any, unsample.Inversion]:
    given = texts(2) | {"negative_prompt_embeds": NEGATIVE}
    model, x0 = smooth(), 0.3 * normal(2, *SHAPE, seed=2)
    return model, unsample.invert(model, latents=x0, method=negative_prompt(**settings), num_inference_steps=6, **given)


@pytest.mark.parametrize("w", [0, 1, 2.5, 7.5])
def test_a_reconstruction_is_sampling_without_guidance_at_any_guidance(w: float) -> None:
    model, inversion = inverted()
    made = unsample.reconstruct(model, inversion, guidance_scale=w)
    plain = unsample.reconstruct(model, inversion, use="noise", guidance_scale=1)
    assert torch.equal(made.latents, plain.latents)
    assert made.nfe == [6, 6]
    assert rms(made.latents - unsample.reconstruct(model, inversion, use="noise", guidance_scale=7.5).latents) > 0.1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_an_edit_is_sampling_with_the_source_as_negative_prompt(share: float) -> None:
    model, inversion = inverted(lerp=share)
    target = normal(2, 2, 3, seed=9).float()
    edited = unsample.edit(model, inversion, prompt_embeds=target, negative_prompt_embeds=NEGATIVE)
    assert inversion.prompt_embeds is not None
    away = (1 - share) * inversion.prompt_embeds + share * NEGATIVE
    by_hand = unsample.sample(
        model, num_inference_steps=6, guidance_scale=7.5, noise=inversion.noise, prompt_embeds=target,
        negative_prompt_embeds=away,
    )  # fmt: skip
    assert rms(edited.latents - by_hand.latents) < 1e-5
    assert edited.nfe == [12, 12]


def test_settings_that_cannot_be_are_refused() -> None:
    for share in (-0.1, 1.1, "half", True):
        with pytest.raises(BadOption, match="lerp must be"):
            negative_prompt(lerp=share)  # type: ignore[arg-type]
    with pytest.raises(Incompatible, match="makes no sense"):
        negative_prompt(base="direct")
