"""What a pipeline is, whatever the size and the number of steps: its passes, its rule, its rows, its time.

Found by recording its call a few times, with one thing changed: the prompt, the negative prompt, the number of
pictures, the guidance.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unsample.errors import Incompatible
from unsample.models.base import Guidance
from unsample.models.replay.record import Call, Step, denoiser_of, record, sample_name, time_name
from unsample.models.replay.rule import Rule, rule_of
from unsample.models.replay.template import Pass, Slot, leaves, same, slots_of

if TYPE_CHECKING:
    from torch import Tensor

SHORT, LONG = "a", "a picture of a red circle on a white background"  # 24 tokens of any vocabulary hold it
ALIKE = "b"  # of as many tokens as the short one, where a pipeline pads one prompt to the other
NUMBER = 5.0  # of guidance, in a record
STEPS = 4  # of the record from which rule and time are read
OPTIONS = {"use_resolution_binning": False, "clean_caption": False}  # where a pipeline knows them
GIVEN = frozenset(("self", "prompt", "class_labels", "batch_size", "num_inference_steps"))


def base_call(pipeline: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of every record.

    Args:
        pipeline: of diffusers, live.
        own: more arguments of its call, as the user wants it called.

    Raises:
        Incompatible: it needs what it is not given.
    """
    import torch

    parameters = inspect.signature(type(pipeline).__call__).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind not in variable]
    lacking = [name for name in needed if name not in GIVEN and name not in own]
    if lacking:
        raise Incompatible(
            f"{type(pipeline).__name__} cannot be called without {', '.join(lacking)}; pipelines that make a picture "
            "of a prompt, of a class, or of nothing are served"
        )
    number = guidance_number(pipeline, own)
    known: dict[str, Any] = {"prompt": SHORT, "class_labels": [0], "batch_size": 1, "output_type": "latent", **OPTIONS}
    known |= {"generator": torch.Generator().manual_seed(0), "num_inference_steps": STEPS}
    call = {name: value for name, value in known.items() if name in parameters}
    if number is not None:
        call[number] = NUMBER
    if number == "true_cfg_scale":
        call["negative_prompt"] = " "  # without one there is no guidance
    return call | dict(own)


def sized(pipeline: Any, size: tuple[int, int] | None) -> dict[str, int]:
    """The arguments of a call for a picture's height and width; none for the pipeline's own."""
    if size is None:
        return {}
    known = {"height": size[0], "width": size[1], "max_area": size[0] * size[1]}  # Kontext brings any size to an area
    return {n: v for n, v in known.items() if n in inspect.signature(type(pipeline).__call__).parameters}


