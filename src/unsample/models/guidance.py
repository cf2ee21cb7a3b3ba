"""Guidance joins a model and its conditions into `predict`, and is the one place where cost is counted."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible, shown, unknown_name
from unsample.models.base import Condition, Model
from unsample.models.listening import listener
from unsample.numbers.prediction import Prediction, output_from_prediction, prediction_from_output
from unsample.numeric import is_real

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.numbers.grid import Grid


HALVES = ("unconditional", "conditional")  # of a guided prediction, in the order of its batch


@dataclass
class Cost:
    """Network evaluations and backward passes, one count a picture, and where the network failed each of them.

    `nonfinite` has None for a picture whose answers were all finite, else where the first was not: `what` ("answer", or
    the "gradient" through the network), `timestep`, `evaluation` (that picture's how-manieth), `half` ("conditional" or
    "unconditional", None for both or where there are no two), `input_finite` (whether what the network was asked was
    finite itself), and `times` it happened.
    """

    nfe: list[int]
    backward: list[int] = field(default_factory=list)
    nonfinite: list[dict[str, Any] | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.backward = self.backward or [0] * len(self.nfe)
        self.nonfinite = self.nonfinite or [None] * len(self.nfe)

    def saw_nonfinite(self, picture: int, **where: Any) -> None:
        """Keep the first place of a picture, and count."""
        first = self.nonfinite[picture] or {**where, "evaluation": self.nfe[picture], "times": 0}
        if first["what"] == where["what"]:  # the gradient of an answer that was not finite is no other failure
            self.nonfinite[picture] = first | {"times": first["times"] + 1}

    def because(self, picture: int) -> str:
        """What is said after what became of a picture; nothing where the network did not fail it."""
        where = self.nonfinite[picture]
        return f"; {spoken(where)}" if where else ""


def spoken(where: Mapping[str, Any]) -> str:
    """An entry of `Cost.nonfinite` in words."""
    half = f"{where['half']} " if where["half"] else ""
    again = f", {where['times']} times in all" if where["times"] > 1 else ""
    beside = "" if where["input_finite"] else ", asked about a point that was not finite itself"
    return (
        f"the network's {half}{where['what']} was not finite at timestep {where['timestep']:g} "
        f"(evaluation {where['evaluation']}{again}){beside}"
    )


class Predict:
    """Model, condition and guidance joined: `predict(x, i, rows=None) -> Prediction`.

    Guidance is `eps = eps_u + w (eps_c - eps_u)` for every w >= 0: one pass at w = 0 (unconditional) and at w = 1
    (conditional), two otherwise, run as one batched call. Below 1 this differs from diffusers, which then leaves
    guidance out. The halves are joined by the model's own `rule`, linear unless its pipeline renormalises. Where
    guidance was distilled into the network, w goes into its condition (the row "guidance"): always one pass. The
    network's gradient passes are counted where they happen, by a hook on its output.

    Args:
        model: the adapter.
        grid: the noise levels.
        condition: of the prompt, one row a picture.
        unconditional: of the negative prompt; needed unless w is 1 everywhere.
        guidance_scale: w, or one w a grid point (`scales`).
        batch_size: number of pictures.
        cost: where to count; a new count by default.
    """

    def __init__(
        self,
        model: Model,
        grid: Grid,
        condition: Condition,
        unconditional: Condition | None,
        guidance_scale: float | Sequence[float],
        batch_size: int,
        cost: Cost | None = None,
    ) -> None:
        one = is_real(guidance_scale)
        self.scales = tuple([check_guidance(guidance_scale)] * (grid.num_steps + 1) if one else guidance_scale)  # type: ignore[arg-type]
        asked = next((w for w in self.scales if w != 1), None)
        if asked is not None and model.guidance == "none":
            raise Incompatible(
                f"guidance_scale={asked:g} was asked for, and {model.id} has no guidance: its pipeline asks once a "
                "step and tells the network no scale; use guidance_scale=1"
            )
        if asked is not None and unconditional is None and model.guidance == "cfg":
            labelled, embedded = condition.class_labels is not None, condition.prompt_embeds is not None
            names = [n for n, there in (("embeds", embedded or not labelled), ("labels", labelled)) if there]
            kinds = {
                "embeds": "negative_prompt_embeds",
                "labels": "negative_class_labels (the class that stands for none)",
            }
            lacking = " and ".join(kinds[n] for n in names)
            raise Incompatible(
                f"guidance_scale={asked:g} needs an unconditional prediction, and {model.id} was given none; "
                f"use guidance_scale=1 or give {lacking}"
            )
        self.model, self.grid, self.condition, self.unconditional = model, grid, condition, unconditional
        self.unclamped = grid if grid.clip is None else replace(grid, clip=None)
        self.cost = cost or Cost([0] * batch_size)

    def with_condition(self, condition: Condition, unconditional: Condition | None) -> Predict:
        """The same model, guidance and count under other conditions.

        Raises:
            Incompatible: something to guide away from, for a network that is told its guidance.
        """
        if unconditional is not None and self.model.guidance == "distilled":
            raise Incompatible(
                f"{self.model.id} is told its guidance and cannot be guided away from another prompt, as this method "
                "does; use a method that asks for the prediction as it is, such as ddim, fixed_point or flow_edit"
            )
        return self._like(condition, unconditional, self.grid, self.scales)

    def on(self, grid: Grid, scale: float) -> Predict:
        """The same on another grid, which may be a few points of it, with one guidance scale."""
        return self._like(self.condition, self.unconditional, grid, scale)

    def _like(
        self, condition: Condition, unconditional: Condition | None, grid: Grid, scales: float | Sequence[float]
    ) -> Predict:
        """The same count under what is given."""
        return Predict(self.model, grid, condition, unconditional, scales, len(self.cost.nfe), self.cost)

    def __call__(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """The prediction for `x` at grid point i.

        Args:
            x: (B, C, H, W), or only the pictures `rows` names.
            i: index into the grid; the level at which the network is asked and its answer converted.
            rows: int64 indices of the pictures in `x`, None for all.
        """
        w = self.scales[i]
        if w == 1 or self.model.guidance != "cfg":
            output = self._ask(x, i, rows, self.condition)
        elif w == 0:
            output = self._ask(x, i, rows, self._free())
        else:
            free, bound = self._ask(x, i, rows, self._free(), self.condition).chunk(2)
            output = self.model.rule(free, bound, w)
        return self._told_of(prediction_from_output(output, x, self.grid, i))

    def _told_of(self, prediction: Prediction) -> Prediction:
        """The prediction, after whoever listens was told of it."""
        listener().predicted(self.model, prediction)
        return prediction

    def conditional(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """The conditional prediction alone, one pass; x0 is clamped only where halves are joined (`guided`)."""
        return prediction_from_output(self._ask(x, i, rows, self.condition), x, self.unclamped, i)

    def free(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """The unconditional prediction alone, one pass; x0 is not clamped either."""
        return prediction_from_output(self._ask(x, i, rows, self._free()), x, self.unclamped, i)

    def pair(self, x: Tensor, i: int, rows: Tensor | None = None) -> tuple[Prediction, Prediction]:
        """The unconditional and the conditional prediction, unguided: two passes, or one where they are the same."""
        if self._free() is self.condition:
            same = self.conditional(x, i, rows)
            return same, same
        free, bound = self._ask(x, i, rows, self._free(), self.condition).chunk(2)
        return prediction_from_output(free, x, self.unclamped, i), prediction_from_output(bound, x, self.unclamped, i)

    def guided(self, free: Prediction, bound: Prediction, i: int) -> Prediction:
        """Two predictions joined with the guidance at grid point i; no pass."""
        w = self.scales[i]
        if not self.model.linear and w not in (0, 1):
            x, raw = self._asked(bound, i), [output_from_prediction(p, self.unclamped, i) for p in (free, bound)]
            return prediction_from_output(self.model.rule(raw[0], raw[1], w), x, self.grid, i)
        return self.clamped(Prediction(free.x0 + w * (bound.x0 - free.x0), free.eps + w * (bound.eps - free.eps)))

    def clamped(self, p: Prediction) -> Prediction:
        """x0 clamped where the grid asks for it, once the halves are joined, as in plain sampling."""
        clip = self.grid.clip
        return p if clip is None else Prediction(p.x0.clamp(-clip, clip), p.eps)

    def _asked(self, p: Prediction, i: int) -> Tensor:
        """The point that a prediction is of."""
        return self.grid.eval_alpha[i] * p.x0 + self.grid.eval_sigma[i] * p.eps

    def _free(self) -> Condition:
        if self.model.guidance != "cfg":
            raise Incompatible(
                f"{self.model.id} has no unconditional prediction (guidance is {self.model.guidance}), and this method "
                "needs one; use a method that asks for the prediction as it is, such as ddim or fixed_point"
            )
        assert self.unconditional is not None
        return self.unconditional

    def _at_scale(self, condition: Condition, i: int) -> Condition:
        """The condition with the scale at grid point i, where the network is told it."""
        if self.model.guidance != "distilled":
            return condition
        if "guidance" not in condition.more:
            raise Incompatible(f"{self.model.id} is conditioned on more than prompt_embeds; give prompts")
        w = condition.more["guidance"].new_full((), self.scales[i])
        return replace(condition, more={**condition.more, "guidance": w.expand_as(condition.more["guidance"])})

    @cached_property
    def _pair(self) -> Condition:
        """Both conditions of the whole batch, one below the other."""
        return self._free().joined(self.condition)

    def saw_gradient(self, gradient: Tensor, at: Tensor, i: int, rows: Tensor | None = None) -> None:
        """Look at a gradient in `at` (B, ...) that came through the network at grid point i; `rows` as in a call."""
        if not math.isfinite(gradient.sum().item()):
            self._saw("gradient", gradient[None], at, i, range(len(at)) if rows is None else rows.tolist())

    def _saw(
        self, what: str, found: Tensor, x: Tensor, i: int, pictures: Sequence[int], half: str | None = None
    ) -> None:
        """Which pictures of `found` (halves, B, ...) are not finite; of a guided pair, which half."""
        sound, asked = found.detach().flatten(2).isfinite().all(2).tolist(), x.detach().flatten(1).isfinite().all(1)
        for n, k in enumerate(pictures):
            failed = [name for name, row in zip(HALVES, sound, strict=False) if not row[n]]
            if failed:
                which = half if len(sound) == 1 else failed[0] if len(failed) == 1 else None
                place = {"what": what, "timestep": self.grid.timesteps[i], "half": which}
                self.cost.saw_nonfinite(k, **place, input_finite=bool(asked[n]))

    def _ask(self, x: Tensor, i: int, rows: Tensor | None, *halves: Condition) -> Tensor:
        """The network's answer under one condition, or under two, one batch below the other; counted here."""
        import torch

        passes, picked = len(halves), halves if rows is None else [half.rows(rows) for half in halves]
        if passes == 1:
            asked, condition = x, picked[0]
        else:
            asked, condition = torch.cat([x, x]), self._pair if rows is None else picked[0].joined(picked[1])
        pictures = range(len(x)) if rows is None else rows.tolist()
        for k in pictures:
            self.cost.nfe[k] += passes
        timestep, sign = self.grid.asked_at(i)
        listener().asking()
        output = self.model.network(asked, timestep, self._at_scale(condition, i))
        output = output if sign > 0 else -output
        if not math.isfinite(output.detach().sum().item()):  # one number, so that a sound answer costs next to nothing
            two = self.unconditional is not None and self.unconditional is not self.condition
            half = HALVES[halves[0] is self.condition] if two and passes == 1 else None
            self._saw("answer", output.unflatten(0, (passes, -1)), x, i, pictures, half)
        if output.requires_grad:

            def count(_: Tensor) -> None:
                for k in pictures:
                    self.cost.backward[k] += passes

            output.register_hook(count)
        return output


