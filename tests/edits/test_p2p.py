"""Prompt-to-prompt on the bundled scenes-sd: identities, one layer worked out by hand, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import unsample
from unsample.edits import p2p, parse_settings
from unsample.edits.attention import Heads
from unsample.edits.base import Asked
from unsample.edits.beside import Beside
from unsample.edits.p2p import P2P
from unsample.edits.words import pieces
from unsample.errors import BadOption, Incompatible, UnknownName

SOURCE = "a large red circle at the center on a white background"
BLUE = SOURCE.replace("red", "blue")
STEPS = 5
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model() -> Any:
    return unsample.load("scenes-sd")


@pytest.fixture(scope="module")
def picture(model: Any) -> Any:
    return unsample.sample(model, SOURCE, generator=0, guidance_scale=3, num_inference_steps=20).pil()[0]


def inverted(model: Any, picture: Any, method: Any = "ddim") -> Any:
    return unsample.invert(model, picture, SOURCE, method=method, num_inference_steps=STEPS, progress=False)


@pytest.fixture(scope="module")
def inversion(model: Any, picture: Any) -> Any:
    return inverted(model, picture)


@pytest.mark.parametrize("method", ["ddim", "edict", "null_text", "edit_friendly", "negative_prompt"])
def test_the_sources_own_prompt_gives_the_source_to_the_bit(model: Any, picture: Any, method: str) -> None:
    found = inverted(model, picture, method)
    w = found.meta.sampling_guidance_scale
    for editor in ("p2p", p2p(blend="auto", reweight={"red": 1}), p2p(cross_steps=0, self_steps=0)):
        made = unsample.edit(model, found, SOURCE, editor=editor, guidance_scale=w)
        assert torch.equal(made.images, made.reconstruction)
    again = unsample.reconstruct(model, found)
    torch.testing.assert_close(made.reconstruction, again.images, rtol=0, atol=1e-4)  # another batch rounds otherwise


@pytest.mark.parametrize("method", ["direct", "bdia", "edict"])
def test_the_source_is_its_reconstruction_beside_any_edit(model: Any, picture: Any, method: str) -> None:
    found = inverted(model, picture, method)
    made = unsample.edit(model, found, BLUE, editor=p2p(blend="circle"))
    again = unsample.reconstruct(model, found)
    torch.testing.assert_close(made.reconstruction, again.images, rtol=0, atol=1e-4)
    assert made.meta["guidance_scale"] == 7.5
    assert not torch.equal(made.images, made.reconstruction)


class Heard:
    """What each layer was asked and answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[int, Heads, Asked, Tensor | None]] = []
        attend = P2P.attend

        def listening(steering: P2P, heads: Heads, rows: Asked) -> Tensor | None:
            answer = attend(steering, heads, rows)
            self.calls.append((steering.step, heads, rows, answer))
            return answer

        monkeypatch.setattr(P2P, "attend", listening)


def softmaxed(heads: Heads, row: int) -> Tensor:
    """(H, tokens, keys), in float64, of queries and keys as they were caught."""
    q, k = heads.q[row].double(), heads.k[row].double()
    scores = torch.einsum("hqd,hkd->hqk", q, k) / q.shape[-1] ** 0.5
    return scores.exp() / scores.exp().sum(-1, keepdim=True)


