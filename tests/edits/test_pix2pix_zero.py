"""Cross-attention guidance: its gradient against finite differences, its cost, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import unsample
from tests.problems import mixture, normal, sd14
from unsample.edits import parse_settings, pix2pix_zero
from unsample.errors import BadInput, BadOption, Incompatible

SOURCE, TARGET, STEPS = "a cat", "a dog", 3
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def model() -> Any:
    """Stable Diffusion's layout, small, its network in float64."""
    pipeline = sd14()
    pipeline.unet.double()
    return unsample.load(pipeline)


def inverted(model: Any, prompts: Any = SOURCE, method: str = "ddim", count: int = 1, **more: Any) -> Any:
    latents = normal(count, *model.sample_shape)
    return unsample.invert(
        model, latents=latents, prompt=prompts, method=method, num_inference_steps=STEPS, generator=0, **more
    )


def seen(editor: Any, kept: list[Any]) -> Any:
    """The editor, with its steering put aside."""

    def steer(branches: Any) -> Any:
        kept.append(editor.steer(branches))
        return kept[-1]

    return replace(editor, steer=steer)


class Plain:
    """An attention processor of the textbook that keeps its probabilities."""

    def __init__(self, kept: list[Tensor]) -> None:
        self.kept = kept

    def __call__(self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        keys = hidden if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            layer(t).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, t in ((attn.to_q, hidden), (attn.to_k, keys), (attn.to_v, keys))
        )
        maps = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        if encoder_hidden_states is not None:
            self.kept.append(maps)
        return attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))


def squares(model: Any, edit: Tensor, source: Tensor, timestep: float) -> float:
    """The distance that is to shrink, from the network alone."""
    maps, before = [], dict(model.unet.attn_processors)
    for x, prompt in ((edit, TARGET), (source, SOURCE)):
        kept: list[Tensor] = []
        model.unet.set_attn_processor(Plain(kept))
        embeds = model.embed([prompt]).prompt_embeds.double()
        model.unet(x, torch.tensor(int(timestep)), encoder_hidden_states=embeds)
        maps.append(kept)
    model.unet.set_attn_processor(before)
    assert maps[0]
    return float(sum((a - b).square().sum((2, 3)).mean(1).sum() for a, b in zip(*maps, strict=True)))


@torch.no_grad()
def test_an_edit_goes_down_the_squares_as_finite_differences_say(model: Any) -> None:
    kept: list[Any] = []
    unsample.edit(model, inverted(model), TARGET, editor=seen(pix2pix_zero(xa_guidance=0.5), kept))
    (steering,) = kept
    points, along, h = normal(2, *model.sample_shape, seed=4), normal(1, *model.sample_shape, seed=5), 1e-4
    with steering.attached():
        moved, _ = steering.departs(0, 2, points, {})
    t = steering.branches.grid.asked_at(2)[0]
    up, down = (squares(model, points[:1] + sign * h * along, points[1:], t) for sign in (1, -1))
    slope = float(((points[:1] - moved[:1]) * along).sum()) / 0.5
    assert slope == pytest.approx((up - down) / (2 * h), rel=1e-5)
    assert squares(model, moved[:1], moved[1:], t) < squares(model, points[:1], points[1:], t)
    assert torch.equal(moved[1:], points[1:])  # the source stays where it is
    assert steering.taken is None  # outside of it no layer is ours


def test_without_the_gradient_step_it_is_the_prompt_swap(model: Any) -> None:
    inversion = inverted(model)
    swapped = unsample.edit(model, inversion, TARGET, guidance_scale=3)
    made = unsample.edit(model, inversion, TARGET, editor=pix2pix_zero(xa_guidance=0), guidance_scale=3)
    torch.testing.assert_close(made.latents, swapped.latents, rtol=0, atol=1e-10)
    assert (made.nfe, made.backward) == ([3 * STEPS], [0])
    guided = unsample.edit(model, inversion, TARGET, editor="pix2pix_zero", guidance_scale=3)
    assert (guided.latents - swapped.latents).abs().max() > 1e-6
    # beside edit 2 and source 1 of sampling: a pass of each for the maps, and the edit's one backward
    assert (guided.nfe, guided.backward) == ([5 * STEPS], [STEPS])
    assert guided.meta.guidance_scale == 3
    assert unsample.edit(model, inversion, TARGET, editor="pix2pix_zero").meta.guidance_scale == 5


