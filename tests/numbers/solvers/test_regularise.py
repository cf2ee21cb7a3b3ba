"""The regularisers' closed-form gradients against automatic differentiation of losses written another way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.problems import normal, rms, seeded
from unsample.numbers.solvers.regularise import (
    KL_FLOOR,
    PATCH_FLOOR,
    autocorrelation_gradient,
    autocorrelation_loss,
    draw_rolls,
    kl_gradient,
    level_sides,
    match_patches,
    normalise,
    patch_kl_gradient,
    patches,
    whiten,
)

SHAPES = pytest.mark.parametrize("shape", [(3, 8, 8), (2, 17, 20), (1, 32, 32), (2, 4, 6)])


def rolls_of(shape: tuple[int, int, int], count: int = 2, lowest: int = 1) -> Tensor:
    return draw_rolls([seeded(k) for k in range(count)], (), shape, lowest)


def loop_loss(eps: Tensor, rolls: Tensor) -> Tensor:
    """L_ac of one picture as pix2pix-zero tells it: channel by channel, level by level, `torch.roll`."""
    total = torch.zeros((), dtype=eps.dtype)
    for c in range(len(eps)):
        x = eps[c][None, None]
        for level in range(rolls.shape[-1]):
            r = int(rolls[c, level])
            total = total + (x * torch.roll(x, r, 2)).mean() ** 2 + (x * torch.roll(x, r, 3)).mean() ** 2
            x = F.avg_pool2d(x, 2)
    return total


@SHAPES
def test_the_autocorrelation_and_its_gradient_are_those_of_the_definition(shape: tuple[int, int, int]) -> None:
    eps, rolls = normal(2, *shape) + 0.3, rolls_of(shape)
    leaf = eps.clone().requires_grad_(True)
    losses = torch.stack([loop_loss(leaf[b], rolls[b]) for b in range(2)])
    losses.sum().backward()
    assert rms(autocorrelation_loss(eps, rolls) - losses.detach()) < 1e-14
    assert leaf.grad is not None
    assert rms(autocorrelation_gradient(eps, rolls) - leaf.grad) < 1e-15


@SHAPES
def test_the_divergences_have_the_gradients_of_their_definitions(shape: tuple[int, int, int]) -> None:
    eps, other = 0.7 * normal(2, *shape) + 0.3, normal(2, *shape, seed=9)
    leaf = eps.clone().requires_grad_(True)
    variance = torch.stack([e.var() for e in leaf])
    (variance + torch.stack([e.mean() for e in leaf]) ** 2 - 1 - torch.log(variance + KL_FLOOR)).sum().backward()
    assert leaf.grad is not None
    assert rms(kl_gradient(eps) - leaf.grad) < 1e-15
    leaf = patches(eps).clone().requires_grad_(True)
    far = patches(other)
    u, v = leaf.var(-1), far.var(-1)
    apart = (leaf.mean(-1) - far.mean(-1)) ** 2
    (torch.log((v + PATCH_FLOOR) / (u + PATCH_FLOOR)) + (u + apart) / (v + PATCH_FLOOR) - 1).abs().sum().backward()
    assert leaf.grad is not None
    assert rms(patch_kl_gradient(patches(eps), far) - leaf.grad) < 1e-13


def test_a_step_is_the_published_one_where_it_descends() -> None:
    eps, other, rolls = normal(2, 4, 32, 32), normal(2, 4, 32, 32, seed=5), rolls_of((4, 32, 32))
    assert torch.equal(whiten(eps, rolls, 4.0), eps - 4.0 * autocorrelation_gradient(eps, rolls))
    assert torch.equal(normalise(eps * 1.2, 20.0), eps * 1.2 - 20.0 * kl_gradient(eps * 1.2))
    moved = patches(eps) - 0.065 * patch_kl_gradient(patches(eps), patches(other)).clamp(-100, 100)
    assert torch.equal(patches(match_patches(eps, other, 0.065)), moved)


def test_on_a_nearly_constant_eps_the_published_step_runs_away_and_ours_does_not() -> None:
    """As of a plain picture; the authors' steps jump by 0.065 x 100, to and fro."""
    eps, other = 0.1 + 1e-3 * normal(1, 4, 8, 8), 0.3 + 1e-3 * normal(1, 4, 8, 8, seed=5)
    theirs = patches(eps) - 0.065 * patch_kl_gradient(patches(eps), patches(other)).clamp(-100, 100)
    ours = eps
    for _ in range(4):
        ours = match_patches(ours, other, 0.065)
    assert float(theirs.abs().max()) > 6
    assert float(ours.abs().max()) < 0.5
    assert float(whiten(3 + 0 * eps, rolls_of((4, 8, 8), 1), 4.0).abs().max()) <= 3
    assert float(normalise(eps, 20.0).abs().max()) < 1


def test_whitening_lowers_the_correlation_of_neighbours() -> None:
    noise = normal(1, 4, 32, 32)
    eps = (noise + noise.roll(1, -1)) / 2**0.5  # correlation 0.5 along rows
    before = float((eps * eps.roll(1, -1)).mean())
    for k in range(200):
        eps = whiten(eps, draw_rolls([seeded(k)], (), (4, 32, 32), 1).clamp(max=1), 20.0)
    assert before == pytest.approx(0.5, abs=0.05)
    assert float((eps * eps.roll(1, -1)).mean()) < 0.8 * before


def test_rolls_are_drawn_from_the_half_open_range_and_each_picture_has_its_own() -> None:
    for lowest in (0, 1):
        rolls = draw_rolls([seeded(1), seeded(2)], (500,), (4, 32, 16), lowest)
        assert rolls.shape == (2, 500, 4, 2)  # levels of side 16 and 8: the shorter side counts
        assert level_sides((4, 32, 16)) == [16, 8]
        for level, side in enumerate((16, 8)):
            assert set(rolls[..., level].unique().tolist()) == set(range(lowest, side // 2))
        assert not torch.equal(rolls[0], rolls[1])
        assert torch.equal(draw_rolls([seeded(2)], (500,), (4, 32, 16), lowest)[0], rolls[1])


def test_pictures_are_regularised_each_by_itself() -> None:
    eps, other, rolls = 0.5 * normal(3, 2, 8, 8), normal(3, 2, 8, 8, seed=5), rolls_of((2, 8, 8), 3)
    for k in range(3):
        row = slice(k, k + 1)
        assert rms(whiten(eps, rolls, 4.0)[row] - whiten(eps[row], rolls[row], 4.0)) < 1e-15
        assert rms(normalise(eps, 2.0)[row] - normalise(eps[row], 2.0)) < 1e-15
        assert rms(match_patches(eps, other, 0.1)[row] - match_patches(eps[row], other[row], 0.1)) < 1e-15
