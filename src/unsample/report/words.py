"""How numbers and others' text are written: the same on the page and in Markdown."""

from __future__ import annotations

import math
import re
from typing import Any

from unsample.report.statistics import Interval

NOTHING = "–"
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: object, longest: int | None = None) -> str:
    """Others' text without control characters and without those that turn the direction of writing."""
    seen = _UNSEEN.sub("", str(text).replace("\r\n", "\n"))
    return seen if longest is None or len(seen) <= longest else seen[: longest - 1] + "…"


def line(text: object, longest: int | None = None) -> str:
    """The same on one line."""
    return plain(" ".join(str(text).split()), longest)


def number(value: float | None, unit: str = "") -> str:
    """Four significant digits, two places for decibels; an infinite PSNR is `exact`, a lost median `diverged`."""
    if value is None:
        return NOTHING
    if math.isinf(value):
        return "exact" if unit == "dB" and value > 0 else "diverged"
    if value == 0 and unit != "dB":
        return "0"
    text = f"{round(value, 2) + 0.0:.2f}" if unit == "dB" else f"{value:#.4g}"  # + 0.0: no minus before a zero
    return _short(text.removesuffix("."))


def tick(value: float) -> str:
    """A number on an axis."""
    return _short(f"{value:.6g}")


def bounds(interval: Interval | None, unit: str = "") -> str:
    """`[low, high]`, or nothing where there was one item, or all give the same."""
    if interval is None or interval.low is None or interval.high is None or interval.low == interval.high:
        return ""
    return f"[{_bound(interval.low, unit)}, {_bound(interval.high, unit)}]"


def gap(interval: Interval | None, unit: str = "") -> str:
    """A difference with its sign and interval."""
    if interval is None:
        return NOTHING
    return f"{_signed(interval.value, unit)} {_signed_bounds(interval, unit)}".rstrip()


def whole(value: float | None) -> str:
    """A count or a mean of counts."""
    return NOTHING if value is None else f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def percent(share: float | None) -> str:
    """A share, rounded down to a tenth: 100 % is all of them."""
    if share is None:
        return NOTHING
    return "< 0.1 %" if 0 < share < 0.001 else f"{math.floor(1000 * share + 1e-9) / 10:g} %"


def count(many: int, noun: str) -> str:
    """`1 item`, `2 items`."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def setting(value: Any) -> str:
    """A value of the plan."""
    if isinstance(value, dict):
        return ", ".join(f"{k}={setting(v)}" for k, v in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(setting(v) for v in value) or NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return NOTHING
    return f"{value:g}" if isinstance(value, float) else line(value, 500)


def _short(text: str) -> str:
    """With a minus sign for a hyphen, and exponents without leading zeros."""
    text = re.sub(r"e([+-])0*(\d)", lambda match: f"e{match[1].strip('+')}{match[2]}", text)
    return f"−{text[1:]}" if text.startswith("-") else text


def _bound(value: float, unit: str) -> str:
    return number(value, unit) if math.isfinite(value) else "exact" if unit == "dB" and value > 0 else "−∞"


def _signed(value: float, unit: str) -> str:
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    return ("+" if value > 0 else "") + number(value, unit)


def _signed_bounds(interval: Interval, unit: str) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"[{_signed(interval.low, unit)}, {_signed(interval.high, unit)}]"
