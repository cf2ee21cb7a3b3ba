"""What roundtrip_vs_noise computes, and that no method is forgotten."""

from __future__ import annotations

import random

import pytest

from unsample.methods import METHODS as ALL
from unsample.studies.roundtrip_vs_noise import LEFT_OUT, METHODS, OF_FLOW, REFERENCES, rank_correlation


def test_every_method_runs_or_is_left_out_for_a_reason() -> None:
    run = {name.partition("[")[0] for name in (*METHODS, *OF_FLOW, *REFERENCES)} - {"zero"}
    assert not run & {*LEFT_OUT}
    assert run | {*LEFT_OUT} == {name for name in ALL if ALL[name].factory.__module__.startswith("unsample.")}


def test_rank_correlation_is_that_of_scipy_with_ties_too() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = random.Random(0)
    a, b = ([float(draw.randrange(8)) for _ in range(20)] for _ in range(2))
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rank_correlation([1, 2, 3], [10, 200, 3000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1], [1, 2]) is None
