"""LEDITS++: its formula from raw predictions, its masks by hand, its cost, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import unsample
from tests.problems import PROMPTS, ddpm, mixture, normal, sd14
from unsample.edits import ledits, parse_settings
from unsample.edits.grounding import Grounding, smoothed
from unsample.errors import BadOption, Incompatible
from unsample.methods import METHODS, get_method
from unsample.models.base import Condition

SOURCE, TARGET, STEPS = "a cat", "a dog", 4
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def model() -> Any:
    """Stable Diffusion's layout, small, its network in float64."""
    pipeline = sd14()
    pipeline.unet.double()
    return unsample.load(pipeline)


def inverted(model: Any, prompts: Any = SOURCE, method: Any = "edit_friendly", count: int = 1, **more: Any) -> Any:
    latents = normal(count, *model.sample_shape)
    return unsample.invert(
        model, latents=latents, prompt=prompts, method=method, num_inference_steps=STEPS, generator=0, **more
    )


def top(values: Tensor, share: float) -> Tensor:
    """The cells of (h, w) from the quantile on, by sorting: linear between two ranks."""
    ranks = values.flatten().sort().values
    at = share * (len(ranks) - 1)
    low = ranks[math.floor(at)] + (at - math.floor(at)) * (ranks[math.ceil(at)] - ranks[math.floor(at)])
    return (values >= low).to(values)


@pytest.mark.parametrize("masks", ["none", "noise"])
@torch.no_grad()
def test_an_edit_is_the_sum_of_its_phrases_masked_guidance(masks: Any) -> None:
    model = mixture()
    inversion = inverted(model, "left", "ddim")
    weights = {"right": 1.0, "left": -0.5}
    editor = ledits(weights, threshold=0.7, masks=masks, warmup_steps=1)
    made = unsample.edit(model, inversion, editor=editor, guidance_scale=0.8, keep_trajectory=True)
    grid, x = model.grid(STEPS), inversion.noise
    masked = torch.zeros(1, 1, *x.shape[-2:])

    def eps(prompt: str, i: int) -> Tensor:
        embeds: Condition = model.embed([prompt])
        return model.network(x, grid.timesteps[i], embeds)

    for k, i in enumerate(range(STEPS, 0, -1)):
        found = eps("left", i)
        for phrase, weight in weights.items() if k >= 1 else ():
            apart = eps(phrase, i) - eps("", i)
            mask = top(apart[0].abs().sum(0), 0.7) if masks == "noise" else torch.ones_like(apart[0, 0])
            masked = masked.maximum(mask[None, None].float())
            found = found + 0.8 * weight * mask * apart
        x0 = (x - grid.sigma[i] * found) / grid.alpha[i]
        x = grid.alpha[i - 1] * x0 + grid.sigma[i - 1] * found
    torch.testing.assert_close(made.latents, x.to(made.latents), rtol=0, atol=1e-9)
    assert (made.latents - unsample.reconstruct(model, inversion).latents).abs().max() > 0.1
    # beside the source's playback in both branches: u and two phrases in all steps but the first
    assert (made.nfe, made.backward) == ([2 * STEPS + 3 * (STEPS - 1)], [0])
    assert (made.mask is None) is (masks == "none")
    if made.mask is not None:
        assert torch.equal(made.mask, masked)
    assert made.meta.editor_notes == {"edits": [weights]}


