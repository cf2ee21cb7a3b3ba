"""A method is a codec: how a picture is inverted into a record, and the step that plays the record back.

What a method may do, in the order in which it happens:
`begin` draws or stores what the walk up needs; `invert_step` walks up; `fit` looks at all the points of that walk (the
pivots) and fits a record to them; `playback` may join the prediction that is played with the inversion's own;
`sample_step` (or `edit_step`, under another prompt) walks down. Most methods have only the two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.numbers.grid import FLOW, prediction_type_of
from unsample.numbers.solvers.ddim import ddim_invert_at_target, ddim_sample
from unsample.numbers.walk import State, Step

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unsample.models.guidance import Predict
    from unsample.numbers.grid import Grid


*OWN, LAST_OWN = ("edict", "bdia", "belm", "rex", "dpm_solver", "rf_solver", "fireflow")  # with samplers of their own

DRAWN = "its noise is drawn, whatever the picture"


@dataclass(frozen=True)
class Walked:
    """What the cost of an inversion depends on; under a guidance schedule the pairs differ from step to step, and a
    formula is an upper bound at 2."""

    steps: int  # T, the steps walked
    pair: int = 1  # network evaluations of a prediction while inverting: 2 if guided
    sampling_pair: int = 1  # the same under the guidance of sampling
    timesteps: tuple[float, ...] = ()  # the noisier end of each step


@dataclass(frozen=True)
class Seen:
    """The pictures behind x0, and the model's two halves."""

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    pictures: Tensor | None  # (B, 3, H, W) in [0, 1]; None where latents were given


@dataclass(frozen=True)
class Task:
    """What `begin` and `fit` are given. Pictures are the rows of every tensor."""

    predict: Predict  # under the guidance of inversion
    playback: Predict  # under the guidance of sampling; counts into the same cost
    grid: Grid
    stop: int  # the noisiest grid point reached
    x0: Tensor  # (B, C, H, W)
    generators: Sequence[torch.Generator]  # one a picture
    trajectory: Tensor | None = None  # (N + 1, B, C, H, W), noisiest first: a recorded sampling run
    progress: Callable[[Iterable[int], str], Iterable[int]] = lambda steps, what: steps
    seen: Seen | None = None

    def noise(self, *shape: int) -> Tensor:
        """Standard normal numbers (B, *shape), each picture's from its own generator; default: of the shape of x0."""
        from unsample.numbers.draws import draw_noise

        return draw_noise(self.generators, shape or self.x0.shape[1:]).to(self.x0)


def nothing(walked: Walked) -> int:
    """No backward pass."""
    return 0


@dataclass(frozen=True)
class Axis:
    """An axis of a kept tensor beside the picture's: its letter, and the lengths that it may have."""

    letter: str
    lengths: Callable[[Sequence[float], int], tuple[int, ...]]  # of the grid's timesteps and of the stop index


STEPS = Axis("T", lambda timesteps, stop: (stop,))


@dataclass(frozen=True)
class Kept:
    """What a tensor of a record is: float32 or float64, (B, [axis,] then the shape of one latent or one embedding)."""

    what: str  # in words
    axis: Axis | None = None
    embedding: bool = False

    @property
    def shape(self) -> str:
        """In letters: (B, T, C, H, W)."""
        each = "L, D" if self.embedding else "C, H, W"
        return f"(B, {self.axis.letter}, {each})" if self.axis else f"(B, {each})"

    def misfit(
        self,
        found: Sequence[int],
        noise: Sequence[int],
        embedding: Sequence[int] | None,
        grid: tuple[Sequence[float], int],
    ) -> str | None:
        """What the shape must be, where `found` is another.

        Args:
            found: of the tensor.
            noise: (B, C, H, W) of the record.
            embedding: of one prompt; None where it is not known: then any of two axes.
            grid: timesteps and stop index.
        """
        lengths = self.axis.lengths(*grid) if self.axis else ()
        each = list(noise[1:]) if not self.embedding else None if embedding is None else list(embedding)
        head = 2 if self.axis else 1
        fits = len(found) > head and found[0] == noise[0] and (not self.axis or found[1] in lengths)
        if fits and (list(found[head:]) == each or (each is None and len(found) == head + 2 and 0 not in found)):
            return None
        told = [str(noise[0]), *([" or ".join(map(str, dict.fromkeys(lengths)))] if self.axis else [])]
        return f"({', '.join([*told, *map(str, each or 'LD')])})"


