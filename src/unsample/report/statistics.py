"""What is said of many values: mean, median, and intervals by the seeded percentile bootstrap.

The items are drawn again with replacement, 2,000 times, and the interval runs between the 2.5th and 97.5th percentile
of what the drawn items give (Efron, 1979). Two methods are compared on the same drawn items, so what makes an item
hard for both cancels. The draws depend on the number of items alone: a report made twice is the same.

Decibels are never averaged: `PSNR = -10 log10(mean MSE)` with MSE = 0 for an exact picture, and the median of the
decibels, in which an exact picture is infinite. So exact pictures are neither dropped nor capped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[Any]

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
CHUNK = 2_000_000  # items drawn at once
KEPT = 20_000  # items up to which draws are kept: 40 MB


@dataclass(frozen=True)
class Interval:
    """A value and the interval it lies in at 95 %; None where there are fewer than two items to draw from."""

    value: float
    low: float | None = None
    high: float | None = None

    def clearly_below(self, limit: float) -> bool:
        """Whether the whole interval lies below; never, where there is none."""
        return self.high is not None and self.high < limit

    def clearly_above(self, limit: float) -> bool:
        """Whether the whole interval lies above."""
        return self.low is not None and self.low > limit


def median(values: Sequence[float], worst: int = 0, higher_is_better: bool = True) -> float | None:
    """The median, of infinite values too; `worst` more pictures diverged and count as worse than any value.

    None where there is nothing. It is infinite, on the bad side, where most diverged.
    """
    bad = -math.inf if higher_is_better else math.inf
    ordered = sorted([*values, *[bad] * worst])
    if not ordered:
        return None
    middle = len(ordered) // 2
    low, high = ordered[middle - 1 + len(ordered) % 2], ordered[middle]
    return low if low == high else (low + high) / 2 if math.isfinite(low + high) else _worse(low, high, bad)


def _worse(low: float, high: float, bad: float) -> float:
    """Of two middle values, one infinite, the worse: there is nothing halfway between a number and infinity."""
    return low if bad < 0 else high


def mean(values: Sequence[float]) -> Interval | None:
    """The arithmetic mean and its interval."""
    if not values:
        return None
    drawn = _drawn_means([values])
    return Interval(math.fsum(values) / len(values), *_percentiles(drawn[:, 0]) if len(values) > 1 else ())


def mean_difference(values: Sequence[float], others: Sequence[float]) -> Interval | None:
    """The mean of `values - others`, which are of the same items in the same order."""
    return mean([a - b for a, b in zip(values, others, strict=True)])


def mean_ratio(values: Sequence[float], others: Sequence[float]) -> Interval | None:
    """The mean of `values` over that of `others`, of the same items in the same order and drawn together.

    None where there are no items, or where the others' mean is 0 in any draw.
    """
    if not values:
        return None
    drawn = _drawn_means([values, others])
    if math.fsum(others) == 0 or not drawn[:, 1].all():
        return None
    ratio = math.fsum(values) / math.fsum(others)
    return Interval(ratio, *_percentiles(drawn[:, 0] / drawn[:, 1]) if len(values) > 1 else ())


def squared_error(decibels: float) -> float:
    """The MSE of a picture of that PSNR at peak 1: 0 for an exact one."""
    return 10 ** (-decibels / 10)


def decibels(squared: float) -> float:
    """The PSNR of an MSE at peak 1: infinite for 0."""
    return math.inf if squared == 0 else -10 * math.log10(squared)


def psnr_of_mean_mse(values: Sequence[float]) -> Interval | None:
    """`-10 log10(mean(10^(-PSNR/10)))` of decibels, exact pictures (infinite) included, and its interval."""
    of_mse = mean([squared_error(v) for v in values])
    if of_mse is None:
        return None
    low, high = (None if v is None else decibels(v) for v in (of_mse.high, of_mse.low))
    return Interval(decibels(of_mse.value), low, high)


def psnr_difference(values: Sequence[float], others: Sequence[float]) -> Interval | None:
    """The difference in decibels of two PSNRs of the mean MSE over the same items, drawn together.

    Where both are exact the difference is 0, where one is it is infinite.
    """
    if len(values) != len(others):
        raise ValueError(f"a paired difference needs the same items; got {len(values)} and {len(others)} values")
    if not values:
        return None
    pair = [[squared_error(v) for v in side] for side in (values, others)]
    whole = _gap(*(math.fsum(side) / len(side) for side in pair))
    if len(values) == 1:
        return Interval(whole)
    import numpy as np

    drawn = _drawn_means(pair)
    return Interval(whole, *_percentiles(np.array([_gap(float(a), float(b)) for a, b in drawn])))


def beyond_chance(lost: int, items: int) -> bool:
    """Whether `lost` diverged items are too many to pass as equal: over 97.5 % of the draws hold at least one.

    One diverged item is infinitely bad, so the interval of a mean that can include one reaches to infinity, and all
    of it lies there once draws without one are rarer than the interval's edge. From four items on.
    """
    return lost > 0 and (1 - min(lost, items) / items) ** items < (1 - LEVEL) / 2


def _gap(squared: float, other: float) -> float:
    """PSNR of one MSE over that of another."""
    return 0.0 if squared == other else decibels(squared) - decibels(other)


def _percentiles(drawn: Numbers) -> tuple[float, float]:
    """Percentiles that are drawn values, not between two of them: between infinity and a number there is nothing."""
    import numpy as np

    edge = (1 - LEVEL) / 2
    low = np.quantile(drawn, edge, method="lower")
    return float(low), float(np.quantile(drawn, 1 - edge, method="higher"))


def _drawn_means(columns: Sequence[Sequence[float]]) -> Numbers:
    """The means of each column (all of the same items) over the drawn items: (RESAMPLES, columns)."""
    import numpy as np

    values = np.array(columns, dtype=np.float64).T  # (items, columns)
    # counts times values: an item counts as often as it was drawn
    return np.concatenate([counts.astype(np.float64) @ values for counts in _draws(len(values))]) / len(values)


def _draws(items: int) -> Iterable[Numbers]:
    """How often each item was drawn, in portions: (draws, items), a byte each. The same draws serve every column."""
    return _kept_draws(items) if items <= KEPT else _fresh_draws(items)


@lru_cache(maxsize=4)
def _kept_draws(items: int) -> tuple[Numbers, ...]:
    return tuple(_fresh_draws(items))


def _fresh_draws(items: int) -> Iterator[Numbers]:
    import numpy as np

    generator = np.random.default_rng(SEED)
    portion = max(1, CHUNK // items)
    for start in range(0, RESAMPLES, portion):
        draws = min(portion, RESAMPLES - start)
        drawn = generator.integers(0, items, (draws, items)) + np.arange(draws)[:, None] * items
        counts = np.bincount(drawn.ravel(), minlength=draws * items)
        yield counts.reshape(draws, items).astype(np.uint8)  # a count over 255 is not to be met
