"""Masks that are found: where two prompts disagree about a picture (DiffEdit), or where words have their attention.

Both look at the source itself, noised some times to half of the steps: before any walk, so that a mask does not depend
on the method, the editor or the guidance of an edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unsample.edits.attention import layers_of, recording
from unsample.edits.words import changed, pieces, tokenizer_of, words_of
from unsample.errors import BadOption, Diverged, UnknownName
from unsample.numbers.draws import content_seeds, draw_noise
from unsample.wording import argument, given

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.guidance import Predict

NOISES = 10
RATIO = 3.0  # times its mean, a difference is an outlier, and clipped
THRESHOLD = 0.5  # of the difference, rescaled to [0, 1]
ATTENDED = 0.3  # of the largest attention


@dataclass(frozen=True)
class Pair:
    """The source's prediction, of S rows, and that of its T edits; each counts its own cost."""

    source: Predict
    target: Predict
    source_of: Sequence[int]  # of each edit
    latents: Tensor  # (S, C, h, w)
    content: Tensor  # (S, ...): what seeds the noises
    strength: float  # of the steps: how far the sources are noised

    @property
    def point(self) -> int:
        """The grid point that the source is noised to."""
        return max(1, int(self.strength * self.target.grid.num_steps))

    def noised(self) -> Iterator[Tensor]:
        """The sources (S, C, h, w) under one noise after the other, seeded by their own content."""
        import torch

        grid, i, x = self.target.grid, self.point, self.latents
        seeds = [torch.Generator().manual_seed(seed) for seed in content_seeds(self.content, 0)]
        for noise in draw_noise(seeds, (NOISES, *x.shape[1:])).to(x).unbind(1):
            yield grid.alpha[i] * x + grid.sigma[i] * noise


def differing(pair: Pair) -> Tensor:
    """Where the two prompts disagree, (T, 1, h, w) of 0 and 1.

    The sources are noised 10 times to a strength (the paper's: half of the steps). The difference of the predicted
    noise under the two prompts is averaged in absolute value over noises and channels, clipped at 3 times its mean,
    divided by what is then its largest value, and cut at 0.5. Scales divide out: so the predictions are asked unguided,
    and predicted pictures stand for the noise, -alpha / sigma times which they differ. It costs 10 network evaluations
    a prompt.

    Reference:
        Couairon, Verbeek, Schwenk and Cord, 2022, DiffEdit, arXiv:2210.11427, step 1. The ratio of 3 is diffusers';
        it divides by the clip also where no value comes near it, which leaves nothing of a change all over.
    """
    index, total = list(pair.source_of), pair.latents.new_zeros(())
    for x in pair.noised():
        own = pair.source.conditional(x, pair.point).x0[index]
        total = total + (pair.target.conditional(x[index], pair.point).x0 - own).abs().mean(1, keepdim=True)
    return _cut(total / NOISES)


def _cut(difference: Tensor) -> Tensor:
    """(T, 1, h, w) of 0 and 1."""
    _check(difference)
    mean = difference.flatten(1).mean(1).reshape(-1, 1, 1, 1)
    clipped = difference.minimum(RATIO * mean)
    largest = clipped.flatten(1).amax(1).reshape(-1, 1, 1, 1)
    return ((clipped > THRESHOLD * largest) & (largest > 0)).to(difference)


