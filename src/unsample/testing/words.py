"""How a check fails: in plain words, with Python's own `assert` switched off too."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


def must(holds: object, otherwise: str) -> None:
    """Fail where something does not hold.

    Raises:
        AssertionError: it says `otherwise`.
    """
    if not holds:
        raise AssertionError(otherwise)


def must_refuse(
    error: type[Exception], pattern: str, what: str, call: Callable[..., Any], *args: Any, **more: Any
) -> None:
    """Fail where a call is not refused by an error whose message has a pattern.

    Raises:
        AssertionError: nothing was raised, another error, or another message.
    """
    wanted = f"{what} must be refused by {error.__name__} saying {pattern!r}"
    try:
        call(*args, **more)
    except Exception as found:
        said = f"{type(found).__name__}: {found}"
        must(isinstance(found, error) and re.search(pattern, str(found)), f"{wanted}; it was by {said}")
        return
    raise AssertionError(f"{wanted}; it went through")


def must_be_near(a: Tensor, b: Tensor, most: float, what: str) -> None:
    """Fail where two tensors differ by more than `most` in RMS."""
    off = rms(a - b)
    must(off <= most, f"{what} differ by {off:.2g} in RMS, and {most:.2g} is what rounding makes of it")


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.double().square().mean().sqrt())


@contextmanager
def heard() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings while it lasts, none of which is an error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield said
