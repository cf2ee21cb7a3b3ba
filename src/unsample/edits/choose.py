"""`auto`: which method, editor, guidance and mask an edit takes, by its kind, found from the two prompts alone.

What is chosen of the kinds of scenes is the best row of docs/editing.md that needs no given mask. Of prompts in other
words (a word swapped, words added ...) nothing was measured here: what is chosen is what the papers are about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from unsample.edits.words import matched, words_of
from unsample.errors import BadOption

Kind = Literal["colour", "background", "shape", "texture", "size", "place", "swap", "added", "removed", "other", "same"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GROUNDS = {"background", "backdrop", "ground"}
AUTO = "auto"
METHOD = "ddim"  # of `auto` where the edit is not known yet
CLASSES: dict[Kind, frozenset[str]] = {
    "colour": frozenset(
        [
            *("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white", "black", "gray", "grey", "pink"),
            *("brown", "golden", "silver", "beige", "turquoise", "magenta", "violet", "crimson"),
        ]
    ),
    "size": frozenset(["small", "medium", "large", "big", "tiny", "huge", "little", "giant"]),
    "place": frozenset(["left", "right", "top", "bottom", "center", "centre", "middle"]),
    "texture": frozenset(["plain", "striped", "checkered", "checked", "dotted", "spotted", "rough", "smooth"]),
    "shape": frozenset(["circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond", "hexagon"]),
}


@dataclass(frozen=True)
class Choice:
    """What `auto` stands for."""

    kind: Kind
    method: str
    editor: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the editor
    guidance_scale: float | None = None  # of the edit; None: the editor's own, else the method's
    mask: str | None = None  # as `unsample.edit(mask=)` takes it
    paste: bool = False
    measured: bool = True  # whether docs/editing.md has the row

    def told(self) -> str:
        """In a sentence."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        guided = "" if self.guidance_scale is None else f", guidance {self.guidance_scale:g}"
        masked = "" if self.mask is None else f", mask {self.mask}" + (", pasted" if self.paste else "")
        ground = "measured in docs/editing.md" if self.measured else "not measured here"
        return f"{SPOKEN[self.kind]}: editor {self.editor}({settings}){guided}{masked} ({ground})"


SPOKEN: dict[Kind, str] = {
    "colour": "the colour of something changes",
    "background": "the background changes",
    "shape": "the shape changes",
    "texture": "the texture changes",
    "size": "the size changes",
    "place": "the place changes",
    "swap": "words are replaced",
    "added": "words are added",
    "removed": "words are left out",
    "other": "the prompts differ in several ways",
    "same": "the prompts are the same",
}
CHOICES: dict[Kind, Choice] = {
    choice.kind: choice
    for choice in (
        Choice(
            "colour",
            "ddim",
            "p2p",
            {"cross_steps": 0.3, "self_steps": 0.8},
            guidance_scale=1.5,
            mask="thing",
            paste=True,
        ),
        Choice("background", "ddim", "none", guidance_scale=3),
        Choice("shape", "ddim", "masactrl", guidance_scale=1.5, mask="thing", paste=True),
        Choice("texture", "ddim", "none", guidance_scale=3, mask="thing", paste=True),
        Choice("size", "ddim", "masactrl", guidance_scale=1.5, mask="thing", paste=True),
        Choice("place", "ddim", "masactrl", guidance_scale=1.5, mask="thing", paste=True),
        Choice("swap", "ddim", "p2p", measured=False),
        Choice("added", "ddim", "p2p", measured=False),
        Choice("removed", "ddim", "p2p", measured=False),
        Choice("other", "ddim", "none", measured=False),
        Choice("same", "ddim", "none", measured=False),
    )
}


def choose(source: str | None, target: str | None) -> Choice:
    """What `auto` stands for, of an edit from one prompt to another.

    Args:
        source: what the picture shows.
        target: what the edit shall show.

    Raises:
        BadOption: one of them is not known.

    Example:
        >>> choose("a red star at the left", "a red star at the right").kind
        'place'
    """
    if not source or not target:
        lacking = "source" if not source else "edit"
        raise BadOption(
            f"auto compares two prompts, and that of the {lacking} is not known; give it, or name an editor"
        )
    return CHOICES[kind_of(source, target)]


