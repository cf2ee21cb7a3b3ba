"""Words and tokens of prompts, and alignments worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unsample
from tests.zoo.table import ZOO
from unsample.edits.words import alignment, changed, kind_of, matched, pieces, tokenizer_of, words_of
from unsample.errors import BadOption, Incompatible, UnknownName


@pytest.fixture(scope="module")
def model() -> Any:
    return unsample.load("scenes-sd")


def test_words_are_runs_of_letters_and_marks() -> None:
    assert words_of("A red-ish cat's hat, 2 of it!") == ["A", "red-ish", "cat's", "hat", ",", "2", "of", "it", "!"]


@pytest.mark.parametrize(
    ("source", "target", "kind", "gone", "new"),
    [
        ("a red circle", "a blue circle", "replace", ["red"], ["blue"]),
        ("a red circle", "a Red circle", "replace", [], []),
        ("a circle", "a red circle", "refine", [], ["red"]),
        ("a red circle", "a circle", "refine", ["red"], []),
        ("a cat and a dog", "a cat and a big dog", "refine", [], ["big"]),
        ("a cat on a mat", "a mat on a cat", "replace", ["cat", "mat"], ["mat", "cat"]),
        ("a red circle on white", "a circle on white red", "refine", ["red"], ["red"]),
        ("a plain circle", "a circle, striped", "refine", ["plain"], [",", "striped"]),
        ("", "a cat", "refine", [], ["a", "cat"]),
    ],
)
def test_the_kind_of_an_edit_and_its_words_are_found(source: str, target: str, kind: str, gone: Any, new: Any) -> None:
    assert kind_of(source, target) == kind
    assert changed(source, target) == (gone, new)


def test_repeated_words_are_matched_to_those_that_stand_beside_the_same_words() -> None:
    assert matched(words_of("a circle"), words_of("a square and a circle")) == [(0, 3), (1, 4)]
    assert matched(words_of("a red circle"), words_of("a red and a blue circle")) == [(0, 0), (1, 1), (2, 5)]


def test_tokens_of_words(model: Any) -> None:
    read = pieces(model, "A zebra, a (red) circle!", 24)
    # <start> a z e b r a , a ( red ) circle ! <end>: zebra is no word of this tokenizer
    assert read.words == ("A", "zebra", ",", "a", "(", "red", ")", "circle", "!")
    assert read.places == ((1,), (2, 3, 4, 5, 6), (7,), (8,), (9,), (10,), (11,), (12,), (13,))
    assert read.tokens("a") == (1, 8)
    assert read.tokens("Zebra circle") == (2, 3, 4, 5, 6, 12)
    assert (read.head, read.tail) == ([0], list(range(14, 24)))
    with pytest.raises(
        UnknownName, match=r"reweight 'rde'; did you mean 'red'.*known: !, \(, \), ,, a, circle, red, zebra"
    ):
        read.tokens("rde", "word of reweight")
    with pytest.raises(BadOption, match="circle' stands after the 8 tokens"):
        pieces(model, "a zebra, a (red) circle", 8).tokens("circle")


def test_a_replaced_word_takes_the_map_of_the_other(model: Any) -> None:
    """<start> a red circle <end> pad x3; a word of one token becomes one of four, and back."""
    short, long = pieces(model, "a red circle", 9), pieces(model, "a redd circle", 9)
    assert (short.places, long.places) == (((1,), (2,), (3,)), ((1,), (2, 3, 4, 5), (6,)))
    matrix, own = alignment(short, long, "replace")
    expected = torch.zeros(9, 9)
    expected[0, 0] = expected[1, 1] = 1
    expected[2, 2:6] = 1 / 4
    expected[3, 6] = expected[4, 7] = 1  # circle, <end>
    expected[5:, 8] = 1  # four of padding, of which one is left
    assert torch.equal(matrix, expected)
    assert not own.any()
    back, own = alignment(long, short, "replace")
    expected = torch.zeros(9, 9)
    expected[0, 0] = expected[1, 1] = 1
    expected[2:6, 2] = 1
    expected[6, 3] = expected[7, 4] = 1
    expected[8, 5:] = 1 / 4
    assert torch.equal(back, expected)
    assert torch.equal(back.sum(1), torch.ones(9))  # no attention is lost
    assert not own.any()


def test_a_new_word_keeps_its_own_map(model: Any) -> None:
    source, target = pieces(model, "a circle", 8), pieces(model, "a red circle!", 8)
    matrix, own = alignment(source, target, "refine")
    expected = torch.zeros(8, 8)
    expected[0, 0] = expected[1, 1] = 1
    expected[2, 3] = 1  # circle
    expected[3, 5] = expected[4, 6] = 1  # <end>, and the padding in order
    expected[5:, 7] = 1
    assert torch.equal(matrix, expected)
    assert own.nonzero().flatten().tolist() == [2, 4]
    assert target.new(source) == (2, 4)


def test_words_that_were_left_out_pass_nothing_on(model: Any) -> None:
    source, target = pieces(model, "a red circle and a red square", 11), pieces(model, "a circle and a red square", 11)
    matrix, own = alignment(source, target, "refine")
    assert not own.any()
    assert matrix[2].sum() == 0
    assert [int(row.argmax()) for row in matrix[[0, 1, 3, 4, 5, 6, 7, 8]]] == list(range(8))


def test_the_same_prompt_is_aligned_with_itself(model: Any) -> None:
    read = pieces(model, "a red circle, a red square", 24)
    for kind in ("replace", "refine"):
        matrix, own = alignment(read, read, kind)  # type: ignore[arg-type]
        assert torch.equal(matrix, torch.eye(24))
        assert not own.any()


def test_replace_refuses_prompts_of_unequal_lengths(model: Any) -> None:
    a, b = pieces(model, "a circle", 8), pieces(model, "a red circle", 8)
    with pytest.raises(BadOption, match="has 2 words and 'a red circle' 3; use kind=refine"):
        alignment(a, b, "replace")


def test_who_cannot_tell_words_is_refused() -> None:
    with pytest.raises(Incompatible, match="editor p2p compares words, and scenes-ddpm takes no prompt"):
        tokenizer_of(unsample.load("scenes-ddpm"), "editor p2p")
    with pytest.raises(Incompatible, match="KolorsTokenizer"):
        tokenizer_of(unsample.load(ZOO["kolors"].built()), "editor p2p")


@pytest.mark.parametrize(("family", "length"), [("sdxl", 77), ("pixart_sigma", 300)])
def test_tokens_of_pipelines_are_those_of_their_condition(family: str, length: int) -> None:
    model = unsample.load(ZOO[family].built())
    read = pieces(model, "A cat", model.embed(["A cat"]).prompt_embeds.shape[1])
    start = 1 if family == "sdxl" else 0
    assert read.length == length
    assert read.tokens("cat") == tuple(range(start + 1, start + 5))  # each byte is a token, the space too
