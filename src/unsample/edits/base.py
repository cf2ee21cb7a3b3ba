"""An editor says how a source and its edits are walked beside each other, and what the edits take of the source.

The source's row is played by the method's own record under its own prompt; the rows of its edits stand in the same
batch. An editor is made for a walk by `steer`; what comes of it, a `Steering`, is told of every call of the network
(`asked`), may stand in for the prediction (`predict`), and may change the points that were reached (`after`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.models.guidance import HALVES

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.edits.branches import BranchPredict
    from unsample.methods import Method
    from unsample.models.base import Model
    from unsample.numbers.grid import Grid
    from unsample.numbers.walk import State


@dataclass(frozen=True)
class Asked:
    """The rows of one call of the network, R of them: int64 and bool tensors (R,) on the network's device."""

    pictures: Tensor  # which row of the walk: edits 0 to T - 1, then the sources
    conditional: Tensor  # whether under the prompt; else under the negative one
    edits: Tensor  # whether it is an edit's
    partner: Tensor  # the row of this call that is its source's in the same half; its own where there is none
    timestep: float


@dataclass(frozen=True)
class Branches:
    """What an editor is given before the walk: T edits and then S sources are the rows of its batch."""

    model: Model
    grid: Grid
    stop: int  # the noisiest grid point: the number of steps
    source_of: Sequence[int]  # of each edit, which source: 0 to S - 1
    source_prompts: Sequence[str | None]  # S
    target_prompts: Sequence[str | None]  # T
    predict: BranchPredict  # of the whole batch, before the method's `playback` and the editor have their say
    noise: Tensor  # (T, C, H, W), where the edits start
    latents: Tensor | None = None  # (S, C, H, W), the sources, where the inversion still knows them
    progress: Callable[[Any, str], Any] = lambda steps, what: steps

    @property
    def count(self) -> int:
        """T."""
        return len(self.source_of)

    def pairs(self) -> list[tuple[str, str]]:
        """Of each edit, its source's prompt and its own; "" for none."""
        return [
            (self.source_prompts[s] or "", target or "")
            for s, target in zip(self.source_of, self.target_prompts, strict=True)
        ]


class Steering:
    """One edit under way. This one leaves everything as it is; an editor overrides what it needs."""

    halves: Sequence[str] = HALVES  # of guidance, in which edits read their source

    def attached(self) -> AbstractContextManager[None]:
        """While the walk lasts: attention processors and hooks are in place, and afterwards as they were."""
        return nullcontext()

    def predict(self, predict: Any) -> Any:
        """What the method is played with: the prediction of the whole batch, or something around it."""
        return predict

    def before(self, k: int, i: int, j: int) -> None:
        """Step k of `stop` begins, from grid point i to j."""

    def departs(self, k: int, i: int, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Before step k: the points at i that it goes on from (T + S, C, H, W), edits first, and the method's state."""
        return x, state

    def asked(self, rows: Asked) -> AbstractContextManager[None]:
        """While the network answers a call."""
        return nullcontext()

    def after(self, k: int, j: int, x: Tensor, state: State) -> tuple[Tensor, State]:
        """After step k: the points reached (T + S, C, H, W), edits first, and the method's state; to go on with."""
        return x, state

    def mask(self) -> Tensor | None:
        """Where the editor itself let the picture change, (T, 1, h, w) in [0, 1]; None: it made no mask."""
        return None

    def maps(self) -> Sequence[Mapping[str, Tensor]]:
        """Of each edit, attention maps (h, w) in [0, 1] by their words, where there are any."""
        return ()

    def notes(self) -> dict[str, Any]:
        """What was found out on the way and belongs into the record, as plain JSON: the kind of edit, ..."""
        return {}


@dataclass(frozen=True)
class Editor:
    """A configured editor; its factory's settings are checked as a method's are."""

    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    steer: Callable[[Branches], Steering] | None = None  # None: the prompt alone is swapped
    check: Callable[[Model, Sequence[tuple[str, str]]], None] | None = None  # refuses model and prompts, before work
    refuses: Callable[[Method], str | None] = lambda method: None  # why it makes no sense with a method
    needs_source_prompt: bool = False
    needs_unconditional: bool = False  # whether it asks that half whatever the guidance
    needs_prompt: bool = True  # else its settings say what is edited, and the source's prompt stands in for none
    makes_mask: bool = False  # whether its steering has a `mask`
    holds_source: bool = True  # whether an edit under the prompt and guidance of its source is its reconstruction
    edit_guidance_scale: float | None = None  # its own default; None: the method's

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"


@dataclass(frozen=True)
class EditorFacts:
    """A row of the table."""

    factory: Callable[..., Editor]
    summary: str
    equation: str
    cost: str  # of an edit beside its inversion, in network evaluations
    year: int
    reference: str
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # other settings, by name
    bibtex: str = ""  # of a registered editor, for `unsample cite`
