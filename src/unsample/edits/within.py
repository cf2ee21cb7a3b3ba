"""The mask of the thing that an edit changes, found while the edit and its source are walked.

Where a cross-attention layer looks at the words of a thing is where the thing is: in the source's branch where it was,
in the edit's where it goes. Each map is averaged over heads, layers and all steps so far, rescaled to [0, 1] and cut;
the two are joined and grown, and outside of them the edit is its source. Hertz et al., arXiv:2208.01626, blend so
(LocalBlend) by the words that change; half of a map of theirs lies on the background where they are no nouns, so the
whole phrase of the thing is looked at here ("large striped red star"), and of a move that of what moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.edits.attention import Heads, MapMean, attended, layers_of, sides
from unsample.edits.base import Asked, Branches, Editor, Steering
from unsample.edits.beside import Beside
from unsample.edits.choose import thing
from unsample.edits.words import pieces, words_of
from unsample.errors import BadOption
from unsample.models.guidance import HALVES
from unsample.numeric import is_whole
from unsample.wording import argument, given

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Model
    from unsample.numbers.walk import State

THRESHOLD = 0.35  # of the rescaled attention
AFTER = 0.2  # of the steps: before, maps are vague and nothing is blended
NAME = "mask thing"


def within(editor: Editor, dilate: int = 1, feather: float = 0.0) -> Editor:
    """An editor whose edits stay within the mask of the thing that they change: `unsample.edit(mask="thing")`.

    Args:
        editor: any that makes no mask of its own.
        dilate: by how many cells of the state the mask grows.
        feather: none; the mask is found anew at every step and has a hard edge.

    Raises:
        BadOption: a feather, a dilation that cannot be, or an editor with a mask of its own.
    """
    if feather:
        raise BadOption(
            f"{given('mask_feather', feather)}: {NAME} is cut at each step and has a hard edge; leave it out"
        )
    if not is_whole(dilate) or dilate < 0:
        raise BadOption(f"{argument('mask_dilate')} must be a whole number of cells, at least 0; got {dilate!r}")
    if editor.makes_mask:
        raise BadOption(f"{NAME}: editor {editor!r} makes a mask of its own; leave one of the two out")

    def check(model: Model, pairs: Sequence[tuple[str, str]]) -> None:
        layers_of(model, NAME, cross=True)
        for pair in pairs:
            tokens_of(model, *pair)
        if editor.check is not None:
            editor.check(model, pairs)

    def steer(branches: Branches) -> Within:
        inner = Steering() if editor.steer is None else editor.steer(branches)
        return Within(branches, inner, int(dilate))

    return replace(editor, steer=steer, check=check, needs_source_prompt=True, makes_mask=True)


def tokens_of(model: Model, source: str, target: str, length: int | None = None) -> tuple[list[int], list[int]]:
    """The tokens of the thing that changes, in the source's prompt and in the edit's.

    Raises:
        BadOption: the prompts do not differ, or all that changes was cut off.
    """
    found = []
    for prompt, words in zip((source, target), thing(source, target), strict=True):
        read = pieces(model, prompt, length, NAME)
        found.append([token for word in words for token in read.places[word]])
    if not any(found):
        raise BadOption(f"{NAME}: {source!r} and {target!r} name no thing that changes; leave it out, or give a mask")
    return found[0], found[1]


class Attention(MapMean):
    """The mean attention of chosen tokens, of T edits and below them of the source of each: `total` (2T, tokens)."""

    def __init__(self, shape: Sequence[int], tokens: Sequence[tuple[list[int], list[int]]]) -> None:
        super().__init__(shape)
        self.tokens = tokens

    def attend(self, heads: Heads, rows: Asked) -> Tensor | None:
        """See `Control`."""
        import torch

        if not self.wants(heads):
            return None
        at = (rows.edits & rows.conditional).nonzero().flatten()
        if not len(at):
            return None
        both = torch.cat([at, rows.partner[at]])
        maps = heads.rows(both).maps().detach().float().mean(1)  # (2T, tokens of the picture, of the text)
        pictures, found = rows.pictures[at].tolist(), maps.new_zeros(2 * len(self.tokens), maps.shape[1])
        for k, n in enumerate(pictures):
            for place, words, row in ((n, 1, k), (n + len(self.tokens), 0, k + len(pictures))):
                if self.tokens[n][words]:
                    found[place] = maps[row][:, self.tokens[n][words]].mean(-1)
        kept = self.total
        self.total = found if kept is None or kept.shape != found.shape else kept + found
        return None

    def where(self, threshold: float) -> Tensor:
        """Where the thing is, of each edit in either branch: (T, 1, h, w) of 0 and 1."""
        assert self.total is not None
        low, high = self.total.amin(1, keepdim=True), self.total.amax(1, keepdim=True)
        over = (self.total - low) > threshold * (high - low)
        edit, source = over.chunk(2)
        return (edit | source).float().unflatten(-1, self.side())[:, None]

    def side(self) -> tuple[int, int]:
        """Height and width of the maps."""
        assert self.total is not None
        return sides(self.total.shape[-1], *self.state)


class Within(Steering):
    """An editor's steering within the mask of the thing."""

    def __init__(self, branches: Branches, inner: Steering, dilate: int) -> None:
        self.inner, self.branches, self.beside, self.dilate = inner, branches, Beside(branches.source_of), dilate
        self.halves = tuple(half for half in HALVES if half in {*inner.halves, HALVES[1]})
        embeds = branches.predict.condition.prompt_embeds
        length = None if embeds is None else embeds.shape[1]
        tokens = [tokens_of(branches.model, *pair, length) for pair in branches.pairs()]
        self.seen = Attention(branches.noise.shape, tokens)
        self.layers = layers_of(branches.model, NAME, cross=True)
        self.found: Tensor | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """See `Steering`."""
        with self.inner.attached(), attended(self.layers, self.seen):
            yield

    def predict(self, predict: Any) -> Any:
        """See `Steering`."""
        return self.inner.predict(predict)

    def before(self, k: int, i: int, j: int) -> None:
        """See `Steering`."""
        self.inner.before(k, i, j)

    def departs(self, k: int, i: int, x: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Steering`."""
        return self.inner.departs(k, i, x, state)

    @contextmanager
    def asked(self, rows: Asked) -> Iterator[None]:
        """See `Steering`."""
        with ExitStack() as stack:
            stack.enter_context(self.inner.asked(rows))
            stack.callback(setattr, self.seen, "rows", None)
            self.seen.rows = rows
            yield

    def after(self, k: int, j: int, x: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Steering`."""
        from torch.nn.functional import interpolate, max_pool2d

        x, state = self.inner.after(k, j, x, state)
        if self.seen.total is None or k + 1 <= int(AFTER * self.branches.stop + 1e-4):
            return x, state
        mask = interpolate(self.seen.where(THRESHOLD), size=x.shape[2:], mode="nearest")
        d = self.dilate
        self.found = max_pool2d(mask, 2 * d + 1, 1, d) if d else mask
        return replace(self.beside, mask=self.found).blended_rows(x, state)

    def mask(self) -> Tensor | None:
        """See `Steering`."""
        return self.found

    def maps(self) -> Sequence[Mapping[str, Tensor]]:
        """See `Steering`."""
        return self.inner.maps()

    def notes(self) -> dict[str, Any]:
        """See `Steering`: beside the editor's own, the phrases whose attention makes the mask."""
        phrases = []
        for pair in self.branches.pairs():
            words = [words_of(prompt) for prompt in pair]
            phrases.append([" ".join(own[k] for k in at) for own, at in zip(words, thing(*pair), strict=True)])
        return {**self.inner.notes(), "thing": phrases}
