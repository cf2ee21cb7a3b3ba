"""MasaCtrl and plug-and-play on the bundled model: what they compute, what they leave, and what they leave behind."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

import unsample
from unsample.edits import Editor, masactrl, pnp
from unsample.edits.attention import AttentionSteering
from unsample.edits.base import Steering
from unsample.edits.masactrl import Masked
from unsample.errors import BadOption, Incompatible

STEPS = 6
SOURCE = "a large red circle at the center on a white background"
TARGETS = [SOURCE.replace("center", "left"), SOURCE.replace("red", "blue")]
EDITORS: dict[str, Callable[..., Editor]] = {"masactrl": masactrl, "pnp": pnp}
NOTHING = [masactrl(start_step=STEPS), masactrl(start_layer=7, mask_words="circle"), pnp(feature_steps=0, self_steps=0)]
BOTH = pytest.mark.parametrize("name", EDITORS)
pytestmark = pytest.mark.filterwarnings("ignore")


class Idle(Steering):
    halves = ()


@pytest.fixture(scope="module")
def model() -> Any:
    return unsample.load("scenes-sd")


@pytest.fixture(scope="module")
def latents(model: Any) -> Any:
    return unsample.sample(
        model, [SOURCE, TARGETS[1]], num_inference_steps=STEPS, guidance_scale=3, generator=0
    ).latents


def inverted(model: Any, latents: Any, method: str = "ddim", prompt: Any = SOURCE, **more: Any) -> Any:
    return unsample.invert(model, latents=latents[:1], prompt=prompt, method=method, num_inference_steps=STEPS, **more)


def state_of(model: Any) -> list[Any]:
    """What an editor could leave in the denoiser."""
    return [
        (name, id(getattr(m, "processor", None)), vars(m).get("forward"), list(m._forward_hooks), m.training)
        for name, m in model.unet.named_modules()
    ]


@BOTH
@pytest.mark.parametrize(("method", "guidance"), [("ddim", 1.0), ("ddim", 3.0), ("edict", 3.0), ("edit_friendly", 3.0)])
def test_the_source_s_own_prompt_gives_the_reconstruction(
    model: Any, latents: Any, name: str, method: str, guidance: float
) -> None:
    """Source and edit are then the same rows of one batch; kernels may round rows of a batch differently."""
    inversion = inverted(model, latents, method, sampling_guidance_scale=guidance)
    made = unsample.edit(model, inversion, SOURCE, editor=name, guidance_scale=guidance)
    torch.testing.assert_close(made.images, made.reconstruction, rtol=0, atol=1e-5)


@pytest.mark.parametrize("editor", NOTHING, ids=repr)
def test_no_step_or_no_layer_is_the_prompt_swap_bit_for_bit(model: Any, latents: Any, editor: Editor) -> None:
    inversion = inverted(model, latents)
    idle = unsample.edit(model, inversion, TARGETS[0], editor=Editor(name="idle", steer=lambda _: Idle()))
    made = unsample.edit(model, inversion, TARGETS[0], editor=editor, guidance_scale=idle.meta["guidance_scale"])
    assert torch.equal(made.latents, idle.latents)
    assert made.nfe == idle.nfe


@BOTH
def test_a_layer_is_what_the_equation_says(model: Any, latents: Any, name: str) -> None:
    layer = model.unet.up_blocks[2].attentions[1].transformer_blocks[0].attn1
    calls: list[tuple[Any, Any]] = []
    inversion = inverted(model, latents)
    hook = layer.register_forward_hook(lambda _, given, out: calls.append((given[0], out)))
    try:
        unsample.edit(model, inversion, TARGETS[0], editor=name, guidance_scale=3, allow_other_model=True)
    finally:
        hook.remove()
    tokens, found = calls[1]  # step 1: both editors are at work; rows: edit and source without, then with the prompt
    assert len(tokens) == 4
    q, k, v = (
        (tokens @ getattr(layer, f"to_{n}").weight.T).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for n in "qkv"
    )
    source = [1, 1, 3, 3]
    q, k, v = (q[source], k[source], v) if name == "pnp" else (q, k[source], v[source])
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    answer = layer.to_out[0]((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, answer, rtol=0, atol=1e-5)


def test_with_masks_the_thing_asks_the_thing_and_the_background_the_background(
    model: Any, latents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing = torch.zeros(2, 1, 16, 16)
    thing[0, :, :, :8], thing[1, :, 4:] = 1, 1  # the edit's on the left, the source's below
    monkeypatch.setattr(Masked, "_thing", lambda _: tuple(thing))
    layer = model.unet.up_blocks[2].attentions[1].transformer_blocks[0].attn1
    inversion = inverted(model, latents)
    calls: list[tuple[Any, Any]] = []
    hook = layer.register_forward_hook(lambda _, given, out: calls.append((given[0], out)))
    editor = masactrl(start_step=0, mask_words="circle")
    try:
        unsample.edit(model, inversion, TARGETS[0], editor=editor, guidance_scale=3, allow_other_model=True)
    finally:
        hook.remove()
    tokens, found = calls[1]
    q, k, v = (
        (tokens @ getattr(layer, f"to_{n}").weight.T).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for n in "qkv"
    )
    own, theirs = thing.bool().flatten(1)
    scores = q[[0, 2]] @ k[[1, 3]].transpose(-1, -2) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(own[:, None] != theirs, -float("inf")).softmax(-1)
    answer = layer.to_out[0]((weights @ v[[1, 3]]).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found[[0, 2]], answer, rtol=0, atol=1e-5)
    plain = layer.to_out[0](((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found[[1, 3]], plain[[1, 3]], rtol=0, atol=1e-5)


def test_the_map_of_the_thing_lies_where_the_edit_has_it_and_a_thing_that_the_source_has_not_asks_all_of_it(
    model: Any, latents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inversion = inverted(model, latents)
    how: dict[str, Any] = {"guidance_scale": 3}
    made = unsample.edit(model, inversion, TARGETS[0], editor=masactrl(mask_words="circle"), **how)
    (found,) = made.attention_maps
    assert found["circle"].shape == (16, 16)
    assert found["circle"].min() == 0
    assert found["circle"].max() == 1
    assert found["circle"][:, :8].sum() > 1.2 * found["circle"][:, 8:].sum()  # "at the left", from the middle
    monkeypatch.setattr(Masked, "_thing", lambda _: (torch.ones(1, 16, 16), torch.zeros(1, 16, 16)))
    nowhere = unsample.edit(model, inversion, TARGETS[0], editor=masactrl(mask_words="circle"), **how)
    plain = unsample.edit(model, inversion, TARGETS[0], editor=masactrl(), **how)
    torch.testing.assert_close(nowhere.latents, plain.latents, rtol=0, atol=1e-4)


def test_features_are_the_source_s_in_the_first_steps_and_the_edit_s_own_afterwards(model: Any, latents: Any) -> None:
    branches: list[Any] = []
    inversion = inverted(model, latents)
    conv = model.unet.up_blocks[1].resnets[1].conv2

    def watched(*_: Any) -> Any:  # registered in the walk, so that it stands behind the editor's
        def look(_: Any, __: Any, out: Any) -> None:
            branches.append(out)

        return conv.register_forward_hook(look)

    handles: list[Any] = []
    try:
        unsample.edit(
            model,
            inversion,
            TARGETS[0],
            editor=pnp(feature_steps=0.5),
            callback_on_step_end=lambda *_: handles.append(watched()) if not handles else None,
        )
    finally:
        [handle.remove() for handle in handles]
    same = [torch.equal(b[[0, 2]], b[[1, 3]]) for b in branches]  # of the steps after the first
    assert same == [True, True, False, False, False]


@BOTH
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_the_network_is_as_it_was(
    model: Any, latents: Any, name: str, error: type[BaseException], global_rng_unchanged: None
) -> None:
    def stop(*_: Any) -> None:
        raise error("stop")

    inversion, before = inverted(model, latents), state_of(model)
    with pytest.raises(error, match="stop"):
        unsample.edit(model, inversion, TARGETS[0], editor=name, callback_on_step_end=stop)
    assert state_of(model) == before
    unsample.edit(model, inversion, TARGETS[0], editor=name)
    assert state_of(model) == before
    gc.collect()
    assert not [held for held in gc.get_objects() if isinstance(held, AttentionSteering)]


@BOTH
def test_a_batch_gives_what_single_pictures_give_and_prompts_share_a_source(
    model: Any, latents: Any, name: str
) -> None:
    prompts = [SOURCE, TARGETS[1]]
    both = unsample.invert(model, latents=latents, prompt=prompts, num_inference_steps=STEPS)
    made = unsample.edit(model, both, TARGETS, editor=name, guidance_scale=3).latents
    alone = [unsample.edit(model, both[k], TARGETS[k], editor=name, guidance_scale=3).latents for k in range(2)]
    torch.testing.assert_close(made, torch.cat(alone), rtol=0, atol=2e-5)
    shared = unsample.edit(model, both[0], TARGETS, editor=name, guidance_scale=3).latents
    torch.testing.assert_close(shared[:1], alone[0], rtol=0, atol=2e-5)


@BOTH
def test_no_map_is_made_and_fused_projections_give_the_same(
    latents: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = unsample.load("scenes-sd")
    inversion = inverted(model, latents)
    monkeypatch.setattr(
        type(model.unet.mid_block.attentions[0].transformer_blocks[0].attn1), "get_attention_scores", None
    )
    made = unsample.edit(model, inversion, TARGETS[0], editor=name, guidance_scale=3)
    swapped = unsample.edit(model, inversion, TARGETS[0], guidance_scale=3)
    assert (made.latents - swapped.latents).abs().mean() > 0.01
    model.unet.fuse_qkv_projections()
    fused = unsample.edit(model, inversion, TARGETS[0], editor=name, guidance_scale=3)
    torch.testing.assert_close(fused.latents, made.latents, rtol=0, atol=1e-4)


@BOTH
def test_in_bfloat16_an_edit_is_near_that_of_float32(latents: Any, name: str) -> None:
    made = []
    for dtype in ("float32", "bfloat16"):
        model = unsample.load("scenes-sd", dtype=dtype)
        made.append(unsample.edit(model, inverted(model, latents), TARGETS[0], editor=name, guidance_scale=3).latents)
    assert (made[0] - made[1]).abs().mean() < 0.1 * made[0].abs().mean()


@BOTH
@pytest.mark.parametrize("method", ["direct", "null_text", "negative_prompt"])
def test_records_that_steer_the_source_play_beside_an_edit(model: Any, latents: Any, name: str, method: str) -> None:
    inversion = unsample.invert(
        model,
        latents=latents[:1],
        prompt=SOURCE,
        num_inference_steps=STEPS,
        sampling_guidance_scale=3,
        method=unsample.methods.get_method(method, {"preset": "quick"} if method == "null_text" else None),
    )
    made = unsample.edit(model, inversion, TARGETS[0], editor=name, guidance_scale=3)
    again = unsample.reconstruct(model, inversion)
    torch.testing.assert_close(made.reconstruction, again.images, rtol=0, atol=1e-4)
    assert made.status == ["ok"]


def test_default_layers_and_steps_are_the_papers_share() -> None:
    from unsample.edits.layers import from_step, steps_of

    assert [from_step(None, 4, n) for n in (50, 25, 10, 2)] == [4, 2, 1, 0]
    assert [steps_of(0.8, n) for n in (50, 25, 10, 2)] == [40, 20, 8, 1]
    assert steps_of(0.7, 10) == 7


def test_what_cannot_be_honoured_is_refused(model: Any, latents: Any) -> None:
    inversion = inverted(model, latents)
    with pytest.raises(BadOption, match="at most 7, the number of self-attentions of scenes-sd"):
        unsample.edit(model, inversion, TARGETS[0], editor=masactrl(start_layer=8))
    with pytest.raises(BadOption, match="unknown word of mask_words in either prompt 'sphere'.*circle"):
        unsample.edit(model, inversion, TARGETS[0], editor=masactrl(mask_words="sphere"))
    with pytest.raises(BadOption, match="'center' names nothing in the edit's prompt .*left"):
        unsample.edit(model, inversion, TARGETS[0], editor=masactrl(mask_words="center"))
    bare = inverted(model, latents, prompt=None)
    with pytest.raises(BadOption, match="the source has none"):
        unsample.edit(model, bare, TARGETS[0], editor=masactrl(mask_words="circle"))
    with pytest.raises(BadOption, match="feature_steps must be a finite number from 0 to 1"):
        pnp(feature_steps=1.5)


@BOTH
def test_a_model_without_attention_is_refused_by_name(name: str) -> None:
    from tests.problems import PROMPTS, mixture, normal

    toy = mixture()
    inversion = unsample.invert(toy, latents=normal(1, *toy.sample_shape), prompt=PROMPTS[0], num_inference_steps=2)
    with pytest.raises(Incompatible, match=f"editor {name} .* mixture is no network of diffusers"):
        unsample.edit(toy, inversion, PROMPTS[1], editor=name)