def kind_of(source: str, target: str) -> Kind:
    """The kind of an edit: of every run of words that differ, what they are; one kind in all of them, else `other`."""
    kinds = {_kind(*run) for run in differences(source, target)}
    return "same" if not kinds else kinds.pop() if len(kinds) == 1 else "other"


def differences(source: str, target: str) -> list[tuple[list[str], list[str], list[str]]]:
    """The runs of words in which two prompts differ: those of the source, of the target, and what follows there."""
    a, b = ([word.casefold() for word in words_of(prompt)] for prompt in (source, target))
    runs, i, j = [], 0, 0
    for p, q in [*matched(a, b), (len(a), len(b))]:
        if (p, q) != (i, j):
            runs.append((a[i:p], b[j:q], b[q:]))
        i, j = p + 1, q + 1
    return runs


def _kind(gone: list[str], new: list[str], behind: list[str]) -> Kind:
    """The kind of one run."""
    surface, words = CLASSES["colour"] | CLASSES["texture"], {*gone, *new}
    if words <= surface and next((w for w in behind if w not in surface), "") in GROUNDS:
        return "background"
    for kind, known in CLASSES.items():
        if words <= known and (len(gone) == len(new) or kind == "texture"):
            return kind
    if not gone or not new:
        return "removed" if gone else "added"
    return "other" if words <= frozenset().union(*CLASSES.values()) else "swap"


BREAKS = {
    *("a", "an", "the", "of", "on", "in", "at", "with", "and", "or", "to", "by", "under", "over", "near", "behind"),
    *("against", "from", "into", "beside", "before", "while", "is", "are", "as", "that", "which"),
}
"""Words that end a phrase; whatever is no word does too."""


def thing(source: str, target: str) -> tuple[list[int], list[int]]:
    """The words of what an edit changes, as their places in the source's prompt and in the edit's.

    It is the phrase around the words that differ, between articles, prepositions and commas; of a change of place, and
    of the background, that with which the prompt begins. Where words are added or left out, one of the two is empty.

    Example:
        >>> thing("a red star at the left", "a red star at the right")
        ([1, 2], [1, 2])
    """
    prompts = [[word.casefold() for word in words_of(prompt)] for prompt in (source, target)]
    kind = kind_of(source, target)
    if kind in ("place", "background"):
        first = [next((k for k, word in enumerate(words) if _speaks(word)), 0) for words in prompts]
        return _phrase(prompts[0], first[0]), _phrase(prompts[1], first[1])
    changed = [{k for k, _ in _new(*prompts)}, {k for k, _ in _new(*prompts[::-1])}]
    found = [sorted({n for k in own for n in _phrase(words, k)}) for words, own in zip(prompts, changed, strict=True)]
    if kind == "texture":  # a word that came or went: the phrase is there in both
        found = [
            own or _same(words, prompts[1 - n], found[1 - n])
            for n, (words, own) in enumerate(zip(prompts, found, strict=True))
        ]
    return found[0], found[1]


def _speaks(word: str) -> bool:
    return word not in BREAKS and any(letter.isalnum() for letter in word)


def _new(words: Sequence[str], others: Sequence[str]) -> list[tuple[int, str]]:
    """The words that the others have not, with their places."""
    kept = {i for i, _ in matched(words, others)}
    return [(k, word) for k, word in enumerate(words) if k not in kept and _speaks(word)]


def _phrase(words: Sequence[str], at: int) -> list[int]:
    """The places of the phrase around a word."""
    first = last = at
    while first > 0 and _speaks(words[first - 1]):
        first -= 1
    while last + 1 < len(words) and _speaks(words[last + 1]):
        last += 1
    return list(range(first, last + 1))


def _same(words: Sequence[str], others: Sequence[str], of_others: Sequence[int]) -> list[int]:
    """The places of the words that stand for those of the other prompt."""
    return [i for i, j in matched(words, others) if j in of_others]