def attended_by(
    pair: Pair, prompts: Sequence[tuple[str, str]], words: Sequence[str]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Where words have their attention, (T, 1, h, w) of 0 and 1, and of each edit the maps (h, w) of its words.

    Cross-attention, averaged over heads, noises and the layers of at most 16 tokens a side, of each word alone (of
    several in one, "large red star", their mean), rescaled to [0, 1], cut at 0.3, and joined: of the words asked for in
    both prompts, else of those that the edit leaves out in the source's prompt and of those that it adds in its own.
    It costs 10 network evaluations a prompt.

    Args:
        pair: the two predictions.
        prompts: of each edit, its source's and its own.
        words: asked for; none: those that change.

    Raises:
        UnknownName: a word that stands in neither prompt. Incompatible: a model without such attention.

    Reference:
        The threshold is that of Hertz et al., 2022, arXiv:2208.01626 (LocalBlend).
    """
    import torch
    from torch.nn.functional import interpolate

    named = [_named(own, target, words) for own, target in prompts]
    model, shape = pair.target.model, pair.latents.shape
    layers = layers_of(model, given("mask", "attention"), cross=True)
    sources, targets = pair.latents, pair.latents[list(pair.source_of)]
    with recording(layers, sources.shape) as kept:
        for x in pair.noised():
            pair.source.conditional(x, pair.point)
    with recording(layers, targets.shape) as moved:
        for x in pair.noised():
            pair.target.conditional(x[list(pair.source_of)], pair.point)
    own, new = kept.mean(), moved.mean()
    rows: list[Tensor] = []
    told: list[dict[str, Tensor]] = []
    for k, (s, (source, target), (gone, added)) in enumerate(zip(pair.source_of, prompts, named, strict=True)):
        each = [(word, _of_word(model, source, word, own[s])) for word in gone]
        each += [(word, _of_word(model, target, word, new[k])) for word in added]
        told.append({})
        for word, one in each:
            told[-1][word] = torch.maximum(told[-1][word], one) if word in told[-1] else one
        maps = list(told[-1].values())
        rows.append(torch.stack(maps).amax(0) if maps else own.new_zeros(own.shape[2:]))
    found = torch.stack(rows)[:, None]
    _check(found)
    found = interpolate(found, size=shape[2:], mode="bilinear") if found.shape[2:] != shape[2:] else found
    return (found > ATTENDED).to(sources), [{word: one.cpu() for word, one in maps.items()} for maps in told]


def _named(source: str, target: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words whose attention is looked at under the source's prompt, and under the edit's."""
    if not words:
        return changed(source, target)
    there = [{w.casefold() for w in words_of(prompt)} for prompt in (source, target)]
    both = tuple([word for word in words if {w.casefold() for w in words_of(word)} <= one] for one in there)
    if lost := [word for word in words if word not in both[0] and word not in both[1]]:
        known = ", ".join(dict.fromkeys(words_of(f"{source} {target}")))
        raise UnknownName(f"{argument('mask')}: no word {lost[0]!r} in {source!r} or {target!r}; there are: {known}")
    return both[0], both[1]


def _of_word(model: Any, prompt: str, word: str, maps: Tensor) -> Tensor:
    """The attention (h, w) of a word, or of several as one, rescaled to [0, 1]; `maps` (keys, h, w)."""
    tokens = pieces(model, prompt, len(maps), given("mask", "attention")).tokens(word)
    one = maps[list(tokens)].mean(0)
    return (one - one.amin()) / (one.amax() - one.amin()).clamp_min(1e-12)


def check_words(prompts: Sequence[tuple[str | None, str | None]], words: Sequence[str]) -> None:
    """Both prompts of each edit are there, its source's and its own, and the words in one of them.

    Raises:
        BadOption: a prompt is not known. UnknownName: no such word.
    """
    for source, target in prompts:
        if not source or not target:
            raise BadOption(
                f"{given('mask', 'attention')} is of words, and the prompt of the {'edit' if source else 'source'} is "
                f"not known; give it (the source's as the prompt of its inversion), or use {given('mask', 'auto')}"
            )
        _named(source, target, words)


def check_attends(model: Any) -> None:
    """The model attends to words.

    Raises:
        Incompatible: it does not.
    """
    tokenizer_of(model, given("mask", "attention"))
    layers_of(model, given("mask", "attention"), cross=True)


def _check(found: Tensor) -> None:
    if not bool(found.isfinite().all()):
        raise Diverged("what a mask is made of is not finite: the network failed on the noised source; use float32")