def test_masks_are_the_highest_cells_of_smoothed_attention_and_of_the_difference() -> None:
    attention, apart = normal(1, 2, 4, 4, seed=1).abs(), normal(1, 2, 3, 8, 8, seed=2)
    kernel = {0: 1.0, 1: math.exp(-1)}
    total = sum(kernel[abs(a)] * kernel[abs(b)] for a in (-1, 0, 1) for b in (-1, 0, 1))
    for c in range(2):
        soft = torch.zeros(4, 4, dtype=torch.float64)
        for y in range(4):
            for x in range(4):
                for a in (-1, 0, 1):
                    for b in (-1, 0, 1):
                        inside = [v if 0 <= v < 4 else 2 * (0 if v < 0 else 3) - v for v in (y + a, x + b)]
                        soft[y, x] += kernel[abs(a)] * kernel[abs(b)] / total * attention[0, c][tuple(inside)]
        torch.testing.assert_close(smoothed(attention)[0, c], soft)
        by_words = top(soft, 0.6).repeat_interleave(2, 0).repeat_interleave(2, 1)
        by_noise = top(apart[0, c].abs().sum(0), 0.6)
        for masks, timestep, expected in (
            ("both", 500, by_words * by_noise),
            ("both", 801, by_words),
            ("attention", 500, by_words),
            ("noise", 900, by_noise),
        ):
            own = None if masks == "noise" else attention
            found = Grounding(masks, 0.6, 800).mask(apart, own, timestep)  # type: ignore[arg-type]
            assert torch.equal(found[0, c, 0], expected.to(found))
            assert 0 < found[0, c].mean() < 0.5


@torch.no_grad()
def test_attention_is_that_of_the_changed_words(model: Any) -> None:
    inversion = inverted(model, "a red cat", method="ddim")
    made = unsample.edit(model, inversion, "a blue cat", editor=ledits(warmup_steps=STEPS - 1), guidance_scale=1)
    (maps,) = made.attention_maps
    assert list(maps) == ["blue", "red"]
    kept: list[Tensor] = []

    def probabilities(attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        keys = hidden if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            layer(t).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, t in ((attn.to_q, hidden), (attn.to_k, keys), (attn.to_v, keys))
        )
        share = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        if encoder_hidden_states is not None:
            kept.append(share)
        return attn.to_out[0]((share @ v).transpose(1, 2).flatten(2))

    x = unsample.reconstruct(model, inversion, keep_trajectory=True).trajectory[-2]
    layers = [n for n in model.unet.attn_processors if "attn2" in n and "mid" not in n]
    model.unet.set_attn_processor(probabilities)
    embeds = model.embed(["a blue cat"]).prompt_embeds.double()
    model.unet(x.double(), torch.tensor(int(inversion.meta.grid.timesteps[1])), encoder_hidden_states=embeds)
    coarse = [m for m in kept if m.shape[2] == 64]
    assert 0 < len(coarse) <= len(layers)
    own = torch.stack(coarse).mean((0, 2))[0][:, 2:6].sum(-1).unflatten(0, (8, 8))  # a, then b l u e
    torch.testing.assert_close(maps["blue"].double(), own / own.max(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["edit_friendly", "ddim", "direct", "null_text", "negative_prompt", "edict"])
def test_nothing_to_add_is_the_reconstruction(model: Any, method: str) -> None:
    inversion = inverted(model, method=method)
    again, w = unsample.reconstruct(model, inversion), inversion.meta.sampling_guidance_scale
    quiet = [(ledits(warmup_steps=STEPS), TARGET, w), (ledits(), SOURCE, w)]
    quiet += [] if get_method(method).edits_as_fitted else [(ledits(masks="none"), TARGET, 0)]
    for editor, prompt, scale in quiet:
        made = unsample.edit(model, inversion, prompt, editor=editor, guidance_scale=scale)
        torch.testing.assert_close(made.reconstruction, again.images, rtol=0, atol=1e-6)
        if method != "direct":  # its offsets are the source's alone
            torch.testing.assert_close(made.latents, again.latents, rtol=0, atol=1e-7)
    assert (
        unsample.edit(model, inversion, TARGET, editor=ledits(masks="none")).latents - again.latents
    ).abs().max() > 1e-4


def test_a_batch_gives_what_single_pictures_give(model: Any) -> None:
    inversion, targets = inverted(model, ["a cat", ""], count=2), ["a dog", "an owl"]
    both = unsample.edit(model, inversion, targets, editor="ledits")
    for k in range(2):
        one = unsample.edit(model, inversion[k], targets[k], editor="ledits")
        torch.testing.assert_close(both.latents[k : k + 1], one.latents, rtol=0, atol=1e-9)
        assert torch.equal(both.mask[k : k + 1], one.mask)
    shared = unsample.edit(model, inversion[0], targets, editor="ledits")
    torch.testing.assert_close(shared.latents[:1], both.latents[:1], rtol=0, atol=1e-9)


def test_a_sign_turns_the_edit_round(model: Any) -> None:
    inversion = inverted(model, method="ddim")
    own = unsample.reconstruct(model, inversion).latents
    moved = [
        unsample.edit(model, inversion, editor=ledits({"a dog": w}, masks="none"), guidance_scale=1e-4).latents - own
        for w in (1, -1, 2)
    ]
    assert moved[0].abs().max() > 1e-6
    torch.testing.assert_close(moved[1], -moved[0], rtol=1e-2, atol=1e-8)
    torch.testing.assert_close(moved[2], 2 * moved[0], rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in METHODS if get_method(n).refuses_vp is None])
