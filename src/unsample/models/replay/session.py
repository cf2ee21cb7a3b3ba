"""A pipeline at one size and one number of steps: its template, its times, its grid, the layout of its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.models.replay.record import Step, answering, denoiser_of, record, sample_name, time_name
from unsample.models.replay.study import Study, plain, sized, time_of
from unsample.models.replay.tail import Tail, tail_of
from unsample.models.replay.template import Template, shape_of

if TYPE_CHECKING:
    from torch import Tensor

NEAR = 1e-6  # relative distance within which a timestep is one of the recorded ones


@dataclass(frozen=True)
class Entry:
    """How the sample goes in: as a list or not, its shape for one picture, and what is laid beside it."""

    listed: bool
    tail: tuple[int, ...]  # of one picture, without what is laid beside it
    dtype: Any
    axis: int | None = None  # along which something is laid beside it (a mask's channels, a reference's tokens)
    beside: Tensor | None = None  # of one picture

    def filled(self, packed: Tensor) -> Any:
        """What the network takes for packed samples (B, ...)."""
        import torch

        x = packed.reshape(-1, *self.tail).to(self.dtype, copy=True)
        if self.beside is not None and self.axis is not None:
            x = torch.cat([x, self.beside.to(x).expand(len(x), *self.beside.shape[1:])], self.axis)
        return list(x.unbind(0)) if self.listed else x


class Session:
    """A pipeline's call at a size and a number of steps.

    Args:
        study: of the pipeline.
        steps: of its scheduler.
        size: height and width of the picture; None for the pipeline's own.
        spacing: a `timestep_spacing` in place of its scheduler's.

    Raises:
        Incompatible: its rule changes at some step, or its samples go in in a way that is not known.
    """

    def __init__(
        self, study: Study, steps: int, size: tuple[int, int] | None = None, spacing: str | None = None
    ) -> None:
        self.study = study
        self.call = {**study.call, "num_inference_steps": steps, **sized(study.pipeline, size)}
        self.tape = record(study.pipeline, self.call, spacing=spacing)
        first = self.tape.steps[0]
        self.native = tuple(first.sample.shape[1:])
        self._check_rule()
        leaves = study.leaves(first, study.bound)
        varying = {p: [study.leaves(s, study.bound)[p] for s in self.tape.steps] for p in study.varying}
        slots = {p: replace(slot, like=leaves[p]) for p, slot in study.slots.items()}
        apart = (sample_name(denoiser_of(study.pipeline)), time_name(first.calls[0].kwargs))
        kwargs = {n: v for n, v in first.calls[study.passes[study.bound].call].kwargs.items() if n not in apart}
        rest = {p: v for p, v in leaves.items() if p not in study.rows}
        self.template = Template(slots, study.rows, rest, shape_of(kwargs), varying)
        self.entry = self._entry(first)
        self.time_like = first.calls[0].kwargs[apart[1]]
        self.times = [(s.timestep, time_of(study.pipeline, s.calls[0])) for s in self.tape.steps]
        del self.tape.steps[1:]

    def _check_rule(self) -> None:
        study = self.study
        passes = {tuple(len(call.answer) for call in step.calls) for step in self.tape.steps}
        found = study.rule_at(self.tape.steps) if len(passes) == 1 else None
        if len(passes) > 1 or (found is None and len(self.tape.steps) > 2):
            raise Incompatible(
                f"{study.id}: in {len(self.tape.steps)} steps its pipeline does not join its predictions alike at all "
                "of them (guidance that begins or ends at a step); that is not served"
            )

    def _entry(self, first: Step) -> Entry:
        import torch

        study = self.study
        of = study.passes[study.bound]
        given = first.calls[of.call].kwargs[sample_name(denoiser_of(study.pipeline))]
        listed = isinstance(given, list | tuple)
        rows = torch.stack(list(given)) if listed else given
        row, sample = rows.chunk(of.parts)[of.part], first.sample[:1]
        if row.numel() == sample.numel():
            entry = Entry(listed, tuple(row.shape[1:]), row.dtype)
        else:
            axis = next(
                (d for d in range(1, row.ndim) if row.ndim == sample.ndim and row.shape[d] > sample.shape[d]), 0
            )
            if not axis:
                raise Incompatible(
                    f"{study.id}: its network takes {tuple(row.shape[1:])} for samples of {tuple(sample.shape[1:])}"
                )
            beside = row.narrow(axis, sample.shape[axis], row.shape[axis] - sample.shape[axis])
            entry = Entry(listed, self.native, row.dtype, axis, beside)
            row = row.narrow(axis, 0, sample.shape[axis])
        self.scale = float((row.double().flatten() @ sample.double().flatten()) / sample.double().square().sum())
        if float((row.double().flatten() - self.scale * sample.double().flatten()).abs().max()) > 0.05:
            raise Incompatible(f"{study.id}: what its network is asked about is not its sample")
        return entry

    @property
    def exploding(self) -> bool:
        """Whether its scheduler steps samples that are 1 / alpha times the state (variance exploding)."""
        return abs(self.scale - 1) > 1e-4

    @cached_property
    def tail(self) -> Tail:
        """Between the packed sample, the state and the VAE."""
        pipeline = self.study.pipeline
        return tail_of(pipeline, self.call, self.native, answering(denoiser_of(pipeline)))

    # ------------------------------------------------------------ asking

    def step_at(self, timestep: float) -> int | None:
        """Which recorded step is at a timestep."""
        near = NEAR * max(1.0, abs(timestep))
        return next((k for k, (t, _) in enumerate(self.times) if abs(t - timestep) <= near), None)

    def time(self, timestep: float, count: int, device: Any) -> Any:
        """What the network is told for a timestep: as recorded where it was, else on the line through the record."""
        import torch

        step = self.step_at(timestep)
        slope, offset = self.study.line
        value, like = slope * timestep + offset if step is None else self.times[step][1], self.time_like
        if not isinstance(like, torch.Tensor):
            return type(like)(value) if not isinstance(like, list) else [value] * count
        whole = like.is_floating_point() or value == int(value)
        told = torch.tensor(value, device=device, dtype=like.dtype if whole else torch.float32)
        return told if like.ndim == 0 else told.expand(count)

    def arguments(self, x: Tensor, timestep: float, rows: Mapping[str, Tensor]) -> dict[str, Any]:
        """The denoiser's, for states (B, C, H, W) and rows of a condition by their paths."""
        names = sample_name(denoiser_of(self.study.pipeline)), time_name(self.tape.steps[0].calls[0].kwargs)
        filled = self.template.filled(rows, len(x), self.step_at(timestep))
        return {
            names[0]: self.entry.filled(self.tail.packed(x)),
            names[1]: self.time(timestep, len(x), x.device),
            **filled,
        }

    def answered(self, answer: Any, x: Tensor) -> Tensor:
        """The raw output as the state is laid out, in its dtype; the sign is that which the scheduler takes."""
        native = x.new_empty(len(x), *self.native)
        return self.study.rule.sign * self.tail.unpacked(plain(answer, native)).to(x.dtype)

    def text(self, name: str, value: Any, negative: bool) -> dict[str, Tensor]:
        """The rows of one prompt, by their paths, (1, ...)."""
        study = self.study
        step = record(study.pipeline, {**self.call, name: value}, steps=1).steps[0]
        which = study.free if negative else study.bound
        assert which is not None
        leaves = study.leaves(step, which)
        scale = study.scale[0] if study.scale else None
        return {p: study.slots[p].tensor(leaves[p]) for p in study.rows if p != scale}
