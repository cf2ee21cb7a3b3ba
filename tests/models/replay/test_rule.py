"""How predictions are joined is read off noise, and said only where it is exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unsample.models.replay.rule import FORMS, rule_of

Told = list[tuple[list[Tensor], Tensor, Tensor]]


def told(joined: Callable[[Tensor, Tensor, int], Tensor]) -> Told:
    """Three steps of an unconditional and a conditional answer, as `record` makes them: far, and nearly alike."""
    g, found = torch.Generator().manual_seed(0), []
    for step, other in enumerate((None, 1.1, 0.9)):
        bound, noise, x = (torch.randn(1, 4, 8, 8, generator=g) for _ in range(3))
        free = noise if other is None else other * bound + 0.03 * noise
        found.append(([free, bound], joined(free, bound, step), x))
    return found


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("sign", [1, -1])
def test_every_known_form_is_recognised_with_its_scale_and_sign(name: str, sign: int) -> None:
    def joined(free: Tensor, bound: Tensor, step: int) -> Tensor:
        return sign * FORMS[name](free + 3.5 * (bound - free), bound, 0.7)

    found = rule_of(told(joined), 0, 1)
    assert found is not None
    assert (found.name, found.sign) == (name, sign)
    assert found.scale == pytest.approx(3.5, rel=1e-4)
    assert found.phi == pytest.approx(0.7 if name == "rescale" else 0, abs=1e-3)


def test_it_holds_for_each_picture_of_a_batch_alone() -> None:
    g = torch.Generator().manual_seed(1)
    free, bound = (
        torch.randn(2, 4, 8, 8, generator=g) * torch.tensor([1.0, 9.0]).reshape(2, 1, 1, 1) for _ in range(2)
    )
    for name in FORMS:
        rule = rule_of(told(lambda f, b, _, n=name: FORMS[n](f + 2 * (b - f), b, 0.5)), 0, 1)
        assert rule is not None
        alone = torch.cat([rule(free[k : k + 1], bound[k : k + 1], 2.0) for k in range(2)])
        assert torch.allclose(rule(free, bound, 2.0), alone)


def test_rules_that_remember_or_change_are_no_rule_of_ours() -> None:
    before: list[Tensor] = []

    def momentum(free: Tensor, bound: Tensor, step: int) -> Tensor:
        before.append(bound - free)
        return free + 3 * before[-1] + sum(0.5 * d for d in before[:-1])

    assert rule_of(told(momentum), 0, 1) is None
    assert rule_of(told(lambda f, b, step: f + (3 + step) * (b - f)), 0, 1) is None
    assert rule_of(told(lambda f, b, step: (f + 3 * (b - f)).clamp(-1, 1)), 0, 1) is None