def test_sentences_move_the_prompt_along_the_difference_of_their_means(model: Any) -> None:
    inversion, old, new = inverted(model), ["a cat", "one cat sits"], ["a dog", "my dog", "dogs"]
    editor = pix2pix_zero(xa_guidance=0, source_sentences=old, target_sentences=new)
    made = unsample.edit(model, inversion, editor=editor, guidance_scale=2)
    own, before, after = (model.embed(texts).prompt_embeds.detach() for texts in ([SOURCE], old, new))
    moved = own + after.mean(0) - before.mean(0)
    asked = unsample.edit(model, inversion, prompt_embeds=moved, guidance_scale=2)
    torch.testing.assert_close(made.latents, asked.latents, rtol=0, atol=1e-6)
    assert made.meta.prompt == [SOURCE]
    torch.testing.assert_close(made.reconstruction, unsample.reconstruct(model, inversion).images, rtol=0, atol=1e-6)
    same = pix2pix_zero(xa_guidance=0, source_sentences=old, target_sentences=old)
    again = unsample.edit(model, inversion, editor=same, guidance_scale=1)
    torch.testing.assert_close(again.latents, unsample.reconstruct(model, inversion).latents, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["ddim", "edict", "edit_friendly", "direct", "null_text", "negative_prompt"])
def test_an_edit_to_the_source_is_its_reconstruction(model: Any, method: str) -> None:
    inversion = inverted(model, method=method)
    w = inversion.meta.sampling_guidance_scale
    made = unsample.edit(model, inversion, SOURCE, editor="pix2pix_zero", guidance_scale=w)
    again = unsample.reconstruct(model, inversion)
    torch.testing.assert_close(made.reconstruction, again.images, rtol=0, atol=1e-6)
    if method != "direct":  # its offsets are the source's alone
        torch.testing.assert_close(made.latents, again.latents, rtol=0, atol=1e-7)
    assert made.backward == [inversion.meta.stop_index]


def test_a_batch_gives_what_single_pictures_give(model: Any) -> None:
    prompts, targets = ["a cat", "an elk"], ["a dog", "an old elk"]
    inversion = inverted(model, prompts, count=2)
    editor = pix2pix_zero(xa_guidance=2)
    both = unsample.edit(model, inversion, targets, editor=editor)
    for k in range(2):
        one = unsample.edit(model, inversion[k], targets[k], editor=editor)
        torch.testing.assert_close(both.latents[k : k + 1], one.latents, rtol=0, atol=1e-9)
        assert (both.nfe[k], both.backward[k]) == (one.nfe[0], one.backward[0])
    shared = unsample.edit(model, inversion[0], targets, editor=editor)
    torch.testing.assert_close(shared.latents[:1], both.latents[:1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("fails", [None, RuntimeError("the network stopped"), KeyboardInterrupt()])
def test_nothing_is_left_behind(model: Any, fails: BaseException | None) -> None:
    inversion, calls = inverted(model), []
    before = {name: type(p) for name, p in model.unet.attn_processors.items()}
    weights = model.weights_sha256()

    def failing(*_: Any) -> None:
        calls.append(1)
        if fails is not None and len(calls) == 4:
            raise fails

    hook = model.unet.register_forward_pre_hook(failing)
    try:
        unsample.edit(model, inversion, TARGET, editor="pix2pix_zero", allow_other_model=True)
        assert fails is None
    except (RuntimeError, Incompatible, KeyboardInterrupt):
        assert fails is not None
    hook.remove()
    assert {name: type(p) for name, p in model.unet.attn_processors.items()} == before
    assert all("forward" not in vars(layer) for layer in model.unet.modules())
    assert all(p.grad is None for p in model.unet.parameters())
    assert torch.is_grad_enabled()
    assert model.weights_sha256() == weights


def test_wrong_use_is_refused_by_name(model: Any, tmp_path: Any) -> None:
    with pytest.raises(BadOption, match="give source_sentences too"):
        pix2pix_zero(target_sentences=["a dog"])
    for wrong in ([], ["a dog", " "], "a dog"):
        with pytest.raises(BadOption, match="target_sentences must be a list of texts"):
            pix2pix_zero(source_sentences=["a cat"], target_sentences=wrong)  # type: ignore[arg-type]
    with pytest.raises(BadOption, match="edit needs what the picture shall show"):
        unsample.edit(model, inverted(model), editor="pix2pix_zero")
    with pytest.raises(BadOption, match="the source has none"):
        unsample.edit(model, inverted(model, None), TARGET, editor="pix2pix_zero")
    plain = mixture()
    with pytest.raises(Incompatible, match="editor pix2pix_zero"):
        unsample.edit(plain, inverted(plain, "left"), "right", editor="pix2pix_zero")
    model.unet.forward = torch.no_grad()(model.unet.forward)
    with pytest.raises(Incompatible, match="carries no gradient"):
        unsample.edit(model, inverted(model), TARGET, editor="pix2pix_zero")
    file = tmp_path / "dogs.txt"
    file.write_text("a dog\n\nmy dog \n")
    pairs = [("source_sentences", "a cat; one cat"), ("target_sentences", f"@{file}"), ("xa_guidance", "0.15")]
    found = parse_settings("pix2pix_zero", pairs)
    assert found == {
        "source_sentences": ["a cat", "one cat"],
        "target_sentences": ["a dog", "my dog"],
        "xa_guidance": 0.15,
    }
    with pytest.raises(BadInput, match="one a line"):
        parse_settings("pix2pix_zero", [("target_sentences", f"@{tmp_path}/none.txt")])
