"""Words of prompts, the tokens that a model reads them as, and which token of an edit stands for which of its source.

A word is a run of letters and digits, with the hyphens and apostrophes inside it; a punctuation mark is a word of its
own. Words are compared without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unsample.errors import BadOption, Incompatible, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model

Kind = Literal["replace", "refine"]
WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


def words_of(prompt: str) -> list[str]:
    """The words of a prompt, as they stand in it."""
    return WORD.findall(prompt)


def matched(source: Sequence[str], target: Sequence[str]) -> list[tuple[int, int]]:
    """The longest list of words that two prompts have in common, in order: places (i, j) in each.

    That is Needleman and Wunsch's alignment where a match counts 1, a gap nothing, and other words are never matched.
    Of several, that with the latest places.
    """
    a, b = [w.casefold() for w in source], [w.casefold() for w in target]
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, own in enumerate(a, 1):
        for j, other in enumerate(b, 1):
            same = best[i - 1][j - 1] + 1 if own == other else 0
            best[i][j] = max(same, best[i - 1][j], best[i][j - 1])
    pairs, i, j = [], len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif best[i - 1][j] >= best[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def kind_of(source: str, target: str) -> Kind:
    """`replace` where words were put in the place of others, `refine` where they were added, left out or moved."""
    a, b = words_of(source), words_of(target)
    kept = sum(own.casefold() == other.casefold() for own, other in zip(a, b, strict=False))
    return "replace" if len(a) == len(b) and kept == len(matched(a, b)) else "refine"


def changed(source: str, target: str) -> tuple[list[str], list[str]]:
    """The words of a source that its edit has not, and those of the edit that are new."""
    a, b = words_of(source), words_of(target)
    pairs = matched(a, b)
    gone, new = {i for i, _ in pairs}, {j for _, j in pairs}
    return [w for i, w in enumerate(a) if i not in gone], [w for j, w in enumerate(b) if j not in new]


@dataclass(frozen=True)
class Pieces:
    """A prompt as a model reads it: `length` tokens, of which its words have some."""

    prompt: str
    words: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]  # of each word, its tokens; none of one that was cut off
    length: int

    def tokens(self, word: str, what: str = "word of the prompt") -> tuple[int, ...]:
        """The tokens of a word (or of several, "red car"), wherever it stands in the prompt.

        Raises:
            UnknownName: the prompt has no such word; it says which it has. BadOption: the word was cut off.
        """
        found: list[int] = []
        for one in words_of(word):
            own = [p for w, p in zip(self.words, self.places, strict=True) if w.casefold() == one.casefold()]
            if not own:
                raise unknown_name(what, one, dict.fromkeys(w.casefold() for w in self.words))
            found += [token for tokens in own for token in tokens]
            if not any(own):
                raise BadOption(
                    f"{one!r} stands after the {self.length} tokens that the model reads of {self.prompt!r}; "
                    "give a shorter prompt"
                )
        return tuple(sorted(set(found)))

    def new_words(self, source: Pieces) -> dict[str, tuple[int, ...]]:
        """The words that a source has not, with their tokens."""
        kept, found = {j for _, j in matched(source.words, self.words)}, dict[str, tuple[int, ...]]()
        for j, word in enumerate(self.words):
            if j not in kept:
                found[word] = found.get(word, ()) + self.places[j]
        return found

    def new(self, source: Pieces) -> tuple[int, ...]:
        """Their tokens, in order."""
        return tuple(sorted(t for tokens in self.new_words(source).values() for t in tokens))

    @property
    def head(self) -> list[int]:
        """What stands before the words: the token that begins a text, and padding on the left."""
        return list(range(min((t for tokens in self.places for t in tokens), default=1)))

    @property
    def tail(self) -> list[int]:
        """What stands behind them: the token that ends a text, and the padding."""
        return list(range(max((t for tokens in self.places for t in tokens), default=0) + 1, self.length))


def in_either(words: str, source: Pieces, target: Pieces, what: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that words have in a source's prompt and in that of its edit; each stands in one of them, or in both.

    Raises:
        UnknownName: a word that is in neither; `what` is the setting that names it.
    """
    known = {w.casefold(): p for p in (source, target) for w in p.words}
    for word in words_of(words):
        if word.casefold() not in known:
            raise unknown_name(f"word of {what} in either prompt", word, known)
    a, b = (
        [t for w in words_of(words) if w.casefold() in {own.casefold() for own in p.words} for t in p.tokens(w)]
        for p in (source, target)
    )
    return tuple(a), tuple(b)


