"""What a probe asks of the network itself: the prediction under the prompts of its batch, unguided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsample.models.guidance import Predict


@contextmanager
def asking(model: Any, steps: int, prompts: Sequence[str] | None, count: int) -> Iterator[Predict]:
    """`predict(x, i)` for `count` pictures on the model's grid (`predict.grid`), while it lasts without gradients."""
    from unsample.models.guidance import Predict
    from unsample.verbs.prompts import Prompts
    from unsample.verbs.running import quiet

    own = model.at(tuple(model.sample_shape), steps)
    with quiet(own):
        condition, free = Prompts(None if prompts is None else list(prompts)).conditions(own, count, 1.0)
        yield Predict(own, own.grid(steps), condition, free, 1.0, count)
