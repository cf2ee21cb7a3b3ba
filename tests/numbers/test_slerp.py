"""Spherical interpolation: its ends, its middle, its special cases, picture by picture."""

from __future__ import annotations

import math

import pytest
import torch

from tests.problems import normal, rms
from unsample.errors import BadOption
from unsample.numbers.slerp import slerp

SHAPE = (3, 4, 16, 16)


def test_the_ends_are_the_two_noises_digit_for_digit() -> None:
    a, b = normal(*SHAPE, dtype=torch.float32), normal(*SHAPE, seed=1, dtype=torch.float32)
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.equal(slerp(a, b, 1.0), b)


def test_the_length_of_noise_is_kept_where_a_straight_line_would_lose_it() -> None:
    a, b = normal(*SHAPE), normal(*SHAPE, seed=1)
    assert rms(slerp(a, b, 0.5)) == pytest.approx(1, abs=0.03)  # the two lengths and their angle vary by 1/sqrt(1024)
    assert rms((a + b) / 2) == pytest.approx(0.5**0.5, abs=0.03)


def test_on_the_unit_circle_the_angle_is_shared_out() -> None:
    at = lambda angle: torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)  # noqa: E731
    for t in (0.25, 0.5, 0.9):
        assert rms(slerp(at(0), at(2), t) - at(2 * t)) < 1e-15  # rounding


def test_parallel_opposite_and_zero_noises_are_interpolated_linearly() -> None:
    a = normal(1, 4, 8, 8)
    for b in (a.clone(), 2 * a, -a, torch.zeros_like(a)):
        middle = slerp(a, b, 0.5)
        assert middle.isfinite().all()
        assert rms(middle - (a + b) / 2) < 1e-12  # rounding


def test_every_picture_has_its_own_angle() -> None:
    a, b = normal(*SHAPE), normal(*SHAPE, seed=1)
    b[1] = a[1]
    together = slerp(a, b, 0.3)
    for k in range(3):
        assert rms(together[k] - slerp(a[k : k + 1], b[k : k + 1], 0.3)[0]) < 1e-15  # the order of a sum


def test_a_row_of_pixels_may_have_its_own_angle() -> None:
    a, b = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    found = slerp(a, b, 0.3, slerp_dim="row")
    for k in range(2):
        for c in range(3):
            for y in range(4):
                p, q = a[k, c, y], b[k, c, y]
                theta = math.acos(float(p @ q / p.norm() / q.norm()))
                row = (math.sin(0.7 * theta) * p + math.sin(0.3 * theta) * q) / math.sin(theta)
                assert rms(found[k, c, y] - row) < 1e-12  # rounding
    assert rms(found - slerp(a, b, 0.3)) > 0.01


def test_another_axis_is_refused() -> None:
    with pytest.raises(BadOption, match="'sample' or 'row'"):
        slerp(normal(1, 2), normal(1, 2), 0.5, slerp_dim="column")  # type: ignore[arg-type]