def guidance_number(pipeline: Any, own: Mapping[str, Any]) -> str | None:
    """The argument that carries a pipeline's guidance; None where it has none, or a guider has it."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    true = parameters.get("true_cfg_scale")
    if true is not None and ("true_cfg_scale" in own or (true.default or 1) > 1):
        return "true_cfg_scale"
    return next((n for n in ("guidance_scale", "distilled_guidance_scale") if n in parameters), None)


@dataclass
class Study:
    """Of one pipeline.

    Args:
        pipeline: of diffusers, live.
        id: of the model, for messages.
        own: arguments of its call beside those that are asked of every pipeline.
    """

    pipeline: Any
    id: str
    own: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.call = base_call(self.pipeline, self.own)
        self.number = guidance_number(self.pipeline, self.own)
        self.tape = record(self.pipeline, self.call)
        if not self.tape.steps:
            raise Incompatible(f"{self.id}: {type(self.pipeline).__name__} steps no scheduler; it is not served")
        self.passes = passes_of(self.tape.steps[0])
        self._check_passes()
        self.slots = self._slots()
        self.free, self.bound = self._roles()
        self.rule = self._rule()
        self.guidance: Guidance = "cfg" if self.free is not None else "none"
        told = self.call.get(self.number or "", NUMBER)
        if self.free is not None and round(self.rule.scale - told, 2) not in (0, 1):
            self.number = None  # a guider of the pipeline has it, not the call
        self.scale: tuple[str, float] | None = None  # the row that is told the guidance, and what it holds at w = 1
        if self.free is None and self.number is not None:
            self._find_scale()
        self.rows = self._rows()
        self.varying = self._varying()
        self.line = self._line()
        del self.tape.steps[1:]  # which hold a state's size of numbers a pass

    @property
    def halves(self) -> int:
        """How many rows its scheduler steps for one picture: two where both halves of guidance are stepped along."""
        return len(self.tape.steps[0].sample)

    # ------------------------------------------------------------ passes

    def _check_passes(self) -> None:
        counts = {len(step.calls) for step in self.tape.steps}
        if len(counts) > 1:
            raise Incompatible(f"{self.id}: its pipeline asks the network more often at some steps than at others")
        if len(self.passes) > 2:
            raise Incompatible(
                f"{self.id}: its pipeline joins {len(self.passes)} predictions a step (a picture's guidance, or "
                "perturbed attention), and two are served"
            )

    def leaves(self, step: Step, which: int) -> dict[str, Any]:
        """The arguments of one pass beside sample and time, of its one picture, by their paths."""
        of = self.passes[which]
        return {p: self.slots[p].row(v, of) for p, v in arguments(self.pipeline, step.calls[of.call]).items()}

    def _slots(self) -> dict[str, Slot]:
        twice = {n: self.call[n] if isinstance(self.call[n], list) else [self.call[n]] for n in TEXTS if n in self.call}
        doubled = {n: v * 2 for n, v in twice.items()} | ({"batch_size": 2} if "batch_size" in self.call else {})
        two = record(self.pipeline, {**self.call, **doubled}, steps=1).steps[0]
        one = arguments(self.pipeline, self.tape.steps[0].calls[0])
        return slots_of(one, arguments(self.pipeline, two.calls[0]))

    def _roles(self) -> tuple[int | None, int]:
        if len(self.passes) == 1:
            return None, 0
        changed = self._changed(self._other("prompt" if "prompt" in self.call else "class_labels", ALIKE))
        bound = [k for k, paths in enumerate(changed) if paths]
        if len(bound) != 1:
            raise Incompatible(f"{self.id}: which of its two predictions follows the prompt cannot be told")
        return 1 - bound[0], bound[0]

    def _other(self, name: str, text: str = LONG) -> Step:
        value = {"class_labels": [1], self.number: 2 * NUMBER}.get(name, text)
        return record(self.pipeline, {**self.call, name: value}, steps=1).steps[0]

    def _changed(self, other: Step) -> list[set[str]]:
        """The paths, a pass, that are not as in the record."""
        first, found = self.tape.steps[0], []
        for k in range(len(self.passes)):
            a, b = self.leaves(first, k), self.leaves(other, k)
            found.append({path for path in a if not same(a[path], b.get(path))})
        return found

    # ------------------------------------------------------------ rows

    def _rows(self) -> frozenset[str]:
        names: list[str] = [n for n in ("prompt", "class_labels") if n in self.call]
        parameters = inspect.signature(type(self.pipeline).__call__).parameters
        names += ["negative_prompt"] if self.free is not None and "negative_prompt" in parameters else []
        found = {path for name in names for paths in self._changed(self._other(name)) for path in paths}
        if self.free is not None:
            first = self.tape.steps[0]
            a, b = self.leaves(first, self.free), self.leaves(first, self.bound)
            found |= {path for path in b if not same(a.get(path), b[path])}
        return frozenset(found | ({self.scale[0]} if self.scale else set()))

    @cached_property
    def main(self) -> str | None:
        """The path of the text that methods optimise: (B, L, D), floating point; the largest there is."""
        leaves_ = self.leaves(self.tape.steps[0], self.bound)
        found = {p: self.slots[p].tensor(leaves_[p]) for p in self.rows if self.slots[p].axis is not None}
        floats = {p: t for p, t in found.items() if t.is_floating_point() and t.ndim == 3 and not p.endswith("mask")}
        return max(floats, key=lambda p: (p == "encoder_hidden_states", floats[p].numel()), default=None)

    def _varying(self) -> frozenset[str]:
        """The paths that change from step to step."""
        first = self.leaves(self.tape.steps[0], self.bound)
        rest = [self.leaves(step, self.bound) for step in self.tape.steps[1:]]
        found = frozenset(p for p in first if any(not same(first[p], other.get(p)) for other in rest))
        if found & self.rows:
            raise Incompatible(f"{self.id}: {', '.join(found & self.rows)} changes with prompt and step; not served")
        return found

    def _find_scale(self) -> None:
        assert self.number is not None
        changed = self._changed(self._other(self.number))[0]
        if not changed:
            return
        told = {p: self.leaves(self.tape.steps[0], 0)[p] for p in changed}
        path = next(iter(changed))
        if len(changed) > 1 or not hasattr(told[path], "numel") or told[path].numel() != 1:
            raise Incompatible(
                f"{self.id}: its network is told the guidance as an embedding ({', '.join(changed)}), as latent "
                "consistency models are, whose sampler is stochastic; use its base model"
            )
        self.guidance, self.scale = "distilled", (path, float(told[path]) / NUMBER)

    # ------------------------------------------------------------ rule and time

    def outputs(self, step: Step) -> list[Tensor]:
        """What each pass answered, as the scheduler's sample is shaped."""
        return [plain(step.calls[p.call].answer, step.sample[:1], p) for p in self.passes]

    def rule_at(self, steps: Sequence[Step]) -> Rule | None:
        """The rule that explains some steps."""
        told = [(self.outputs(s), plain(s.output[:1], s.sample[:1]), s.sample[:1]) for s in steps]
        return rule_of(told, self.free, self.bound)

    def _rule(self) -> Rule:
        found = self.rule_at(self.tape.steps)
        if found is None:
            raise Incompatible(
                f"{self.id}: how its pipeline ({type(self.pipeline).__name__}) joins its predictions is no rule that "
                "is served: it remembers earlier steps (adaptive projected guidance), or changes from step to step"
            )
        return found

    def _line(self) -> tuple[float, float]:
        """Slope and offset of the network's time over the scheduler's timestep."""
        first, last = self.tape.steps[0], self.tape.steps[-1]
        t, u = first.timestep, last.timestep
        a, b = (time_of(self.pipeline, step.calls[0]) for step in (first, last))
        slope = (b - a) / (u - t)
        offset = a - slope * t
        return (a / t if t else b / u, 0.0) if abs(offset) < 1e-3 * max(abs(a), abs(b)) else (slope, offset)