def test_a_cross_layer_answers_what_is_worked_out_by_hand(
    model: Any, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`red` (token 3) becomes `redd` (3 to 6): each has a quarter of its map, what follows moves by 3, padding ends."""
    heard = Heard(monkeypatch)
    target = SOURCE.replace("red", "redd")
    inversion = unsample.invert(model, picture, SOURCE, num_inference_steps=STEPS, guidance_scale=2)
    editor = p2p(cross_steps=0.8, reweight={"circle": 3, "white": -1})
    unsample.edit(model, inversion, target, editor=editor, guidance_scale=3)
    cross = [(step, h, rows, a) for step, h, rows, a in heard.calls if h.layer.cross]
    assert {step for step, *_ in cross} == set(range(STEPS))
    for step, heads, rows, answer in cross[:: len(cross) // 6]:
        assert rows.conditional.tolist() == [False, False, True, True]
        assert rows.edits.tolist() == [True, False, True, False]
        own, source = softmaxed(heads, 2), softmaxed(heads, 3)
        expected = own.clone()
        if step < 0.8 * STEPS:
            for t in range(24):
                if t < 3:
                    expected[:, :, t] = source[:, :, t]
                elif t < 7:
                    expected[:, :, t] = source[:, :, 3] / 4
                elif t < 23:
                    expected[:, :, t] = source[:, :, t - 3]
                else:
                    expected[:, :, t] = source[:, :, 20:].sum(-1)
        expected[:, :, 7] *= 3
        expected[:, :, 13] *= -1
        assert answer is not None
        torch.testing.assert_close(answer[2].double(), expected @ heads.v[2].double(), rtol=0, atol=1e-5)
        for row in (0, 1, 3):  # the half without the prompt, and the source
            alone = softmaxed(heads, row) @ heads.v[row].double()
            torch.testing.assert_close(answer[row].double(), alone, rtol=0, atol=1e-5)


def test_a_new_word_looks_by_itself(model: Any, inversion: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    target = SOURCE.replace("red", "dark red")
    unsample.edit(model, inversion, target, editor=p2p(cross_steps=1), guidance_scale=1)
    dark = pieces(model, target, 24).tokens("dark")
    _, heads, _, answer = next(call for call in heard.calls if call[1].layer.cross)
    own, source = softmaxed(heads, 0), softmaxed(heads, 1)
    n = len(dark)
    expected = torch.cat([source[:, :, :3], own[:, :, 3 : 3 + n], source[:, :, 3:]], -1)
    expected = torch.cat([expected[:, :, :23], source[:, :, 23 - n :].sum(-1, keepdim=True)], -1)  # the padding's end
    assert dark == tuple(range(3, 3 + n))
    assert answer is not None
    torch.testing.assert_close(answer[0].double(), expected @ heads.v[0].double(), rtol=0, atol=1e-5)


def test_blending_takes_the_second_state_along() -> None:
    """Of two edits of one source; what is not of the shape of x is left alone."""
    x, y, other = torch.rand(3, 4, 8, 8), torch.rand(3, 4, 8, 8), torch.rand(3, 2)
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, :4], mask[1, :, :, 2:] = 1, 0.25
    found, state = Beside([0, 0], mask).blended_rows(x, {"y": y, "other": other})
    for value, mixed in ((x, found), (y, state["y"])):
        assert torch.equal(mixed[0, :, :4], value[0, :, :4])
        assert torch.equal(mixed[0, :, 4:], value[2, :, 4:])
        torch.testing.assert_close(mixed[1, :, :, 2:], 0.25 * value[1, :, :, 2:] + 0.75 * value[2, :, :, 2:])
        assert torch.equal(mixed[2], value[2])
    assert state["other"] is other


def test_self_attention_is_the_sources_for_a_share_of_the_steps(
    model: Any, inversion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard(monkeypatch)
    unsample.edit(model, inversion, BLUE, editor=p2p(self_steps=0.4, self_size=8), guidance_scale=3)
    own = [(step, h, rows, a) for step, h, rows, a in heard.calls if not h.layer.cross]
    assert {step for step, *_ in own} == {0, 1}
    assert {heads.q.shape[2] for _, heads, *_ in own} == {64, 16}
    for _, heads, _, answer in own:
        assert answer is not None
        expected = softmaxed(heads, 2) @ heads.v[1].double()
        torch.testing.assert_close(answer[1].double(), expected, rtol=0, atol=1e-5)


def test_all_steps_replaced_gives_the_maps_of_the_source(
    model: Any, inversion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(P2P, "_saw", lambda _, edited, source, edits: seen.append((edited, source)))
    monkeypatch.setattr(P2P, "maps", lambda _: ())
    unsample.edit(model, inversion, BLUE, editor=p2p(cross_steps=1, self_steps=1))
    assert seen
    assert all(torch.equal(edited, source) for edited, source in seen)


def test_the_maps_shown_are_the_mean_of_each_branch_at_16_tokens_a_side(
    model: Any, inversion: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard(monkeypatch)
    made = unsample.edit(model, inversion, BLUE, editor=p2p(cross_steps=0, self_steps=0), guidance_scale=1)
    large = [h for _, h, *_ in heard.calls if h.layer.cross and h.q.shape[2] == 256]
    for row, word in ((0, "blue"), (1, "red")):
        mean = torch.stack([softmaxed(heads, row)[:, :, 3] for heads in large]).mean((0, 1)).reshape(16, 16)
        torch.testing.assert_close(made.attention_maps[0][word].double(), mean / mean.max(), rtol=0, atol=1e-5)


def test_reweight_1_changes_nothing_and_another_factor_does(model: Any, inversion: Any) -> None:
    plain, one, three = (
        unsample.edit(model, inversion, BLUE, editor=p2p(reweight=asked)).latents
        for asked in (None, {"blue": 1, "circle": 1.0}, {"blue": 3})
    )
    assert torch.equal(plain, one)
    assert not torch.equal(plain, three)


def test_a_share_of_its_own_is_that_of_the_word(model: Any, inversion: Any) -> None:
    target = SOURCE.replace("red circle", "blue square")
    words = dict.fromkeys(target.split(), 0.4)
    both = p2p(word_steps=words, cross_steps=0.4)
    assert torch.equal(
        unsample.edit(model, inversion, target, editor=both).latents,
        unsample.edit(model, inversion, target, editor=p2p(cross_steps=0.4)).latents,
    )
    other = unsample.edit(model, inversion, target, editor=p2p(word_steps={"blue": 0}, cross_steps=0.4))
    assert not torch.equal(other.latents, unsample.edit(model, inversion, target, editor=both).latents)


@pytest.mark.parametrize("method", ["ddim", "edict"])
def test_outside_of_the_blend_words_the_edit_is_its_source(model: Any, picture: Any, method: str) -> None:
    found = inverted(model, picture, method)
    made = unsample.edit(model, found, BLUE, editor=p2p(blend="circle"), guidance_scale=3)
    assert made.mask is not None
    mask = made.mask[:, :, ::4, ::4] > 0  # a latent is 4 x 4 pixels
    assert 0.05 < mask.float().mean() < 0.8
    assert mask[0, 0, 8, 8]
    kept = unsample.reconstruct(model, found).latents
    outside = (made.latents - kept).abs()[(~mask).expand_as(kept)]
    assert outside.max() < 1e-4  # another batch rounds otherwise
    assert (made.latents - kept).abs().max() > 0.1


def test_a_batch_gives_what_single_pictures_give(model: Any, picture: Any) -> None:
    texts = [BLUE, SOURCE.replace("large ", "")]
    editor = p2p(blend="auto", reweight={"circle": 2})
    two = unsample.invert(model, [picture, picture.rotate(180)], [SOURCE, SOURCE], num_inference_steps=STEPS)
    both = unsample.edit(model, two, texts, editor=editor, guidance_scale=3)
    for n, text in enumerate(texts):
        one = unsample.edit(model, two[n], text, editor=editor, guidance_scale=3)
        torch.testing.assert_close(both.latents[n : n + 1], one.latents, rtol=0, atol=1e-3)
        assert both.attention_maps[n].keys() == one.attention_maps[0].keys()
    assert both.meta["editor_notes"] == {
        "kind": ["replace", "refine"],
        "gone": [["red"], ["large"]],
        "new": [["blue"], []],
    }
    assert list(both.attention_maps[0]) == ["red", "blue"]
    assert all(m.shape == (16, 16) and m.max() == 1 for m in both.attention_maps[0].values())


def test_fused_projections_and_bfloat16_give_the_same_edit(picture: Any, model: Any, inversion: Any) -> None:
    editor = p2p(blend="circle", reweight={"blue": 2})
    plain = unsample.edit(model, inversion, BLUE, editor=editor, guidance_scale=3).images
    fused = unsample.load("scenes-sd")
    fused.unet.fuse_qkv_projections()
    found = unsample.edit(fused, inversion, BLUE, editor=editor, guidance_scale=3).images
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-3)
    half = unsample.load("scenes-sd", dtype="bfloat16")
    found = unsample.edit(half, inversion, BLUE, editor=editor, guidance_scale=3).images
    assert (found - plain).square().mean() < 3e-3  # 25 dB: bfloat16 has 8 bits


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_mid_walk_leaves_nothing_behind(model: Any, inversion: Any, error: type[BaseException]) -> None:
    def stop(_: Any, step: int, *__: Any) -> None:
        if step >= 1:
            raise error

    before = [dict(vars(m)) for m in model.unet.modules()]
    weights, state = model.weights_sha256(), torch.get_rng_state()
    with pytest.raises(error):
        unsample.edit(model, inversion, BLUE, editor=p2p(blend="auto"), callback_on_step_end=stop)
    unsample.edit(model, inversion, BLUE, editor=p2p(blend="auto"))
    assert [dict(vars(m)) for m in model.unet.modules()] == before
    assert model.weights_sha256() == weights
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "target", "said"),
    [
        ({"reweight": {"bleu": 3}}, BLUE, "unknown word of reweight in the edit's prompt.*'bleu'.*did you mean 'blue'"),
        ({"word_steps": {"red": 0.3}}, BLUE, "unknown word of word_steps.*'red'"),
        ({"blend": "sphere"}, BLUE, "unknown word of blend in either prompt 'sphere'.*circle"),
        ({"kind": "replace"}, SOURCE.replace("red ", ""), "11 words.* 10; use kind=refine"),
        ({}, "", "compares the words of two prompts, and the edit has none"),
    ],
)
def test_words_that_are_not_there_are_refused_before_any_work(
    model: Any, inversion: Any, settings: Any, target: str, said: str
) -> None:
    with pytest.raises(BadOption, match=said):
        unsample.edit(model, inversion, target, editor=p2p(**settings))


def test_it_needs_the_sources_prompt_and_a_model_that_attends_to_words(model: Any, picture: Any) -> None:
    found = unsample.invert(model, picture, num_inference_steps=2)
    with pytest.raises(BadOption, match="compares the prompt of the edit with the source.*source_prompt"):
        unsample.edit(model, found, BLUE, editor="p2p")
    flow = unsample.load("scenes-flow")
    found = unsample.invert(flow, picture, SOURCE, num_inference_steps=2)
    with pytest.raises(Incompatible, match="scenes-flow mixes text and picture in one attention"):
        unsample.edit(flow, found, BLUE, editor="p2p")


def test_settings_are_written_as_text_and_checked() -> None:
    text = [("reweight", "red=3, blue = -0.5"), ("blend", "red circle"), ("cross_steps", ".5"), ("word_steps", "none")]
    read = parse_settings("p2p", text)
    assert read == {
        "reweight": {"red": 3, "blue": -0.5},
        "blend": "red circle",
        "cross_steps": 0.5,
        "word_steps": None,
    }
    assert dict(p2p(**read).settings)["reweight"] == {"red": 3, "blue": -0.5}
    for wrong in ("red", "red=", "=3", "red=x", ""):
        with pytest.raises(BadOption, match="no word with a number"):
            parse_settings("p2p", [("reweight", wrong)])
    for name, value in (
        ("reweight", {"red": float("nan")}),
        ("reweight", {}),
        ("reweight", {3: 1}),
        ("word_steps", {"red": 1.5}),
        ("blend", " "),
        ("blend", 3),
        ("cross_steps", 1.5),
    ):
        with pytest.raises(BadOption, match=f"p2p: {name} must be"):
            p2p(**{name: value})
    with pytest.raises(UnknownName, match="setting of p2p"):
        parse_settings("p2p", [("cross", ".5")])
