"""Prompt-to-prompt: an edit looks at its words where its source looked at theirs. Hertz et al., arXiv:2208.01626.

In a cross-attention layer, with the maps M of the source and M* of the edit (tokens of the picture times tokens of the
text), the edit's values are weighted with

    M*[:, t] <- c_t sum_s M[:, s] A[s, t]   where token t of the edit stands for tokens of the source,
    M*[:, t] <- c_t M*[:, t]                where it is new, and after the share `cross_steps` of the steps,

A being `words.alignment` and c_t the factor of `reweight`, 1 of other words. In the self-attention layers of few
tokens the edit has the source's queries and keys, and so its maps, for the share `self_steps` of the steps. Only the
half under the prompt is edited. Where the authors' code leaves the tokens behind a word of another length in their old
places, here they move along, as the alignment of the paper says; and their `reweight` ends with `cross_steps`, the
paper's equation does not.

Memory: a map is made for the length of one cross-attention layer and given up. For Stable Diffusion at 512 x 512 in
float32 the largest is 8 heads x 4096 tokens x 77 x 4 bytes = 10 MB a row; four of them stand at once (the edit's, its
source's, that aligned, and what is taken of both), so 40 MB for an edit. Self-attention maps are never made. Kept over
the steps is one mean of 16 x 16 x 77 x 4 bytes = 79 KB of an edit, and of its source, from which the figure and `blend`
read their words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unsample.edits.attention import AttentionSteering, Heads, Layer, MapMean, layers_of
from unsample.edits.base import Asked, Branches, Editor
from unsample.edits.beside import Beside
from unsample.edits.words import Kind, Pieces, alignment, in_either, kind_of, pieces, words_of
from unsample.errors import BadOption
from unsample.methods.settings import Setting, configured
from unsample.models.guidance import HALVES

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.numbers.walk import State

NAME = "editor p2p"


@dataclass(frozen=True)
class Asks:
    """The settings of `p2p`, which says what they are."""

    kind: Literal["auto", "replace", "refine"]
    cross_steps: float
    self_steps: float
    self_size: int
    word_steps: Mapping[str, float]
    reweight: Mapping[str, float]
    blend: str | None
    blend_threshold: float
    blend_after: float


@dataclass(frozen=True)
class Plan:
    """What is done with the tokens of one edit, L of them."""

    kind: Kind
    source: Pieces
    target: Pieces
    matrix: Tensor  # (L, L), (L,): of `words.alignment`
    own: Tensor
    factor: Tensor  # (L,)
    share: Tensor  # (L,), of the steps in which a token has its source's map
    blend: tuple[tuple[int, ...], tuple[int, ...]]  # tokens of the source and of the edit


@configured
def p2p(
    kind: Annotated[
        Literal["auto", "replace", "refine"],
        Setting(
            "`replace`: each word of the edit stands for that of the source in its place; `refine`: words that both "
            "prompts have stand for each other, the rest is new; `auto`: `replace` where both have as many words and "
            "none has moved."
        ),
    ] = "auto",
    cross_steps: Annotated[
        float, Setting("the share of the steps, from the noisiest, in which words have the source's maps.", high=1)
    ] = 0.8,
    self_steps: Annotated[
        float, Setting("the share of the steps in which self-attention has the source's maps.", high=1)
    ] = 0.4,
    self_size: Annotated[
        int,
        Setting(
            "of which layers: those whose shorter side has at most as many tokens (16 of the 64 latents of Stable "
            "Diffusion at 512 pixels are those of a quarter); where none is so small (SDXL, transformers), the "
            "smallest.",
            low=1,
        ),
    ] = 16,
    word_steps: Annotated[
        dict[str, float] | None, Setting("shares in place of `cross_steps`, of words of the edit: blue=0.3.", high=1)
    ] = None,
    reweight: Annotated[
        dict[str, float] | None,
        Setting("by which factor a word of the edit is stressed (over 1) or held back: red=3.", low=-math.inf),
    ] = None,
    blend: Annotated[
        str | None,
        Setting(
            "words of either prompt (the thing that changes: `cat dog`); outside of where their maps lie, in the "
            "source's branch or in the edit's, the edit is its source. `auto`: the words that changed."
        ),
    ] = None,
    blend_threshold: Annotated[float, Setting("from which share of its maximum on a map counts.", high=1)] = 0.3,
    blend_after: Annotated[float, Setting("the share of the steps before the first blending.", high=1)] = 0.2,
) -> Editor:
    """The edit has the attention maps of its source: its layout is kept, its words change what is there.

    Moves and changes of size fade, since the maps say where things are.

    Reference: Hertz et al., "Prompt-to-Prompt Image Editing with Cross Attention Control", arXiv:2208.01626.

    Example:
        >>> import unsample
        >>> unsample.edits.p2p(reweight={"red": 3}).settings["cross_steps"]
        0.8
    """
    asks = Asks(
        kind,
        cross_steps,
        self_steps,
        self_size,
        word_steps or {},
        reweight or {},
        blend,
        blend_threshold,
        blend_after,
    )

    def check(model: Model, pairs: Sequence[tuple[str, str]]) -> None:
        layers_of(model, NAME, cross=True)
        for own, target in pairs:
            plan(asks, model, own, target)

    return Editor(
        steer=lambda branches: P2P(branches, asks),
        check=check,
        needs_source_prompt=True,
        makes_mask=blend is not None,
        edit_guidance_scale=7.5,
    )


def plan(asks: Asks, model: Model, source: str, target: str, length: int | None = None) -> Plan:
    """What is done for one edit.

    Args:
        asks: the settings.
        model: whose tokens they are.
        source: its prompt.
        target: the edit's.
        length: of the model's condition; None is the tokenizer's own.

    Raises:
        BadOption: no prompt, a word that is in none, or prompts that are not aligned so.
    """
    import torch

    if not words_of(target):
        raise BadOption(f"{NAME} compares the words of two prompts, and the edit has none; give its prompt in words")
    a, b = (pieces(model, prompt, length, NAME) for prompt in (source, target))
    kind = kind_of(source, target) if asks.kind == "auto" else asks.kind
    matrix, own = alignment(a, b, kind)
    factor, share = torch.ones(b.length), torch.full((b.length,), float(asks.cross_steps))
    for what, values, given in (("reweight", factor, asks.reweight), ("word_steps", share, asks.word_steps)):
        for word, number in given.items():
            values[list(b.tokens(word, f"word of {what} in the edit's prompt {target!r}"))] = float(number)
    return Plan(kind, a, b, matrix, own, factor, share, _blended(asks.blend, a, b))


def _blended(blend: str | None, source: Pieces, target: Pieces) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens of the blend words in both prompts."""
    if blend is None:
        return (), ()
    if blend == "auto":
        return source.new(target), target.new(source)
    return in_either(blend, source, target, "blend")