TEXTS = ("prompt", "class_labels", "negative_prompt")


def passes_of(step: Step) -> list[Pass]:
    """The passes of a step that was recorded for one picture."""
    counts = [_count(call) for call in step.calls]
    return [Pass(k, part, parts) for k, parts in enumerate(counts) for part in range(parts)]


def _count(call: Call) -> int:
    return len(call.answer)


def arguments(pipeline: Any, call: Call) -> dict[str, Any]:
    """What the denoiser was given beside sample and time, by their paths."""
    apart = (sample_name(denoiser_of(pipeline)), time_name(call.kwargs))
    return dict(leaves({name: value for name, value in call.kwargs.items() if name not in apart}))


def time_of(pipeline: Any, call: Call) -> float:
    """The time that the denoiser was told."""
    import torch

    return float(torch.as_tensor(call.kwargs[time_name(call.kwargs)]).flatten()[0])


def plain(answer: Any, sample: Tensor, of: Pass | None = None) -> Tensor:
    """A denoiser's answer as the sample is shaped: one pass of it, without a learned variance and other tokens."""
    import torch

    while not isinstance(answer, torch.Tensor) and not isinstance(answer, list):
        answer = answer.sample if hasattr(answer, "sample") else answer[0]
    out = torch.stack(answer) if isinstance(answer, list) else answer
    out = out if of is None else out.chunk(of.parts)[of.part]
    tail = sample.shape[1:]
    if math.prod(out.shape[1:]) == math.prod(tail):
        return out.reshape(-1, *tail)
    return out[(slice(None), *(slice(0, n) for n in tail))]
