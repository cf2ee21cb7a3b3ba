"""A function of pictures that remembers its last answers: several metrics ask for the same of one batch."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 4  # result, source, truth and what is inside the mask
Answer = TypeVar("Answer")


class Remembered(Generic[Answer]):
    """Calls `compute` once for a tensor that is still alive and unchanged, and the same further arguments."""

    def __init__(self, compute: Callable[..., Answer]) -> None:
        self._compute = compute
        self._known: deque[tuple[weakref.ref[Tensor], int, tuple[Any, ...], Answer]] = deque(maxlen=KEPT)

    def __call__(self, images: Tensor, *more: Any) -> Answer:
        """The answer for this very tensor; one that was written to since counts as another."""
        for given, version, others, answer in self._known:
            if given() is images and version == images._version and others == more:
                return answer
        answer = self._compute(images, *more)
        self._known.append((weakref.ref(images), images._version, more, answer))
        return answer