@dataclass(frozen=True)
class Method:
    """A configured method. The facts beside the steps are checked by the contract test."""

    name: str = ""  # a factory's own, with its settings: `settings.configured` puts them in
    settings: Mapping[str, Any] = field(default_factory=dict)
    invert_step: Step = ddim_invert_at_target
    sample_step: Step = ddim_sample
    passes: Callable[[Walked], int] = lambda walked: walked.steps * walked.pair  # without early stopping
    backward: Callable[[Walked], int] = nothing  # passes backward through the network
    check_grid: Callable[[Grid, int], None] | None = None  # refuses a grid and a stop, or warns, before any work
    begin: Callable[[Task], State] | None = None
    fit: Callable[[Task, list[Tensor], State], State] | None = None  # pivots: clean first, stop + 1 of them
    playback: Callable[[Predict, Predict], Any] | None = None  # given the inversion's own, and its guidance, beside it
    fresh: Callable[[Tensor], State] | None = None  # the state with which `sample_step` starts from fresh noise
    edit_step: Step | None = None  # where an edit plays the record otherwise than a reconstruction
    edit_state: Callable[[State], State] | None = None  # what of the record plays in an edit's own branch; None: all
    keeps: Mapping[str, Kept] = field(default_factory=dict)  # the state that is saved with the noise
    stores: str = "noise"  # what the record holds, in words
    fitted: bool = False  # whether the record holds more than the noise, fitted to the picture
    exact: bool = False  # whether the record reconstructs exactly by construction
    reversible: bool = False  # whether it is exact by running the sampler's algebra backwards
    needs_prompt: bool = False
    needs_trajectory: bool = False
    starts_at_picture: bool = False  # whether it says what the first steps are, and so cannot go on from another's
    guidance_scale: float | None = None  # the method's own default while inverting; None: 1
    sampling_guidance_scale: float | None = None  # the method's own default; None: that of the inversion
    edit_guidance_scale: float | None = None  # None: 5
    guidance_bound: bool = False  # whether the record holds only under the guidance that it was fitted with
    edits_as_fitted: bool = False  # whether edits too are bound to that guidance
    handles_guidance: bool = True  # whether guidance > 1 is accounted for
    strength: float | None = None  # the method's own default
    timestep_spacing: str | None = None  # in place of the scheduler's
    refuses_edit: str | None = None  # why it cannot edit
    refuses_vp: str | None = None  # why it does not run on a grid that preserves the variance
    refuses_flow: str | None = None  # why it does not run on a grid of flow matching
    no_root: str | None = None  # why its noise is no root of the sampler's steps, however small a residual
    notes: Callable[[Grid, int, State], dict[str, Any]] | None = None  # what else its record says: of grid, stop, state

    def __post_init__(self) -> None:
        """Settings are kept in files: numbers of numpy become Python's."""
        plain = {k: v.item() if isinstance(v, Number) and hasattr(v, "item") else v for k, v in self.settings.items()}
        object.__setattr__(self, "settings", plain)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"

    @property
    def stepwise(self) -> bool:
        """Whether it finds noise alone, which plain DDIM plays back. Only such a method can be another's base."""
        return self.sample_step is ddim_sample and not self.keeps and self.fit is None and self.playback is None

    @property
    def ungraded(self) -> str | None:
        """Why nothing can be said of how near its noise is to the one that plain sampling makes the picture from."""
        if not self.stepwise:
            return f"plain sampling from the noise alone does not play {self.name} back; it stores {self.stores}"
        return self.no_root

    def check_fresh(self) -> Callable[[Tensor], State]:
        """`fresh`, or why it cannot sample from fresh noise.

        Raises:
            Incompatible: a method that is played back by DDIM, or that needs what it stored of a picture.
        """
        if self.name == "ddim":  # which needs none; what is made around it is not itself a sampler
            return lambda x: {}
        if self.fresh is not None:
            return self.fresh
        if self.stepwise:
            why = "it finds noise, and its noise is played back by ddim, which sample uses without a method"
        elif self.fitted or self.playback is not None:
            why = f"it plays back what it stored of a picture ({self.stores}), and of fresh noise there is none"
        else:
            why = f"it needs more than noise to start from ({self.stores})"
        raise Incompatible(f"{self.name} does not sample: {why}; leave it out, or use {', '.join(OWN)} or {LAST_OWN}")

    def spacing(self, scheduler: Any) -> str | None:
        """The timestep spacing in place of the scheduler's; a flow's sigmas have none, and stay its own."""
        return None if prediction_type_of(scheduler) == FLOW else self.timestep_spacing

    def inverts_at(self, guidance_scale: float | None, guidable: bool) -> float:
        """The guidance of inversion: the one given, else the method's own, else 1.

        Args:
            guidance_scale: what was asked for; None: nothing.
            guidable: whether there is something to guide away from; where there is not, the method's own is 1.
        """
        own = self.guidance_scale if guidable else None
        return guidance_scale if guidance_scale is not None else 1.0 if own is None else own

    @property
    def solves_guidance(self) -> bool:
        """Whether it accounts for guidance at the scale that it inverts at, and at no other."""
        return self.handles_guidance and (self.reversible or not self.fitted) and self.playback is None

    def drifts(self, inverted_at: float, scales: Sequence[float]) -> bool:
        """Whether a reconstruction drifts for the guidance alone: inverted at one scale, sampled under others.

        Methods that solve the guided equation, or run the sampler backwards, do so for the guidance of inversion;
        those that fit a record, or replace the empty prompt, hold under every one or refuse.
        """
        if not self.handles_guidance:
            return inverted_at > 1 or max(scales) > 1
        if not self.solves_guidance or self.passes(Walked(10)) == 0:
            return False
        return max(scales) > 1 and any(scale != inverted_at for scale in scales)

    @property
    def needs_grad(self) -> bool:
        """Whether gradients run through the network."""
        return self.backward(Walked(10, 2, 2, tuple(range(1, 1000, 100)))) > 0


@dataclass(frozen=True)
class MethodFacts:
    """A row of the table: the factory, whose keyword defaults are the settings, and what people ask about it."""

    factory: Callable[..., Method]
    summary: str
    family: str
    equation: str
    cost: str
    year: int
    reference: str
    quick: Mapping[str, Any] = field(default_factory=dict)  # settings for a look: 10 s at most
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # the authors' other settings, by name
    bibtex: str = ""  # of a paper that `methods.citations` has not

    def named_settings(self) -> dict[str, Mapping[str, Any]]:
        """Every preset, `quick` among them."""
        return {"quick": self.quick, **self.presets}