def tokenizer_of(model: Model, asker: str) -> Any:
    """The tokenizer that says which word is which token of a model's text.

    Raises:
        Incompatible: it takes no prompt, or its tokenizer cannot tell.
    """
    found = getattr(getattr(model, "pipeline", None), "tokenizer", None) or getattr(model, "tokenizer", None)
    if not model.takes_prompt or found is None:
        raise Incompatible(f"{asker} compares words, and {model.id} takes no prompt; use editor none")
    if not getattr(found, "is_fast", False):
        raise Incompatible(
            f"{asker} asks which token is which word, and the tokenizer of {model.id} ({type(found).__name__}) does "
            "not tell; use editor none, or a model whose tokenizer is one of the library tokenizers"
        )
    return found


def pieces(model: Model, prompt: str, length: int | None = None, asker: str = "an editor") -> Pieces:
    """A prompt's tokens.

    Args:
        model: a text model.
        prompt: what it reads.
        length: of its condition, `prompt_embeds` (B, length, D); None is the tokenizer's own.
        asker: who wants them, for the message: "editor p2p".

    Raises:
        Incompatible: as of `tokenizer_of`.
    """
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin

    tokenizer = tokenizer_of(model, asker)
    prepared = getattr(getattr(model, "pipeline", None), "_text_preprocessing", None)
    text = prompt.strip() if prepared is None else prepared(prompt, clean_caption=False)[0]
    text = TextualInversionLoaderMixin().maybe_convert_prompt(text, tokenizer)
    length = length or tokenizer.model_max_length
    read = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_offsets_mapping=True)
    spans = [match.span() for match in WORD.finditer(text)]
    places: list[list[int]] = [[] for _ in spans]
    for token, (begin, end) in enumerate(read["offset_mapping"]):
        if begin == end:  # it stands for no letter
            continue
        own = [k for k, (a, b) in enumerate(spans) if a < end and begin < b]
        after = [k for k, (a, _) in enumerate(spans) if a >= end]
        for k in own or after[:1]:  # a space belongs to the word behind it
            places[k].append(token)
    return Pieces(prompt, tuple(text[a:b] for a, b in spans), tuple(map(tuple, places)), length)


def alignment(source: Pieces, target: Pieces, kind: Kind) -> tuple[Tensor, Tensor]:
    """Which token of an edit takes the attention of which token of its source.

    Words that are put in each other's place (`replace`), or are the same word (`refine`), pass their maps on: token by
    token where they have as many, else each of the b tokens of the edit gets 1/b of those of the source together, so
    that no attention is lost. What begins and ends a text, and its padding, is passed on in order.

    Returns:
        Float32 (length, length): the edit's map of token t is sum over s of map of s times matrix[s, t]; and (length,),
        1 where a token is new and keeps its own.

    Raises:
        BadOption: `replace`, of prompts of unequal numbers of words.

    Source: Hertz et al., arXiv:2208.01626.
    """
    import torch

    a, b = source, target
    if kind == "replace" and len(a.words) != len(b.words):
        raise BadOption(
            f"kind=replace puts a word in the place of each word, and {a.prompt!r} has {len(a.words)} words and "
            f"{b.prompt!r} {len(b.words)}; use kind=refine, or auto, or prompts of as many words"
        )
    same = [(k, k) for k in range(len(a.words))] if kind == "replace" else matched(a.words, b.words)
    matrix, own = torch.zeros(a.length, b.length), torch.ones(b.length)
    blocks = [(list(a.places[i]), list(b.places[j])) for i, j in same]
    ends = [*_in_order(a.tail, b.tail), *_in_order(a.head[::-1], b.head[::-1])]
    for theirs, ours in [*blocks, *ends]:
        if not theirs or not ours:
            continue
        if len(theirs) == len(ours):
            matrix[theirs, ours] = 1
        else:
            matrix[torch.tensor(theirs)[:, None], torch.tensor(ours)] = 1 / len(ours)
        own[ours] = 0
    return matrix, own


def _in_order(a: list[int], b: list[int]) -> list[tuple[list[int], list[int]]]:
    """What is no word, in pairs; of unequal numbers, the last pair is a block that takes the rest."""
    count = min(len(a), len(b)) - 1
    if count < 1:  # the end alone, without padding: the rest keeps its own
        return [(a[:1], b[:1])]
    return [*(([x], [y]) for x, y in zip(a[:count], b[:count], strict=True)), (a[count:], b[count:])]
