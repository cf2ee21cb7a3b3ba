"""The attention layers of a network: found, seen, steered, and afterwards exactly as they were."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import unsample
from tests.zoo.table import ZOO
from unsample.edits.attention import Heads, Layer, attended, layers_of, sides
from unsample.edits.base import Asked
from unsample.errors import Incompatible
from unsample.models.base import Condition


class Seer:
    """A control that lets every layer answer by `answer`, and remembers what it saw."""

    def __init__(self, answer: Any = lambda heads: None, count: int = 2) -> None:
        same = torch.arange(count)
        self.rows: Asked | None = Asked(same, same >= 0, same < 1, same, 500.0)
        self.answer, self.seen = answer, []

    def reads(self, layer: Layer) -> bool:
        return True

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        self.seen.append(heads)
        return self.answer(heads)


def asked(model: Any, dtype: torch.dtype = torch.float32, count: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(count, *model.sample_shape, generator=g)
    embeds = model.embed(["a large red circle at the center on a white background", "a small blue square"])
    with torch.no_grad():
        return model.network(x, 500.0, Condition(embeds.prompt_embeds[:count]))


@pytest.fixture
def model() -> Any:
    return unsample.load("scenes-sd")


def test_layers_come_in_the_order_of_computation_with_their_place(model: Any) -> None:
    order: list[str] = []
    layers = layers_of(model, "a test")
    hooks = [at.module.register_forward_hook(lambda *_, n=at.name: order.append(n)) for at in layers]
    asked(model)
    for hook in hooks:
        hook.remove()
    assert [at.name for at in layers] == order
    cross = layers_of(model, "a test", cross=True)
    assert [(at.index, at.count) for at in cross] == [(k, len(cross)) for k in range(len(cross))]
    assert all(at.name.endswith("attn2") and at.cross for at in cross)
    assert [at.place for at in cross] == sorted((at.place for at in cross), key=["down", "mid", "up"].index)


def test_where_nothing_is_done_the_answer_is_the_same_to_the_bit(model: Any) -> None:
    plain, layers = asked(model), layers_of(model, "a test")
    with attended(layers, Seer(lambda heads: None)):
        assert torch.equal(asked(model), plain)
    with attended(layers, Seer(Heads.attended)):
        assert torch.equal(asked(model), plain)
    idle = Seer(lambda heads: heads.q * 0)
    idle.rows = None  # between calls
    with attended(layers, idle):
        assert torch.equal(asked(model), plain)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_maps_times_values_are_what_the_layer_answers(dtype: str, fused: bool) -> None:
    model = unsample.load("scenes-sd", dtype=dtype)
    if fused:
        model.unet.fuse_qkv_projections()
    plain, seer = asked(model), Seer(lambda heads: heads.maps() @ heads.v)
    with attended(layers_of(model, "a test"), seer):
        found = asked(model)
    tolerance = 1e-5 if dtype == "float32" else 0.1  # bfloat16 holds 8 bits of a softmax, and outputs come to 3
    torch.testing.assert_close(found, plain, rtol=0, atol=tolerance)
    assert not torch.equal(found, plain)
    for heads in seer.seen:
        torch.testing.assert_close(
            heads.maps().float().sum(-1),
            torch.ones(heads.q.shape[:3]),
            rtol=0,
            atol=1e-5 if dtype == "float32" else 1e-2,
        )


def test_a_mask_of_the_text_is_honoured() -> None:
    model = unsample.load(ZOO["pixart_sigma"].built())
    model = model.at(model.sample_shape, 4)
    g = torch.Generator().manual_seed(3)
    x, condition = torch.randn(2, *model.sample_shape, generator=g), model.embed(["a cat", "a cat on a mat"])
    seer = Seer(lambda heads: heads.maps() @ heads.v)
    with torch.no_grad():
        plain = model.network(x, 500.0, condition)
        with attended(layers_of(model, "a test", cross=True), seer):
            found = model.network(x, 500.0, condition)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)
    masked = [heads.maps()[0, 0, 0] for heads in seer.seen if heads.mask is not None]
    assert masked
    assert all((probabilities == 0).any() for probabilities in masked)


@pytest.mark.parametrize("error", [None, Incompatible, KeyboardInterrupt])
def test_afterwards_each_layer_is_exactly_as_it_was(model: Any, error: type[BaseException] | None) -> None:
    layers = layers_of(model, "a test")
    first = layers[0].module
    own = first.forward

    def stranger(*args: Any, **more: Any) -> Any:
        return own(*args, **more)

    first.forward = stranger
    before = [(dict(vars(m)), getattr(m, "processor", None)) for m in model.unet.modules()]
    weights = model.weights_sha256()

    def answer(heads: Heads) -> None:
        assert model.weights_sha256() == weights
        if error is not None:
            raise error

    with pytest.raises(error) if error else nullcontext(), attended(layers, Seer(answer)):
        asked(model)
    after = [(dict(vars(m)), getattr(m, "processor", None)) for m in model.unet.modules()]
    assert before == after


def test_a_network_without_such_layers_is_refused_by_name() -> None:
    for name in ("scenes-ddpm", "scenes-mixture"):
        with pytest.raises(Incompatible, match=f"editor p2p reads attention layers.*{name}.*use editor none"):
            layers_of(unsample.load(name), "editor p2p")
    for family in ("if", "flux"):
        with pytest.raises(Incompatible, match="mixes text and picture in one attention"):
            layers_of(unsample.load(ZOO[family].built()), "editor p2p")
    dit = unsample.load(ZOO["dit"].built())
    assert layers_of(dit, "editor masactrl", cross=False)
    with pytest.raises(Incompatible, match="no cross-attention"):
        layers_of(dit, "editor p2p", cross=True)


def test_a_processor_of_its_own_is_refused_and_not_left_out(model: Any) -> None:
    class Mine:
        def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
            return hidden_states

    layers_of(model, "editor p2p")[3].module.set_processor(Mine())
    with pytest.raises(Incompatible, match=r"attn2 of scenes-sd has a processor of its own \(Mine\)"):
        layers_of(model, "editor p2p")


def test_a_call_about_other_pictures_than_were_said_is_refused(model: Any) -> None:
    with attended(layers_of(model, "a test"), Seer(count=3)), pytest.raises(Incompatible, match="unequal length"):
        asked(model)


def test_sides_follow_the_halvings_of_the_state() -> None:
    assert [sides(4096, 64, 64), sides(48, 64, 48), sides(15, 9, 17)] == [(64, 64), (8, 6), (3, 5)]
    with pytest.raises(Incompatible, match="no halving"):
        sides(17, 64, 64)
