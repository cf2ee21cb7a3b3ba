"""Tree-Ring: the key is there again without noise, and without the mark p is uniform, whatever the noise's strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tests.problems import seeded
from unsample.errors import BadInput, BadOption
from unsample.watermarks import TreeRing
from unsample.watermarks.chance import cosine_tail

SHAPE = (4, 16, 16)


def noises(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *shape, generator=seeded(seed))


def test_the_tail_of_a_cosine_is_students() -> None:
    for dimensions in (3, 9, 50, 317):
        for cosine in (-0.9, -0.1, 0.0, 0.05, 0.3, 0.9):
            t = cosine * np.sqrt((dimensions - 1) / (1 - cosine**2))
            assert cosine_tail(cosine, dimensions) == pytest.approx(stats.t.sf(t, dimensions - 1), rel=1e-4)
    assert cosine_tail(1.0, 9) == 0


@pytest.mark.parametrize("shape", [SHAPE, (3, 12, 20), (1, 9, 9)])
def test_a_marked_noise_holds_the_key_and_is_changed_nowhere_else(shape: tuple[int, int, int]) -> None:
    key = TreeRing.drawn(shape, 3, channel=shape[0] - 1, seed=1)
    noise = noises(4, shape)
    marked = key.embed(noise)
    assert max(key.distance(marked)) < 1e-6  # of float32
    assert max(key.p_values(marked)) < 1e-12
    assert torch.equal(marked[:, : shape[0] - 1], noise[:, : shape[0] - 1])
    where, values = key.pattern()
    spectra = [torch.fft.fft2(x[:, -1].double(), norm="ortho") for x in (marked, noise)]
    assert torch.allclose(spectra[0][:, ~where], spectra[1][:, ~where], atol=1e-5)
    assert torch.allclose(spectra[0][:, where].real, values.expand(4, -1), atol=1e-5)


def test_a_ring_has_one_value_and_the_disc_is_round() -> None:
    key = TreeRing(SHAPE, (1.0, 2.0, 3.0))
    where, values = key.pattern()
    assert where.sum() == 21  # within 2.5 of the middle of a lattice
    assert sorted(set(values.tolist())) == [1, 2, 3]
    assert [bool(where[place]) for place in ((0, 0), (2, 0), (-2, 0), (1, 2), (2, 2))] == [True] * 4 + [False]
    assert torch.equal(where, where.T)


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_without_the_mark_p_is_uniform(strength: float) -> None:
    key = TreeRing.drawn(SHAPE, 4, seed=2)
    found = key.p_values(strength * noises(1000, seed=3))
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_p_is_that_of_the_papers_statistic() -> None:
    """eta of many white noises of one length: the share below that of a noise is its p."""
    key = TreeRing.drawn(SHAPE, 2, seed=4)
    one = 0.9 * noises(1, seed=5) + 0.2 * key.embed(noises(1, seed=6))

    def eta(noise: torch.Tensor) -> np.ndarray:
        found, values = key.read(noise)
        return ((found - values).abs().square().sum(1) / found.abs().square().mean(1)).numpy()

    others = noises(20_000, (1, 16, 16), seed=7)
    small = TreeRing((1, 16, 16), key.rings)
    found, values = small.read(others)
    length = key.read(one)[0].abs().square().sum().sqrt()
    found = found * (length / found.abs().square().sum(1, keepdim=True).sqrt())
    drawn = ((found - values).abs().square().sum(1) / found.abs().square().mean(1)).numpy()
    assert key.p_values(one)[0] == pytest.approx(float((drawn <= eta(one)).mean()), abs=0.015)  # four standard errors


def test_a_seed_gives_the_same_key_and_none_gives_others() -> None:
    assert TreeRing.drawn(SHAPE, 4, seed=1) == TreeRing.drawn(SHAPE, 4, seed=1) != TreeRing.drawn(SHAPE, 4, seed=2)
    assert TreeRing.drawn(SHAPE, 4) != TreeRing.drawn(SHAPE, 4)


def test_what_cannot_be_is_refused() -> None:
    for made in (
        lambda: TreeRing.drawn(SHAPE, 8),  # would reach half of the side
        lambda: TreeRing.drawn(SHAPE, 0),
        lambda: TreeRing.drawn(SHAPE, 2, channel=4),
        lambda: TreeRing.drawn((16, 16), 2),  # type: ignore[arg-type]
        lambda: TreeRing(SHAPE, (0.0, 0.0)),
        lambda: TreeRing(SHAPE, (1.0, float("nan"))),
    ):
        with pytest.raises(BadOption):
            made()
    key = TreeRing.drawn(SHAPE, 3, seed=0)
    with pytest.raises(BadInput, match="4, 16, 16"):
        key.embed(noises(1, (4, 8, 8)))
    with pytest.raises(BadInput, match="no direction"):
        key.p_values(torch.zeros(1, *SHAPE))
