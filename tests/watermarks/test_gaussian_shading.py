"""Gaussian Shading: the message is there again, the noise stays N(0, 1), and without the mark p is binomial."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tests.problems import seeded
from unsample.errors import BadInput, BadOption
from unsample.watermarks import GaussianShading
from unsample.watermarks.chance import binomial_tail, majority

SHAPE = (4, 16, 16)


def noises(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=seeded(seed))


def test_the_tail_of_a_binomial() -> None:
    for draws in (1, 16, 256):
        for hits in (0, draws // 2, draws):
            expected = stats.binom.sf(hits - 1, draws, 0.45)
            assert binomial_tail(hits, draws, 0.45) == pytest.approx(expected, rel=1e-9)
    assert [majority(n) for n in (1, 2, 3, 4)] == [0.5, 0.25, 0.5, 5 / 16]


@pytest.mark.parametrize(("channels", "sides"), [(1, 8), (4, 4), (2, 1)])
def test_a_marked_noise_holds_the_message(channels: int, sides: int) -> None:
    key = GaussianShading.drawn(SHAPE, channel_copies=channels, side_copies=sides, seed=1)
    assert len(key.message) == 4 * 16 * 16 // (channels * sides**2)
    marked = key.embed(noises(3))
    assert key.accuracy(marked) == [1.0] * 3
    assert max(key.p_values(marked)) <= (0.5 ** len(key.message)) * 1.001
    other = GaussianShading(SHAPE, key.message, "0" * 64, key.nonce, channels, sides)
    assert max(other.accuracy(marked)) < 0.95, "another secret reads another message"


def test_a_bit_is_said_by_the_majority_of_its_copies() -> None:
    key = GaussianShading.drawn(SHAPE, side_copies=4, seed=1)
    marked = key.embed(noises(1))
    places = [(0, 4 * a, 4 * b) for a in range(4) for b in range(4)]  # the copies of the first bit lie 4 apart
    for said, hits in ((7, 64), (8, 63), (9, 63)):  # half of sixteen say no more than nothing
        turned = marked.clone()
        for place in places[:said]:
            turned[(0, *place)] *= -1
        assert int(key.right(turned).sum()) == hits
        assert bool(key.right(turned)[0, 0]) is (hits == 64)


def test_a_marked_noise_is_noise() -> None:
    values = GaussianShading.drawn(SHAPE, seed=3).embed(noises(60)).flatten().numpy()
    assert stats.kstest(values[::7], "norm").pvalue > 0.01


@pytest.mark.parametrize("sides", [1, 4])
def test_without_the_mark_the_right_bits_are_binomial(sides: int) -> None:
    key = GaussianShading.drawn((4, 4, 4), side_copies=sides, seed=4)
    noise = torch.randn(4000, 4, 4, 4, generator=seeded(5))
    hits, found = key.right(noise).sum(1).numpy(), np.array(key.p_values(noise))
    count, chance = len(key.message), majority(key.copies)
    bounds = stats.binom.ppf([0.05, 0.2, 0.5, 0.8, 0.95, 1], count, chance)
    bounds = np.unique(bounds)  # the hits below each: counted, and by the law
    law = np.diff(stats.binom.cdf(bounds, count, chance), prepend=0)
    seen = np.diff([(hits <= bound).sum() for bound in bounds], prepend=0)
    assert stats.chisquare(seen, law * len(hits)).pvalue > 0.01
    assert found == pytest.approx(stats.binom.sf(hits - 1, count, chance), rel=1e-6)
    for level in (0.05, 0.2, 0.5):
        assert (found <= level).mean() <= level + 0.02  # of discrete values p is no smaller than it should be


def test_a_seed_gives_the_same_key_and_none_gives_others() -> None:
    assert GaussianShading.drawn(SHAPE, seed=1) == GaussianShading.drawn(SHAPE, seed=1)
    a, b = GaussianShading.drawn(SHAPE), GaussianShading.drawn(SHAPE)
    assert a.secret != b.secret
    assert GaussianShading.drawn(SHAPE, message="01" * 8).message == "01" * 8


def test_what_cannot_be_is_refused() -> None:
    whole = GaussianShading.drawn(SHAPE, seed=0)
    for made in (
        lambda: GaussianShading.drawn(SHAPE, side_copies=3),
        lambda: GaussianShading.drawn(SHAPE, channel_copies=3),
        lambda: GaussianShading.drawn(SHAPE, channel_copies=0),
        lambda: GaussianShading.drawn(SHAPE, message="0101"),
        lambda: GaussianShading(SHAPE, "x" * 16, whole.secret, whole.nonce),
        lambda: GaussianShading(SHAPE, whole.message, "abc", whole.nonce),
        lambda: GaussianShading(SHAPE, whole.message, whole.secret, "xy"),
    ):
        with pytest.raises(BadOption):
            made()
    with pytest.raises(BadInput, match="4, 16, 16"):
        whole.accuracy(torch.zeros(1, 4, 8, 8))