Schedule = str | Callable[[float], float]
SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "constant": lambda w, end, s: w,
    "linear": lambda w, end, s: end + (w - end) * (1 - s),
    "cosine": lambda w, end, s: end + (w - end) * (1 + math.cos(math.pi * s)) / 2,
    "increasing": lambda w, end, s: end + (w - end) * s,
}
W_END = 1.0  # where linear and cosine schedules end, and increasing ones begin


def guidance_scales(guidance_scale: float, schedule: Schedule, grid: Grid) -> tuple[float, ...]:
    """The guidance scale at every grid point.

    With s from 0 at the noisiest point to 1 at the last one that a sampling step leaves: constant w; linear
    `1 + (w - 1)(1 - s)`; cosine `1 + (w - 1)(1 + cos(pi s)) / 2`; increasing `1 + (w - 1) s`; or any callable of s
    that returns a scale.

    Raises:
        UnknownName: no such schedule. BadOption: a scale that is not a finite number of at least 0.
    """
    w, last = check_guidance(guidance_scale), max(grid.num_steps - 1, 1)
    if isinstance(schedule, str) and schedule not in SCHEDULES:
        raise unknown_name("guidance schedule", schedule, SCHEDULES)
    if not isinstance(schedule, str) and not callable(schedule):
        raise BadOption(f"guidance_schedule must be a name or a callable of s; got {schedule!r}")
    at = [min((grid.num_steps - i) / last, 1.0) for i in range(grid.num_steps + 1)]
    if isinstance(schedule, str):
        return tuple(SCHEDULES[schedule](w, W_END, s) for s in at)
    return tuple(check_guidance(float(schedule(s)), "a guidance_schedule's scale") for s in at)


def schedule_name(schedule: Schedule) -> str:
    """What is recorded of a schedule."""
    return schedule if isinstance(schedule, str) else "callable"


def check_guidance(guidance_scale: object, name: str = "guidance_scale") -> float:
    """The scale as a float, or `BadOption`."""
    if not is_real(guidance_scale):
        raise BadOption(f"{name} must be a number; got {shown(guidance_scale)}")
    if not 0 <= guidance_scale <= sys.float_info.max:  # a nan is neither, and a whole number may be larger
        raise BadOption(f"{name} must be a finite number of at least 0; got {shown(guidance_scale)}")
    return float(guidance_scale)
