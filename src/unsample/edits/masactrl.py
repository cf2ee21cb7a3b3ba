"""MasaCtrl, mutual self-attention: an edit asks its own queries of the keys and values of its source.

`softmax(q_edit k_source^T / sqrt(d)) v_source` in the self-attention of later layers, from a step on, in both halves of
guidance (Cao et al., 2023, arXiv:2304.08465): the edit's layout, drawn by its prompt in the first steps, is filled with
what the source looks like. With masks, where the words of the thing are looked at in the edit, only such places of the
source are asked, and elsewhere only the others: thing from thing, background from background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.edits.attention import AttentionSteering, Heads, Layer, MapMean, layers_of, sides
from unsample.edits.base import Asked, Branches, Editor
from unsample.edits.layers import from_layer, from_step
from unsample.edits.words import in_either, pieces
from unsample.errors import BadOption
from unsample.methods.settings import Setting, configured

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model

NAME = "editor masactrl"
START_STEP, START_LAYER = 4, 10  # of 50 steps and of the sixteen layers of Stable Diffusion 1.x
Tokens = tuple[tuple[int, ...], tuple[int, ...]]  # of the thing, in a source's prompt and in its edit's


@configured
def masactrl(
    start_step: Annotated[
        int | None,
        Setting("the first step, counted from 0, that takes from the source; None: 4 in 50, the paper's share."),
    ] = None,
    start_layer: Annotated[
        int | None,
        Setting(
            "the first self-attention layer that does, counted from 0 in the order of computation; None: 10 in 16 of "
            "the model's depth, rounded up: the paper's 10 of Stable Diffusion 1.x, 44 of SDXL's 70."
        ),
    ] = None,
    mask_words: Annotated[
        str | None,
        Setting(
            "the thing, in words of both prompts (`cat`) or of one each (`cat dog`): it then takes from the thing "
            "alone, and the background from the background. A thing is better told than what is said of it."
        ),
    ] = None,
    mask_threshold: Annotated[
        float, Setting("from where on a map of these words, brought to [0, 1], counts as the thing.", high=1)
    ] = 0.1,
) -> Editor:
    """Mutual self-attention: layout by the edit's prompt, looks by the source; for changes of pose, place and size.

    The prompt should be that of the source but for what moves. No step (`start_step` of their number or more) or no
    layer (`start_layer` of their number) leaves the prompt swap. Guidance is 7.5 by default.

    The maps of `mask_words` are averaged over heads, layers of at most 16 tokens a side, and the steps so far (the
    authors take the step's own); 79 KB a picture of Stable Diffusion are kept for them while the walk lasts. Where a
    source has no place of one kind, places of that kind in its edit ask all of it. With masks the source's own prompt
    does not give its reconstruction again, since the source itself asks all of its places.

    Reference:
        Cao et al., 2023, arXiv:2304.08465.

    Example:
        >>> import unsample
        >>> unsample.edits.masactrl(start_step=4, start_layer=10).settings["mask_threshold"]
        0.1
    """

    def steer(branches: Branches) -> Mutual:
        layers = from_layer(branches.model, start_layer, START_LAYER, "masactrl")
        first = from_step(start_step, START_STEP, branches.stop)
        if mask_words is None or not layers or first >= branches.stop:
            return Mutual(branches, layers, first)
        return Masked(branches, layers, first, mask_words, mask_threshold)

    def check(model: Model, pairs: Sequence[tuple[str, str]]) -> None:
        from_layer(model, start_layer, START_LAYER, "masactrl")
        if mask_words is not None:
            layers_of(model, NAME, cross=True)
            _tokens(model, mask_words, pairs)

    return Editor(steer=steer, check=check, needs_source_prompt=mask_words is not None, edit_guidance_scale=7.5)


class Mutual(AttentionSteering):
    """Edits read keys and values of their sources, in some layers and from a step on."""

    def __init__(self, branches: Branches, layers: Sequence[Layer], first: int) -> None:
        super().__init__(branches, layers)
        self.first = first
        if not layers or first >= branches.stop:
            self.layers, self.halves = (), ()

    def reads(self, layer: Layer) -> bool:
        """See `Control`."""
        return self.step >= self.first

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """See `Control`."""
        return _of_source(heads, rows).attended()

    def notes(self) -> dict[str, Any]:
        """See `Steering`."""
        return {"from_step": self.first, "layers": [layer.name for layer in self.layers if not layer.cross]}


class Masked(Mutual):
    """The same, the thing and its background apart.

    Args:
        branches, layers, first: as of `Mutual`, self-attention alone.
        words: the thing.
        threshold: of its maps.
    """

    def __init__(self, branches: Branches, layers: Sequence[Layer], first: int, words: str, threshold: float) -> None:
        super().__init__(branches, [*layers, *layers_of(branches.model, NAME, cross=True)], first)
        embeds = branches.predict.condition.prompt_embeds
        length = None if embeds is None else embeds.shape[1]
        self.words, self.threshold = words, threshold
        self.tokens = _tokens(branches.model, words, branches.pairs(), length)
        self.seen = MapMean(branches.noise.shape)  # of the edits, and below them of the source of each

    def reads(self, layer: Layer) -> bool:
        """See `Control`."""
        return layer.cross or super().reads(layer)

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """See `Control`."""
        if heads.layer.cross:
            self._see(heads, rows)
            return None
        if self.seen.total is None:
            return super().attend(heads, rows)
        return self._apart(_of_source(heads, rows), rows)

    def _see(self, heads: Heads, rows: Asked) -> None:
        import torch

        own = torch.arange(len(rows.partner), device=rows.partner.device)
        at = (rows.edits & rows.conditional & (rows.partner != own)).nonzero().flatten()
        if len(at) and self.seen.wants(heads):
            edits, count = rows.pictures[at], len(self.tokens)
            maps = heads.rows(torch.cat([at, rows.partner[at]])).maps()
            self.seen.add(maps, torch.cat([edits, edits + count]), 2 * count)

    def _apart(self, heads: Heads, rows: Asked) -> Tensor:
        """Each place of an edit asks those places of its source that are of its kind."""
        import torch

        own, theirs = (where[rows.pictures.clamp(max=len(self.tokens) - 1)] for where in self._where(heads))
        own, theirs = (where | ~rows.edits[:, None] for where in (own, theirs))  # a source asks all of itself
        thing, rest = (_among(heads, keys).attended() for keys in (theirs, ~theirs))
        return torch.where(own[:, None, :, None], thing, rest)

    def _where(self, heads: Heads) -> tuple[Tensor, Tensor]:
        """Where the thing is in the edits and in the source of each, at a layer's size: (T, tokens) each."""
        from torch.nn.functional import interpolate

        size = sides(heads.q.shape[2], *self.branches.noise.shape[-2:])
        return tuple(  # type: ignore[return-value]
            (interpolate(maps[:, None], size=size, mode="nearest") >= self.threshold).flatten(1)
            for maps in self._thing()
        )

    def _thing(self) -> tuple[Tensor, Tensor]:
        """The maps of the thing, brought to [0, 1], in the edits and in the source of each: (T, h, w) each."""
        import torch

        means, count = self.seen.mean(), len(self.tokens)
        named = [(n, target) for n, (_, target) in enumerate(self.tokens)]
        named += [(n + count, source) for n, (source, _) in enumerate(self.tokens)]
        maps = torch.stack([means[n, list(tokens)].mean(0) for n, tokens in named])
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        found = (maps - low) / (high - low).clamp(min=1e-12)
        return found[:count], found[count:]

    def maps(self) -> Sequence[Mapping[str, Tensor]]:
        """See `Steering`: of the thing, in the edits."""
        return () if self.seen.total is None else [{self.words: found} for found in self._thing()[0].cpu()]


def _of_source(heads: Heads, rows: Asked) -> Heads:
    """With the keys and values of its source for an edit."""
    mask = None if heads.mask is None else heads.mask[rows.partner]
    return replace(heads, k=heads.k[rows.partner], v=heads.v[rows.partner], mask=mask)


def _among(heads: Heads, keys: Tensor) -> Heads:
    """Attending to the keys (R, keys) alone; where a row names none, to all."""
    keys = keys | ~keys.any(1, keepdim=True)
    bias = heads.q.new_zeros(keys.shape).masked_fill(~keys, -float("inf"))[:, None, None]
    return replace(heads, mask=bias if heads.mask is None else heads.mask + bias)


def _tokens(model: Model, words: str, pairs: Sequence[tuple[str, str]], length: int | None = None) -> list[Tokens]:
    """Of each edit, the tokens of the thing in its source's prompt and in its own.

    Raises:
        UnknownName: a word that is in neither. BadOption: a prompt that names no thing.
    """
    found = []
    for prompts in pairs:
        source, target = (pieces(model, prompt, length, NAME) for prompt in prompts)
        tokens = in_either(words, source, target, "mask_words")
        for which, own, prompt in zip(("source's", "edit's"), tokens, prompts, strict=True):
            if not own:
                raise BadOption(
                    f"{NAME}: mask_words={words!r} names nothing in the {which} prompt {prompt!r}; name the thing in "
                    "each (cat dog), or leave mask_words out"
                )
        found.append(tokens)
    return found
