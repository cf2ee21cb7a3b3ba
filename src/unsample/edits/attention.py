"""The attention layers of a denoiser, seen and steered for the length of a walk.

Served are U-Nets and transformers of diffusers that are made of `BasicTransformerBlock`s (Stable Diffusion 1.x and 2.x,
SDXL, Kolors, latent diffusion, PixArt, DiT): picture tokens attend to each other in one layer and to the text in
another. Where text and picture share one attention (SD3, FLUX), or where there is none, `layers_of` refuses.

While `attended` lasts, each layer's `forward` is ours, in front of the one that was there: it asks the control first,
and goes on to the layer's own processor, bit for bit, where the control has nothing to say. Processors themselves are
not touched, so LoRA, fused projections, offload hooks and the hash of the model stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from unsample.edits.base import Asked, Branches, Steering
from unsample.errors import Incompatible

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model

PLACES = ("down", "mid", "up", "")  # in the order in which a U-Net computes them; "" of a transformer
PROCESSORS = frozenset(  # of diffusers: those that compute softmax(q k / sqrt(d)) v, and no more
    [
        *("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor"),
        *("FusedAttnProcessor2_0", "AttnProcessorNPU", "XLAFlashAttnProcessor2_0"),
    ]
)


@dataclass(frozen=True, eq=False)
class Layer:
    """An attention layer."""

    name: str  # in the network: "mid_block.attentions.0.transformer_blocks.0.attn1"
    module: Any  # diffusers' `Attention`
    cross: bool  # whether picture tokens attend to the text; else to each other
    place: str  # of PLACES
    index: int  # among the layers of its kind (self, cross), in the order of computation
    count: int  # how many there are of its kind
    level: int = 0  # how often a U-Net halved the state before it; 0 in a transformer

    def side(self, shape: Sequence[int]) -> int:
        """The shorter side, in tokens, for a state of `shape` (..., H, W) in a U-Net; 1 in a transformer."""
        return -(-min(shape[-2:]) // 2**self.level) if self.place else 1


@dataclass(frozen=True)
class Heads:
    """What a layer is about to compute: softmax(q k^T scale + mask) v, of R rows and H heads."""

    layer: Layer
    q: Tensor  # (R, H, tokens, d)
    k: Tensor  # (R, H, keys, d); the keys of a cross layer are the tokens of the text
    v: Tensor  # (R, H, keys, d)
    mask: Tensor | None = None  # (R, H, 1 or tokens, keys), added to the scores

    def rows(self, index: Tensor) -> Heads:
        """Of some rows."""
        return replace(
            self,
            q=self.q[index],
            k=self.k[index],
            v=self.v[index],
            mask=None if self.mask is None else self.mask[index],
        )

    def attended(self) -> Tensor:
        """(R, H, tokens, d), without the map being made (torch's scaled_dot_product_attention)."""
        import torch.nn.functional as F

        return F.scaled_dot_product_attention(self.q, self.k, self.v, self.mask, scale=self.layer.module.scale)

    def maps(self) -> Tensor:
        """The probabilities (R, H, tokens, keys), in the dtype and with the upcasts of diffusers' plain processor."""
        mask = None if self.mask is None else self.mask.flatten(0, 1)
        flat: Tensor = self.layer.module.get_attention_scores(self.q.flatten(0, 1), self.k.flatten(0, 1), mask)
        return flat.unflatten(0, self.q.shape[:2])


class Control(Protocol):
    """Who is asked about each layer of each call of the network."""

    rows: Asked | None  # of the call under way; None: not ours, layers are as they were

    def reads(self, layer: Layer) -> bool:
        """Whether it wants to see a layer in this call."""

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """What the layer answers, (R, H, tokens, d): `heads.attended()` or another; None: its own processor's."""


class AttentionSteering(Steering):
    """An editor's steering that is a `Control` of some layers; subclasses say `reads` and `attend`."""

    rows: Asked | None = None
    step = 0  # the step under way

    def __init__(self, branches: Branches, layers: Sequence[Layer]) -> None:
        self.branches, self.layers = branches, layers

    def attached(self) -> AbstractContextManager[None]:
        """See `Steering`."""
        return attended(self.layers, self)

    def before(self, k: int, i: int, j: int) -> None:
        """See `Steering`."""
        self.step = k

    @contextmanager
    def asked(self, rows: Asked) -> Iterator[None]:
        """See `Steering`."""
        self.rows = rows
        try:
            yield
        finally:
            self.rows = None

    def reads(self, layer: Layer) -> bool:
        """See `Control`."""
        return True

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """See `Control`."""
        raise NotImplementedError


def layers_of(model: Model, asker: str, *, cross: bool | None = None) -> list[Layer]:
    """The attention layers of a model's denoiser, in the order of computation, self and cross in turn.

    Args:
        model: with a denoiser of diffusers (`model.unet`).
        asker: who wants them, for the message: "editor p2p".
        cross: of one kind only; None is both.

    Raises:
        Incompatible: there are none, or one has a processor whose mathematics we do not know.
    """
    network: Any = getattr(model, "unet", None)
    network = getattr(network, "_orig_mod", network)
    if not hasattr(network, "named_modules"):
        raise Incompatible(_none(model, asker, "is no network of diffusers"))
    from diffusers.models.attention import BasicTransformerBlock

    found = []
    for name, block in network.named_modules():
        if isinstance(block, BasicTransformerBlock):
            place = next((p for p in PLACES[:-1] if name.startswith((f"{p}_block.", f"{p}_blocks."))), "")
            pair = ((f"{name}.{own}", getattr(block, own)) for own in ("attn1", "attn2"))
            found += [(PLACES.index(place), n, layer) for n, layer in pair if layer is not None]
    found.sort(key=lambda entry: entry[0])
    kinds = [bool(layer.is_cross_attention) for _, _, layer in found]
    layers = [
        Layer(name, layer, kind, PLACES[place], kinds[:at].count(kind), kinds.count(kind), _level(name, network))
        for at, ((place, name, layer), kind) in enumerate(zip(found, kinds, strict=True))
        if cross in (None, kind)
    ]
    if not layers:
        raise Incompatible(_none(model, asker, _attends(network, cross)))
    for layer in layers:
        _check_processor(layer, model, asker)
    return layers


@contextmanager
def attended(layers: Sequence[Layer], control: Control) -> Iterator[None]:
    """While it lasts, `control` is asked about each of the layers; afterwards they are exactly as they were."""
    replaced: list[tuple[dict[str, Any], Any]] = []
    try:
        for layer in layers:
            own = vars(layer.module)
            replaced.append((own, own.get("forward")))
            own["forward"] = ours = _forward(layer, layer.module.forward, control)
            if replaced[-1][1] is not None:
                ours.__wrapped__ = replaced[-1][1]  # type: ignore[attr-defined]  # whose it is, for the model's hash
        yield
    finally:
        for own, before in reversed(replaced):
            own.pop("forward", None)
            if before is not None:
                own["forward"] = before


def sides(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a layer's picture tokens, of a state (C, height, width) that was halved some times."""
    h, w = height, width
    while h * w > tokens:
        h, w = -(-h // 2), -(-w // 2)
    if h * w != tokens:
        raise Incompatible(f"an attention layer of {tokens} tokens is no halving of a state of {height}x{width}")
    return h, w


def _level(name: str, network: Any) -> int:
    """How often a U-Net halved the state before one of its layers."""
    deepest = len(getattr(network.config, "block_out_channels", (0,))) - 1
    block, _, rest = name.partition(".")
    at = int(rest.partition(".")[0]) if block in ("down_blocks", "up_blocks") else deepest
    return deepest - at if block == "up_blocks" else at


def check_together(rows: Asked, count: int, name: str) -> None:
    """A layer is asked about all rows of a call at once, so that an edit sees its source.

    Raises:
        Incompatible: it was asked about `count` of them.
    """
    if count != len(rows.pictures):
        raise Incompatible(
            f"the network was asked about {len(rows.pictures)} pictures and its layer {name} about {count}: prompts of "
            "unequal length are asked apart, and an edit cannot see its source then; give prompts of as many tokens, "
            "or use editor none"
        )


def _forward(layer: Layer, before: Callable[..., Tensor], control: Control) -> Callable[..., Tensor]:
    """A layer's forward, with the control in front of the one that was there."""

    def forward(
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **more: Any,
    ) -> Tensor:
        rows, answer = control.rows, None
        if rows is not None and control.reads(layer):
            check_together(rows, len(hidden_states), layer.name)
            given, heads = _projected(layer, hidden_states, encoder_hidden_states, attention_mask, more.get("temb"))
            answer = control.attend(heads, rows)
            if answer is not None:
                return _finished(layer, answer, given, hidden_states)
        return before(hidden_states, encoder_hidden_states, attention_mask, **more)

    return forward


def _projected(
    layer: Layer, hidden: Tensor, encoder: Tensor | None, attention_mask: Tensor | None, temb: Tensor | None
) -> tuple[Tensor, Heads]:
    """The tokens (R, tokens, D) that go into a layer, and the queries, keys and values its processor makes."""
    attn = layer.module
    if attn.spatial_norm is not None:
        hidden = attn.spatial_norm(hidden, temb)
    if hidden.ndim == 4:
        hidden = hidden.flatten(2).transpose(1, 2)
    keys = hidden if encoder is None else encoder
    mask = None
    if attention_mask is not None:
        mask = attn.prepare_attention_mask(attention_mask, keys.shape[1], len(keys))
        mask = mask.view(len(keys), attn.heads, -1, mask.shape[-1])
    if attn.group_norm is not None:
        hidden = attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)
    if encoder is None:
        keys = hidden
    elif attn.norm_cross is not None:
        keys = attn.norm_encoder_hidden_states(encoder)
    if not type(attn.processor).__name__.startswith("Fused"):
        q, k, v = attn.to_q(hidden), attn.to_k(keys), attn.to_v(keys)
    elif encoder is None:
        q, k, v = attn.to_qkv(hidden).chunk(3, -1)
    else:
        q, (k, v) = attn.to_q(hidden), attn.to_kv(keys).chunk(2, -1)
    q, k, v = (t.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for t in (q, k, v))
    q = q if attn.norm_q is None else attn.norm_q(q)
    k = k if attn.norm_k is None else attn.norm_k(k)
    return hidden, Heads(layer, q, k, v, mask)


def _finished(layer: Layer, answer: Tensor, tokens: Tensor, hidden: Tensor) -> Tensor:
    """What a layer gives of (R, H, tokens, d)."""
    attn = layer.module
    out = answer.transpose(1, 2).flatten(2).to(tokens.dtype)
    out = attn.to_out[1](attn.to_out[0](out))
    if hidden.ndim == 4:
        out = out.transpose(-1, -2).reshape(hidden.shape)
    if attn.residual_connection:
        out = out + hidden
    return out / attn.rescale_output_factor  # type: ignore[no-any-return]


def _check_processor(layer: Layer, model: Model, asker: str) -> None:
    """Refuse a layer whose processor does more than attention."""
    kind = type(layer.module.processor)
    if kind.__name__ not in PROCESSORS or not kind.__module__.startswith("diffusers."):
        raise Incompatible(
            f"{asker} steers attention, and layer {layer.name} of {model.id} has a processor of its own "
            f"({kind.__name__}), which would be left out; put diffusers' own back "
            "(model.unet.set_default_attn_processor()), or use editor none"
        )


def _attends(network: Any, cross: bool | None) -> str:
    """What a network without such layers has in their place."""
    layers = [m for m in network.modules() if hasattr(m, "processor") or hasattr(m, "added_kv_proj_dim")]
    kinds = " and ".join(sorted({type(m).__name__ for m in layers}))
    mixed = any(getattr(m, "added_kv_proj_dim", None) is not None for m in layers)
    kind = type(network).__name__
    if mixed:
        return f"mixes text and picture in one attention ({kinds} of {kind})"
    if kinds:
        which = {True: "cross-attention", False: "self-attention", None: "attention"}[cross]
        return f"has no {which} in transformer blocks of that kind ({kind} attends by {kinds})"
    return f"has no attention layers ({kind})"


def _none(model: Model, asker: str, why: str) -> str:
    return (
        f"{asker} reads attention layers, where picture tokens attend to each other or to the text alone, and "
        f"{model.id} {why}; use editor none, or a model such as Stable Diffusion 1.x, 2.x, SDXL or PixArt"
    )


class MapMean:
    """Cross-attention maps as they come, averaged over heads, layers and calls; a `Control` that changes nothing.

    Read are the layers of the largest size whose shorter side has at most `size` tokens; where there is none (SDXL),
    those of the smallest. Kept is one float32 (R, keys, tokens), 79 KB a row of Stable Diffusion's 16x16 and 77 tokens.

    Args:
        shape: (..., height, width) of the state.
        size: see above.
    """

    rows: Asked | None = None

    def __init__(self, shape: Sequence[int], size: int = 16) -> None:
        self.state, self.size = (shape[-2], shape[-1]), size
        self.total: Tensor | None = None
        self.counts: Tensor | None = None  # (R, 1, 1)

    def wants(self, heads: Heads) -> bool:
        """Whether the maps of a layer belong to the mean."""
        at = heads.q.shape[2]
        return heads.layer.cross and (self.total is None or self._rank(at) >= self._rank(self.total.shape[-1]))

    def add(self, maps: Tensor, at: Tensor | None = None, of: int | None = None) -> None:
        """The probabilities (R, H, tokens, keys) of a layer that is wanted; or those of the rows `at` among `of`."""
        mean = maps.detach().float().mean(1).transpose(1, 2)
        rows: Any = slice(None) if at is None else at
        total, counts = self.total, self.counts
        if total is None or counts is None or total.shape[-1] != mean.shape[-1]:
            total, counts = mean.new_zeros(of or len(mean), *mean.shape[1:]), mean.new_zeros(of or len(mean), 1, 1)
        total[rows] += mean
        counts[rows] += 1
        self.total, self.counts = total, counts

    def mean(self) -> Tensor:
        """(R, keys, h, w); at each place, the keys of a row sum to 1."""
        if self.total is None or self.counts is None:
            raise Incompatible("no cross-attention layer was asked, so there are no maps of words")
        return (self.total / self.counts.clamp(min=1)).unflatten(-1, sides(self.total.shape[-1], *self.state))

    def reads(self, layer: Layer) -> bool:
        """See `Control`."""
        return layer.cross

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """See `Control`."""
        if self.wants(heads):
            self.add(heads.maps())
        return None

    def _rank(self, tokens: int) -> tuple[bool, int]:
        """The higher, the better a size is."""
        side = min(sides(tokens, *self.state))
        return side <= self.size, side if side <= self.size else -side


@contextmanager
def recording(layers: Sequence[Layer], shape: Sequence[int], size: int = 16) -> Iterator[MapMean]:
    """The mean maps of the calls of the network that are made meanwhile, each about x of `shape` (R, C, H, W).

    Example: `with recording(layers, x.shape) as maps: model.network(x, t, condition)`, and then `maps.mean()`.
    """
    import torch

    maps, places = MapMean(shape, size), torch.arange(shape[0])
    maps.rows = Asked(places, places >= 0, places < 0, places, 0.0)
    with attended(layers, maps):
        yield maps
