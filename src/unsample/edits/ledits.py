"""LEDITS++: semantic guidance with implicit masks, towards several phrases at once or away from them.

With e_0 the source's own prediction, u the one under the negative prompt and c_k those under the phrases,
`eps = e_0 + sum_k s w_k M_k (c_k - u)` (Brack et al., 2024, arXiv:2311.16711): s is the guidance of the edit, w_k a
phrase's sign and weight, and M_k the cells that it may change (`grounding`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from unsample.edits.attention import AttentionSteering, Heads, Layer, layers_of, sides
from unsample.edits.base import Asked, Branches, Editor
from unsample.edits.branches import BranchPredict
from unsample.edits.grounding import Grounding, Masks
from unsample.edits.words import Pieces, pieces, words_of
from unsample.errors import BadOption, Incompatible
from unsample.methods.base import Method
from unsample.methods.settings import Setting, configured
from unsample.models.base import Condition, Model
from unsample.numbers.prediction import Prediction

if TYPE_CHECKING:
    from torch import Tensor

NAME = "editor ledits"


@dataclass(frozen=True)
class Concept:
    """A phrase, and what is made of it."""

    phrase: str  # what is embedded
    weight: float
    tokens: tuple[int, ...]  # the positions in it whose attention makes its mask
    shown: str  # what they spell


@configured
def ledits(
    edits: Annotated[
        dict[str, float] | None,
        Setting(
            "phrases and their weights, below 0 away from them: {'glasses': 1, 'beard': -1}, or as text `glasses, "
            "-beard`; None: towards the prompt of the edit and away from the source's, and the words in which they "
            "differ make their masks.",
            low=-math.inf,
            unit=1,
        ),
    ] = None,
    threshold: Annotated[
        float, Setting("the quantile from which on a cell belongs to a mask; 0 is every cell.", high=1)
    ] = 0.9,
    masks: Annotated[
        Masks,
        Setting(
            "which make M: `both`, or one of cross-`attention` (M1) and `noise` (M2), or `none`, where all may change."
        ),
    ] = "both",
    attention_above: Annotated[
        float, Setting("with `both`, timesteps above it take M1 alone, as the authors' code does.")
    ] = 800,
    warmup_steps: Annotated[int, Setting("steps, the noisiest first, that are the source's own.")] = 0,
) -> Editor:
    """LEDITS++: every phrase adds its own guidance, where its own mask lets it, to the source's playback.

    The prompt of an edit is led towards, and the source's away from, so that the source's own prompt changes nothing;
    the paper has phrases alone, and signs (`edits`), and so has a source without a prompt.
    `guidance_scale` is s, one for all phrases. At 0, or with no phrase in it yet (`warmup_steps`), an edit is its
    source's reconstruction: the record, the prompt and the guidance that play are those of the inversion. The paper
    inverts by `edit_friendly` without a prompt; where the source has one, the authors' code drops it for the edit, so
    that its reconstruction is another picture than the edit at s = 0, and here it stays. Other methods serve, where
    their sampler asks for a prediction as it is.

    A step costs an edit one pass for u and one for each phrase, beside the source's playback of its own and of the
    source. The masks of a picture are shown as all cells that any step let change; attention is taken from the coarsest
    layers of the halves down and up, 16x16 of Stable Diffusion 1.x at 512 pixels.

    Raises:
        Incompatible: when it is used: a model without text, or without an unconditional half; with masks of attention,
            one without cross-attention that we know. BadOption: `edits` and the prompt of an edit together, or neither.

    Reference:
        Brack, Friedrich, Kornmeier, Tsaban, Schramowski, Kersting and Passos, 2024, arXiv:2311.16711. Their second
        order solver is not here; masks and defaults are those of diffusers' pipelines, which are by the authors.

    Example:
        >>> import unsample
        >>> unsample.edits.ledits({"glasses": 1, "beard": -1}).needs_prompt
        False
    """
    attends = masks in ("both", "attention")

    def check(model: Model, pairs: Sequence[tuple[str, str]]) -> None:
        if not model.takes_prompt:
            raise Incompatible(f"{NAME} edits by phrases, and {model.id} takes no text")
        if model.guidance != "cfg":
            raise Incompatible(
                f"{NAME} guides away from the unconditional prediction, and {model.id} has none (guidance is "
                f"{model.guidance}); use editor none"
            )
        if attends:
            _layers(model)
        for source, target in pairs:
            if edits is not None and target != source:
                raise BadOption(
                    f"ledits: its setting edits ({', '.join(edits)}) and the prompt {target!r} both say what is "
                    "edited; leave one of them out"
                )
            concepts_of(model, edits, source, target, attends)

    def steer(branches: Branches) -> Semantic:
        concepts = _as_many([concepts_of(branches.model, edits, *pair, attends) for pair in branches.pairs()])
        return Semantic(branches, concepts, Grounding(masks, threshold, attention_above), warmup_steps)

    return Editor(
        steer=steer,
        check=check,
        refuses=_refuses,
        edit_guidance_scale=5.0,
        needs_unconditional=True,
        makes_mask=masks != "none",
        needs_prompt=edits is None,
        holds_source=edits is None,
    )


def _refuses(method: Method) -> str | None:
    halves = method.name == "proximal"
    return (
        "its sampler takes the two halves of a guided prediction apart, and the edit is no part of it"
        if halves
        else None
    )


def _layers(model: Model) -> list[Layer]:
    """The cross-attention layers that masks are made of."""
    try:
        layers = layers_of(model, NAME, cross=True)
    except Incompatible as error:
        raise Incompatible(f"{error}; or ledits(masks='noise'), which needs no attention") from error
    return [layer for layer in layers if layer.place != "mid"] or layers


def concepts_of(
    model: Model, edits: Mapping[str, float] | None, source: str, target: str, attends: bool
) -> list[Concept]:
    """What one edit is made of; no positions where no attention is looked at.

    Raises:
        BadOption: no phrase, or one that has no words.
    """
    if edits is not None:
        found = [_whole(pieces(model, p, asker=NAME), w) if attends else Concept(p, w, (), p) for p, w in edits.items()]
    else:
        own = [_changed(model, (source, target), 1.0, attends)]
        found = own if not source.strip() else [*own, _changed(model, (target, source), -1.0, attends)]
    for concept in found:
        if not words_of(concept.phrase):
            raise BadOption(
                f"ledits edits by phrases, and {concept.phrase!r} has no words; give a prompt of words, or edits"
            )
    return found


def _as_many(concepts: Sequence[Sequence[Concept]]) -> list[list[Concept]]:
    """As many to each edit, where some sources have no prompt to lead away from: the missing ones weigh nothing."""
    most = max(len(own) for own in concepts)
    return [[*own, *[replace(own[0], weight=0.0)] * (most - len(own))] for own in concepts]


def _changed(model: Model, prompts: tuple[str, str], weight: float, attends: bool) -> Concept:
    """A prompt, of which the words are looked at that the one before it has not; all, where there are none."""
    before, prompt = prompts
    if not attends:
        return Concept(prompt, weight, (), prompt)
    read = pieces(model, prompt, asker=NAME)
    tokens = read.new(pieces(model, before, asker=NAME))
    new = [word for word, places in zip(read.words, read.places, strict=True) if set(places) & set(tokens)]
    return Concept(prompt, weight, tokens, " ".join(new)) if new else _whole(read, weight)


def _whole(read: Pieces, weight: float) -> Concept:
    """A phrase of which every word is looked at."""
    return Concept(read.prompt, weight, tuple(t for places in read.places for t in places), read.prompt)


class Semantic(AttentionSteering):
    """The semantic guidance of one walk."""

    halves = ()  # sources are asked for their own sake alone

    def __init__(
        self, branches: Branches, concepts: Sequence[Sequence[Concept]], grounding: Grounding, warmup_steps: int
    ) -> None:
        super().__init__(branches, _layers(branches.model) if concepts[0][0].tokens else [])
        self.concepts, self.grounding, self.warmup_steps = concepts, grounding, warmup_steps
        _, free, self.guidance = branches.predict.play_sources()
        assert free is not None
        self.condition = self._rows(free)  # of each edit: u, and then its phrases
        self.point = branches.stop
        self.positions: Tensor | None = None  # (R, tokens), of the call under way
        self.taken: list[tuple[Layer, Tensor]] = []  # and its attention, (R, pixels) of each layer
        self.coarsest: list[Layer] | None = None
        self.let: Tensor | None = None  # (T, 1, h, w), the cells that any step let change
        self.looked: Tensor | None = None  # (T, C, p, q), the sum of all attention

    @property
    def each(self) -> int:
        """Rows that an edit is asked about: 1 + C."""
        return 1 + len(self.concepts[0])

    def before(self, k: int, i: int, j: int) -> None:
        """See `Steering`."""
        super().before(k, i, j)
        self.point = i

    def predict(self, predict: Any) -> Any:
        """See `Steering`."""
        return Towards(predict, self.branches.predict, self)

    def scale(self, edit: int) -> float:
        """s of the step under way."""
        return 0.0 if self.step < self.warmup_steps else self.guidance[edit][self.point]

    def guided(self, asker: BranchPredict, x: Tensor, i: int, edits: Sequence[int]) -> Prediction:
        """What the phrases add to the predictions of some edits at x (n, C, H, W)."""
        import torch

        row = torch.arange(self.branches.count * self.each, device=x.device).unflatten(0, (-1, self.each))
        rows = row[list(edits)].flatten()
        with self._looking(rows):
            found = asker.besides(
                x.repeat_interleave(self.each, 0),
                i,
                [e for e in edits for _ in range(self.each)],
                self.condition.rows(rows),
            )
        x0, eps = (t.unflatten(0, (-1, self.each)) for t in (found.x0, found.eps))
        x0, eps = x0[:, 1:] - x0[:, :1], eps[:, 1:] - eps[:, :1]
        attention = self._attention(x.shape[-2:])
        mask = self.grounding.mask(eps, attention, asker.grid.asked_at(i)[0])
        self._keep(mask, attention, edits)
        weights = [[self.scale(e) * concept.weight for concept in self.concepts[e]] for e in edits]
        allowed = mask * eps.new_tensor(weights)[:, :, None, None, None]
        return Prediction((allowed * x0).sum(1), (allowed * eps).sum(1))

    def reads(self, layer: Layer) -> bool:
        """See `Control`: in our own calls, and once they are known the coarsest layers only."""
        return self.positions is not None and (self.coarsest is None or layer in self.coarsest)

    def attend(self, heads: Heads, rows: Asked) -> None:
        """See `Control`: looked at, and left to the processor."""
        assert self.positions is not None
        maps = heads.maps()
        self.taken.append((heads.layer, (maps * self.positions.to(maps)[:, None, None]).sum(-1).mean(1)))

    def mask(self) -> Tensor | None:
        """See `Steering`."""
        return None if self.grounding.masks == "none" else self.let

    def maps(self) -> Sequence[Mapping[str, Tensor]]:
        """See `Steering`."""
        if self.looked is None:
            return ()
        shown = self.looked / self.looked.amax((2, 3), keepdim=True).clamp_min(1e-12)
        return [
            {concept.shown: m.cpu() for concept, m in zip(concepts, own, strict=True)}
            for concepts, own in zip(self.concepts, shown, strict=True)
        ]

    def notes(self) -> dict[str, Any]:
        """See `Steering`."""
        return {"edits": [{c.shown: c.weight for c in concepts} for concepts in self.concepts]}

    def _rows(self, free: Condition) -> Condition:
        """u and the phrases of each edit, edit by edit."""
        import torch

        phrases = list(dict.fromkeys(c.phrase for concepts in self.concepts for c in concepts))
        both = free.joined(self.branches.model.embed(phrases))
        order = [
            k
            for edit, concepts in enumerate(self.concepts)
            for k in (edit, *(self.branches.count + phrases.index(c.phrase) for c in concepts))
        ]
        return both.rows(torch.tensor(order, device=next(iter(both.named.values())).device))

    @contextmanager
    def _looking(self, rows: Tensor) -> Iterator[None]:
        """While it lasts, attention to the phrases' words is taken."""
        if self.layers:
            tokens = [t for concepts in self.concepts for t in ((), *(c.tokens for c in concepts))]
            embeds = self.condition.prompt_embeds
            assert embeds is not None
            self.positions = embeds.new_zeros(len(rows), embeds.shape[1])
            for k, row in enumerate(rows.tolist()):
                self.positions[k, list(tokens[row])] = 1
        self.taken = []
        try:
            yield
        finally:
            self.positions = None

    def _attention(self, size: Sequence[int]) -> Tensor | None:
        """Of each phrase, averaged over heads and the coarsest layers: (n, C, p, q) in at least float32."""
        import torch

        if not self.taken:
            return None
        fewest = min(maps.shape[1] for _, maps in self.taken)
        kept = [(layer, maps) for layer, maps in self.taken if maps.shape[1] == fewest]
        self.coarsest = [layer for layer, _ in kept]
        wide = torch.promote_types(kept[0][1].dtype, torch.float32)
        mean = torch.stack([maps.to(wide) for _, maps in kept]).mean(0)
        return mean.unflatten(0, (-1, self.each))[:, 1:].unflatten(2, sides(fewest, *size))

    def _keep(self, mask: Tensor, attention: Tensor | None, edits: Sequence[int]) -> None:
        """What is shown afterwards."""
        import torch

        index = torch.tensor(list(edits), device=mask.device)
        if self.let is None:
            self.let = mask.new_zeros(self.branches.count, 1, *mask.shape[-2:])
        self.let[index] = self.let[index].maximum(mask.amax(1))
        if attention is None:
            return
        if self.looked is None:
            self.looked = attention.new_zeros(self.branches.count, *attention.shape[1:])
        self.looked[index] += attention


