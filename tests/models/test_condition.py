"""Conditions of named rows: joined, picked, padded where their lengths differ."""

from __future__ import annotations

import pytest
import torch

from unsample.errors import Incompatible
from unsample.models.base import Condition


def of_length(length: int, value: float) -> Condition:
    """One row."""
    return Condition(
        torch.full((1, length, 2), value), more={"mask": torch.ones(1, length), "pooled": torch.ones(1, 3)}
    )


def test_rows_of_one_length_are_laid_below_each_other_as_they_are() -> None:
    both = of_length(3, 1.0).joined(of_length(3, 2.0))
    assert both.named.keys() == {"prompt_embeds", "mask", "pooled"}
    assert torch.equal(both.prompt_embeds[:, 0, 0], torch.tensor([1.0, 2.0]))


def test_rows_of_other_lengths_are_padded_and_tell_their_lengths() -> None:
    three = of_length(2, 1.0).joined(of_length(4, 2.0)).joined(of_length(1, 3.0))
    assert three.prompt_embeds.shape == (3, 4, 2)
    assert three.more["prompt_embeds.length"].tolist() == three.more["mask.length"].tolist() == [2, 4, 1]
    assert "pooled.length" not in three.more
    picked = three.rows(torch.tensor([2, 0]))
    assert picked.more["prompt_embeds.length"].tolist() == [1, 2]
    assert torch.equal(picked.prompt_embeds[0], torch.tensor([[3.0, 3.0], [0, 0], [0, 0], [0, 0]]))


def test_what_one_half_lacks_is_named() -> None:
    with pytest.raises(Incompatible, match="negative_pooled"):
        of_length(2, 1.0).joined(Condition(torch.ones(1, 2, 2), more={"mask": torch.ones(1, 2)}))
