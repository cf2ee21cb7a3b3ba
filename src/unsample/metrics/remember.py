"""A function of pictures that remembers its last answers: several metrics ask for the features of one batch."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 4  # result, source, truth and what is inside the mask


class Remembered:
    """Calls `compute` once for a tensor that is still alive and unchanged."""

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        self._compute = compute
        self._known: deque[tuple[weakref.ref[Tensor], int, Tensor]] = deque(maxlen=KEPT)

    def __call__(self, images: Tensor) -> Tensor:
        """The answer for this very tensor; one that was written to since counts as another."""
        for given, version, answer in self._known:
            if given() is images and version == images._version:
                return answer
        answer = self._compute(images)
        self._known.append((weakref.ref(images), images._version, answer))
        return answer
