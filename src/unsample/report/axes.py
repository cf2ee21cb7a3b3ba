"""The scales of a plot: from values to pixels, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SPAN = 20  # a ratio of errors from which on a logarithmic axis shows more


@dataclass(frozen=True)
class Axis:
    """A scale from `low` at pixel `start` to `high` at pixel `end`."""

    ticks: Sequence[float]
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where a value stands; infinite ones at the ends."""
        if math.isinf(value):
            return self.end if value > 0 else self.start
        low, high, v = (math.log(x) if self.logarithmic else x for x in (self.low, self.high, value))
        return self.start + (v - low) / (high - low) * (self.end - self.start)


def cost_axis(costs: Sequence[float], start: float, end: float) -> Axis:
    """Logarithmic, with more room on the right, where the labels stand."""
    low, high = min(costs) / 1.4, max(costs) * 1.9
    ticks = [m * 10.0**k for k in range(-1, 9) for m in (1, 2, 5) if low <= m * 10.0**k <= high]
    ticks = ticks if len(ticks) <= 7 else [t for t in ticks if math.log10(t).is_integer()]
    return Axis(ticks, low, high, start, end, logarithmic=True)


def value_axis(values: Sequence[float], start: float, end: float, *, error: bool) -> Axis:
    """Room for all values, which are finite; errors that span more than a factor of 20 stand on a logarithmic axis."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if error and low > 0 and high / low > SPAN:
        low, high = low / 1.5, high * 1.5
        ticks = [10.0**k for k in range(-30, 30) if low <= 10.0**k <= high]
        return Axis(ticks[:: 1 + len(ticks) // 7], low, high, start, end, logarithmic=True)
    spare = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return Axis(round_ticks(low - spare, high + spare), low - spare, high + spare, start, end)


def round_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, three to six of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= (high - low) / 5)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