class P2P(AttentionSteering):
    """One edit by prompt-to-prompt under way."""

    halves = HALVES[1:]

    def __init__(self, branches: Branches, asks: Asks) -> None:
        import torch

        super().__init__(branches, layers_of(branches.model, NAME))
        self.asks, self.beside = asks, Beside(branches.source_of)
        embeds = branches.predict.condition.prompt_embeds
        length = None if embeds is None else embeds.shape[1]
        self.plans = [plan(asks, branches.model, own, target, length) for own, target in branches.pairs()]
        device, shape = branches.noise.device, branches.noise.shape
        self.matrix, self.factor, share, own = (
            torch.stack([getattr(p, name) for p in self.plans]).to(device)
            for name in ("matrix", "factor", "share", "own")
        )
        self.until = torch.where(
            own > 0, 0, (share * branches.stop + 1e-4).int()
        )  # (T, L): steps with the source's map
        self.same = (self.matrix == torch.eye(self.matrix.shape[-1], device=device)).flatten(1).all(1)
        self.self_until = int(asks.self_steps * branches.stop + 1e-4)
        self.most = max(asks.self_size, min(layer.side(shape) for layer in self.layers))
        self.seen = MapMean(shape)  # of the edits, and below them of the source of each
        self.found: Tensor | None = None

    def reads(self, layer: Layer) -> bool:
        """See `Control`."""
        return layer.cross or (self.step < self.self_until and layer.side(self.branches.noise.shape) <= self.most)

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """See `Control`."""
        import torch

        own = torch.arange(len(rows.partner), device=rows.partner.device)
        at = (rows.edits & rows.conditional & (rows.partner != own)).nonzero().flatten()
        if not len(at):
            return None
        theirs = rows.partner[at]
        if heads.layer.cross:
            return self._cross(heads, at, theirs, rows.pictures[at])
        return _of_source(heads, at, theirs).attended()

    def _cross(self, heads: Heads, at: Tensor, theirs: Tensor, edits: Tensor) -> Tensor | None:
        """What a cross-attention layer answers, with the rows `at` of `edits` looking as the rows `theirs` do."""
        import torch

        if heads.k.shape[2] != self.matrix.shape[-1]:
            raise BadOption(
                f"{NAME}: the text that layer {heads.layer.name} reads has {heads.k.shape[2]} tokens, and the prompt "
                f"{self.matrix.shape[-1]}; which of them is which word is not known: use editor none"
            )
        taken, factor = self.step < self.until[edits], self.factor[edits]
        plain, seen = bool((factor == 1).all()), self.seen.wants(heads)
        if plain and taken.all() and self.same[edits].all():
            if seen:
                source = heads.rows(theirs).maps()
                self._saw(source, source, edits)
            return _of_source(heads, at, theirs).attended()
        mixing = not plain or bool(taken.any())
        if not mixing and not seen:
            return None
        source, own = heads.rows(theirs).maps().float(), heads.rows(at).maps().float()
        if mixing:
            own = torch.where(taken[:, None, None], source @ self.matrix[edits][:, None], own)
            own = own * factor[:, None, None]
        if seen:
            self._saw(own, source, edits)
        if not mixing:
            return None
        answer = heads.attended()
        return answer.index_put((at,), own.to(heads.v.dtype) @ heads.v[at])

    def _saw(self, edited: Tensor, source: Tensor, edits: Tensor) -> None:
        import torch

        count = len(self.plans)
        self.seen.add(torch.cat([edited, source]), torch.cat([edits, edits + count]), 2 * count)

    def after(self, k: int, j: int, x: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Steering`."""
        if not any(p.blend[0] or p.blend[1] for p in self.plans):
            return x, state
        if k + 1 <= int(self.asks.blend_after * self.branches.stop + 1e-4):
            return x, state
        self.found = self._where(x.shape)
        return replace(self.beside, mask=self.found).blended_rows(x, state)

    def _where(self, shape: Sequence[int]) -> Tensor:
        """Where the blend words lie, in the source's branch or in the edit's: (T, 1, H, W), 0 or 1."""
        import torch
        from torch.nn.functional import interpolate, max_pool2d

        means, masks = self.seen.mean(), []
        for n, p in enumerate(self.plans):
            rows = ((means[n + len(self.plans)], p.blend[0]), (means[n], p.blend[1]))
            each = [maps[list(tokens)].sum(0) for maps, tokens in rows if tokens]
            pooled = [max_pool2d(m[None, None], 3, 1, 1) for m in each]
            large = [interpolate(m, size=tuple(shape[-2:]), mode="nearest") for m in pooled]
            found = [m > self.asks.blend_threshold * m.max() for m in large]
            if not found:  # "auto", of a prompt in which nothing changed: free
                found = [means.new_ones(1, 1, *shape[-2:]).bool()]
            masks.append(torch.stack(found).any(0))
        return torch.cat(masks).float()

    def mask(self) -> Tensor | None:
        """See `Steering`."""
        return self.found

    def maps(self) -> Sequence[Mapping[str, Tensor]]:
        """See `Steering`: of the words that are new, in the edit's branch, and of those that went, in the source's."""
        if self.seen.total is None:
            return ()
        means, told = self.seen.mean().cpu(), []
        for n, p in enumerate(self.plans):
            gone, new = p.source.new_words(p.target), p.target.new_words(p.source)
            words = {w: means[n + len(self.plans), list(t)].sum(0) for w, t in gone.items() if t}
            words |= {w: means[n, list(t)].sum(0) for w, t in new.items() if t}
            told.append({word: m / m.max().clamp(min=1e-12) for word, m in words.items()})
        return told

    def notes(self) -> dict[str, Any]:
        """See `Steering`: of each edit its kind, the words that went and those that are new."""
        gone = [list(p.source.new_words(p.target)) for p in self.plans]
        new = [list(p.target.new_words(p.source)) for p in self.plans]
        return {"kind": [p.kind for p in self.plans], "gone": gone, "new": new}


def _of_source(heads: Heads, at: Tensor, theirs: Tensor) -> Heads:
    """The rows `at` with the queries and keys, and so the maps, of the rows `theirs`."""
    q, k = (t.index_put((at,), t[theirs]) for t in (heads.q, heads.k))
    mask = heads.mask if heads.mask is None else heads.mask.index_put((at,), heads.mask[theirs])
    return replace(heads, q=q, k=k, mask=mask)
