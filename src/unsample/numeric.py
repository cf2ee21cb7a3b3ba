"""What counts as a number (Python's and numpy's, and neither True nor False), and what as a text."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number by its type."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: object) -> TypeGuard[float]:
    """Whether it is a real number by its type; nan and infinity are."""
    return isinstance(value, Real) and not isinstance(value, bool)


def finite(value: float | None) -> float | None:
    """The number, or None for nan, infinity and None: what JSON has."""
    return value if value is not None and math.isfinite(value) else None


def is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text that can be written: a half of a surrogate pair, which JSON lets through, cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
