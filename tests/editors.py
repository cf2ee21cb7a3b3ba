"""An editor for tests: after every step an edit goes a share of the way to its source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from torch import Tensor

from unsample.edits import EDITORS, Branches, Editor, Setting, Steering, configured, register


@configured
def pull(
    share: Annotated[float, Setting("of the way to the source; 1 is the reconstruction.", high=1)] = 0.5,
) -> Editor:
    """Pull an edit to its source."""

    class Pulled(Steering):
        halves = ()

        def __init__(self, branches: Branches) -> None:
            self.sources = [branches.count + s for s in branches.source_of]

        def after(self, k: int, j: int, x: Tensor, state: Any) -> tuple[Tensor, Any]:
            import torch

            count = len(self.sources)
            return torch.cat([torch.lerp(x[:count], x[self.sources], share), x[count:]]), state

    return Editor(steer=Pulled, needs_source_prompt=True)


@contextmanager
def registered() -> Iterator[None]:
    """`pull` in the table, and afterwards not."""
    register(pull, summary="a pull", equation="x + s (y - x)", cost="a source beside it", year=2026, reference="none")
    try:
        yield
    finally:
        del EDITORS.registered["pull"]