class Towards:
    """A `predict` of edits that are their sources, and what their phrases add."""

    def __init__(self, predict: Any, asker: BranchPredict, steering: Semantic) -> None:
        """`predict` as the method plays it; `asker` is asked about the phrases."""
        self.predict, self.asker, self.steering = predict, asker, steering

    def __call__(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """As `Predict`."""
        found: Prediction = self.predict(x, i, rows)
        pictures = range(len(x)) if rows is None else rows.tolist()
        count = self.steering.branches.count
        at = [k for k, picture in enumerate(pictures) if picture < count]
        edits = [pictures[k] for k in at]
        if all(self.steering.scale(edit) == 0 for edit in edits):
            return found
        index = x.new_tensor(at).long()
        added = self.steering.guided(self.asker, x[index], i, edits)
        x0, eps = (t.index_add(0, index, more) for t, more in ((found.x0, added.x0), (found.eps, added.eps)))
        return self.asker.clamped(Prediction(x0, eps))

    def with_condition(self, condition: Condition, unconditional: Condition | None) -> Towards:
        """As of `Predict`: what the source is played with."""
        return Towards(self.predict.with_condition(condition, unconditional), self.asker, self.steering)

    def on(self, grid: Any, scale: Any) -> Towards:
        """As of `Predict`."""
        return Towards(self.predict.on(grid, scale), self.asker.on(grid, scale), self.steering)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name in ("grid", "unclamped", "scales", "condition", "unconditional", "cost", "model"):
            return getattr(self.predict, name)
        raise Incompatible(f"{NAME} adds to the guided prediction, and the method's sampler asks for predict.{name}")