def test_it_goes_with_a_method_or_says_why_not(name: str) -> None:
    model, method = mixture(), get_method(name, {"preset": "quick"})
    given: dict[str, Any] = {"latents": normal(1, *model.sample_shape)}
    if method.needs_trajectory:
        made = unsample.sample(model, "left", num_inference_steps=STEPS, noise=given["latents"], keep_trajectory=True)
        given = {"latents": made.latents, "trajectory": made.trajectory}
    inversion = unsample.invert(model, prompt="left", method=method, num_inference_steps=STEPS, generator=0, **given)
    w = inversion.meta.sampling_guidance_scale if method.edits_as_fitted else 2
    try:
        made = unsample.edit(model, inversion, "right", editor=ledits(masks="none"), guidance_scale=w)
    except Incompatible as error:
        assert name in str(error)  # before any work: by name
        assert "asks for predict" not in str(error)
    else:
        assert (made.latents - unsample.reconstruct(model, inversion).latents).abs().max() > 1e-3


def test_wrong_use_is_refused_by_name(model: Any) -> None:
    inversion = inverted(model)
    for wrong in ({}, {"dog": math.nan}, {" ": 1}, {"dog": "more"}, ["dog"]):
        with pytest.raises(BadOption, match="ledits: edits must be words with numbers"):
            ledits(wrong)  # type: ignore[arg-type]
    with pytest.raises(BadOption, match="ledits edits by phrases, and '' has no words"):
        unsample.edit(model, inversion, "", editor="ledits")
    with pytest.raises(BadOption, match="edits \\(dog\\) and the prompt 'an owl' both say"):
        unsample.edit(model, inversion, "an owl", editor=ledits({"dog": 1}))
    with pytest.raises(BadOption, match="edit needs what the picture shall show"):
        unsample.edit(model, inversion, editor="ledits")
    with pytest.raises(BadOption, match="threshold must be a finite number from 0 to 1"):
        ledits(threshold=1.5)
    with pytest.raises(Incompatible, match="mixture.*ledits\\(masks='noise'\\), which needs no attention"):
        unsample.edit(mixture(), inverted(mixture(), PROMPTS[0]), PROMPTS[1], editor="ledits")
    pixels = unsample.load(ddpm())
    plain = unsample.invert(pixels, latents=normal(1, *pixels.sample_shape), num_inference_steps=STEPS)
    with pytest.raises(Incompatible, match="ledits edits by phrases"):
        unsample.edit(pixels, plain, editor=ledits({"dog": 1}))
    with pytest.raises(Incompatible, match="ledits does not go with proximal: .* halves"):
        unsample.edit(model, inverted(model, method="proximal"), TARGET, editor="ledits")
    assert parse_settings("ledits", [("edits", "glasses, -beard, hat=0.5")]) == {
        "edits": {"glasses": 1, "beard": -1, "hat": 0.5}
    }
