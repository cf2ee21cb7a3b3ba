"""The prediction of several branches as one batch: a guidance a row, and an editor that is told of every call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.edits.base import Asked, Steering
from unsample.errors import Incompatible
from unsample.models.guidance import HALVES, Cost, Predict
from unsample.models.listening import listener
from unsample.numbers.prediction import Prediction, output_from_prediction, prediction_from_output

if TYPE_CHECKING:
    from torch import Tensor

    from unsample.models.base import Condition, Model
    from unsample.numbers.grid import Grid

FREE, BOUND = HALVES


class BranchPredict(Predict):
    """`Predict` of T edits and, below them, their S sources.

    Rows may differ in guidance: `scales` has at each grid point a number, or a tensor (T + S, 1, 1, 1). A half that a
    row's guidance does not need is not asked, unless an edit reads it of its source (`Steering.halves`).

    Args:
        model, grid, condition, unconditional: as of `Predict`, for the T + S rows.
        guidance: a w, or a w a grid point, of each row.
        source_of: of each edit its source, 0 to S - 1.
        steering: the editor.
        cost: of the T edits; what a source costs is counted to each of its edits.
    """

    def __init__(
        self,
        model: Model,
        grid: Grid,
        condition: Condition,
        unconditional: Condition | None,
        guidance: Sequence[Sequence[float]],
        source_of: Sequence[int],
        steering: Steering | None = None,
        cost: Cost | None = None,
    ) -> None:
        highest = [max((row[i] for row in guidance), key=lambda w: abs(w - 1)) for i in range(grid.num_steps + 1)]
        super().__init__(model, grid, condition, unconditional, highest, len(source_of), cost)
        self.guidance, self.source_of, self.steering = guidance, source_of, steering or Steering()
        self.scales = tuple(self._scale(i) for i in range(grid.num_steps + 1))  # type: ignore[assignment]

    def _scale(self, i: int) -> Any:
        """The scale of all rows at grid point i, or (T + S, 1, 1, 1) of them."""
        rows = [row[i] for row in self.guidance]
        if len(set(rows)) == 1:
            return rows[0]
        embeds = next(iter(self.condition.named.values()))
        return embeds.new_tensor(rows, dtype=_real(embeds)).reshape(-1, 1, 1, 1)

    def play_sources(self) -> tuple[Condition, Condition | None, list[Sequence[float]]]:
        """From now on the edits' rows are their sources', under the same prompts and guidance.

        Returns:
            What the edits had: their condition and unconditional rows, and the guidance of each.
        """
        import torch

        count, device = len(self.source_of), next(iter(self.condition.named.values())).device
        own = torch.arange(count, device=device)
        index = torch.tensor([count + s for s in [*self.source_of, *range(len(self.guidance) - count)]], device=device)
        had = self.condition.rows(own), None if self.unconditional is None else self.unconditional.rows(own)
        guidance = list(self.guidance[:count])
        self.condition = self.condition.rows(index)
        self.unconditional = None if self.unconditional is None else self.unconditional.rows(index)
        self.guidance = [self.guidance[k] for k in index.tolist()]
        self.scales = tuple(self._scale(i) for i in range(self.grid.num_steps + 1))  # type: ignore[assignment]
        return *had, guidance

    def _like(self, condition: Condition, unconditional: Condition | None, grid: Grid, scales: Any) -> Predict:
        """See `Predict`."""
        each = self.guidance
        if scales is not self.scales:
            rows = [scales] * len(each) if isinstance(scales, float | int) else scales.flatten().tolist()
            each = [[w] * (grid.num_steps + 1) for w in rows]
        return BranchPredict(self.model, grid, condition, unconditional, each, self.source_of, self.steering, self.cost)

    def __call__(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """See `Predict`."""
        import torch

        w = self._of(i, rows, x)
        one, zero = w == 1, w == 0
        if self.model.guidance != "cfg":
            return self._told_of(prediction_from_output(self._alone(x, i, rows, BOUND), x, self.grid, i))
        free, bound = self._asked_of(x, i, rows, self._needs(~one, FREE, rows), self._needs(~zero, BOUND, rows))
        both = ~(one | zero)
        output = torch.where(one.reshape(-1, 1, 1, 1), bound, free)
        if both.any():
            joined = self.model.rule(free[both], bound[both], w[both].reshape(-1, 1, 1, 1))  # type: ignore[arg-type]
            output = output.index_put((both,), joined)
        return self._told_of(prediction_from_output(output, x, self.grid, i))

    def conditional(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """See `Predict`."""
        return prediction_from_output(self._alone(x, i, rows, BOUND), x, self.unclamped, i)

    def free(self, x: Tensor, i: int, rows: Tensor | None = None) -> Prediction:
        """See `Predict`."""
        self._free()
        return prediction_from_output(self._alone(x, i, rows, FREE), x, self.unclamped, i)

    def pair(self, x: Tensor, i: int, rows: Tensor | None = None) -> tuple[Prediction, Prediction]:
        """See `Predict`."""
        if self._free() is self.condition:
            same = self.conditional(x, i, rows)
            return same, same
        every = x.new_ones(len(x)).bool()
        free, bound = self._asked_of(x, i, rows, every, every)
        return prediction_from_output(free, x, self.unclamped, i), prediction_from_output(bound, x, self.unclamped, i)

    def besides(self, x: Tensor, i: int, pictures: Sequence[int], condition: Condition) -> Prediction:
        """The conditional prediction of some pictures under other rows than the batch's: one call, one pass each.

        Args:
            x: (R, C, H, W), the points.
            i: index into the grid.
            pictures: whose they are, R rows of the batch; a picture may stand there several times.
            condition: R rows.
        """
        import torch

        each = torch.as_tensor(list(pictures), device=x.device)
        row = torch.arange(len(each), device=x.device)
        call = Asked(each, torch.ones_like(row).bool(), each < len(self.source_of), row, self.grid.asked_at(i)[0])
        return prediction_from_output(self._call(x, i, condition, call), x, self.unclamped, i)

    def guided(self, free: Prediction, bound: Prediction, i: int) -> Prediction:
        """See `Predict`."""
        w: Any = self.scales[i]
        if not self.model.linear:
            x, raw = self._asked(bound, i), [output_from_prediction(p, self.unclamped, i) for p in (free, bound)]
            return prediction_from_output(self.model.rule(raw[0], raw[1], w), x, self.grid, i)
        return self.clamped(Prediction(free.x0 + w * (bound.x0 - free.x0), free.eps + w * (bound.eps - free.eps)))

    def _of(self, i: int, rows: Tensor | None, x: Tensor) -> Tensor:
        """The scales (B,) of the pictures in `x`."""
        w = x.new_tensor([row[i] for row in self.guidance])
        return w if rows is None else w[rows.to(w.device)]

    def _needs(self, own: Tensor, half: str, rows: Tensor | None) -> Tensor:
        """Which pictures are asked in a half: those whose guidance needs it, and the sources that their edits read."""
        if half not in self.steering.halves:
            return own
        pictures = range(len(own)) if rows is None else rows.tolist()
        at = {picture: k for k, picture in enumerate(pictures)}
        needs = own.clone()
        for k, picture in enumerate(pictures):
            if picture < len(self.source_of) and own[k]:
                needs[at[len(self.source_of) + self.source_of[picture]]] = True
        return needs

    def _alone(self, x: Tensor, i: int, rows: Tensor | None, half: str) -> Tensor:
        """One half of all pictures."""
        every = x.new_ones(len(x)).bool()
        free, bound = self._asked_of(x, i, rows, every & (half == FREE), every & (half == BOUND))
        return free if half == FREE else bound

    def _asked_of(self, x: Tensor, i: int, rows: Tensor | None, free: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
        """The raw outputs of both halves, each for the pictures of `x` that its mask names and 0 for others."""
        import torch

        pictures = torch.arange(len(x), device=x.device) if rows is None else rows.to(x.device)
        named = [(half, picked.nonzero().flatten()) for half, picked in ((FREE, free), (BOUND, bound)) if picked.any()]
        conditions = {FREE: self.unconditional, BOUND: self.condition}
        if FREE in dict(named):
            self._free()
        picked = [conditions[half].rows(pictures[at]) for half, at in named]  # type: ignore[union-attr]
        condition = picked[0] if len(picked) == 1 else picked[0].joined(picked[1])
        at = torch.cat([at for _, at in named])
        conditional = torch.cat([torch.full((len(at),), half == BOUND, device=x.device) for half, at in named])
        call = self._rows(pictures[at], conditional, self.grid.asked_at(i)[0])
        output = self._call(x[at], i, condition, call)
        outputs = {half: torch.zeros_like(x) for half in HALVES}
        for (half, where), part in zip(named, output.split([len(a) for _, a in named]), strict=True):
            outputs[half] = outputs[half].index_put((where,), part)
        return outputs[FREE], outputs[BOUND]

    def _call(self, x: Tensor, i: int, condition: Condition, call: Asked) -> Tensor:
        """One call, counted and told to the editor; looked at and hooked as `Predict` does.

        A pass backward is counted once, whether it comes through the output or through what an editor took of the
        layers: where x asks for a gradient, at x.
        """
        rows = self._counted(call.pictures.tolist())
        for k in rows:
            self.cost.nfe[k] += 1

        def count(_: Tensor) -> None:
            for k in rows:
                self.cost.backward[k] += 1

        x = x.view_as(x)
        if x.requires_grad:
            x.register_hook(count)
        timestep, sign = self.grid.asked_at(i)
        listener().asking()
        with self.steering.asked(call):
            output = self.model.network(x, timestep, self._told(condition, i, call))
        output = output if sign > 0 else -output
        if not output.detach().isfinite().all():
            for k, picture in enumerate(call.pictures.tolist()):
                half = HALVES[bool(call.conditional[k])] if self.unconditional is not None else None
                for edit in self._counted([picture]):
                    self._saw("answer", output[k][None, None], x[k : k + 1], i, [edit], half)
        if output.requires_grad and not x.requires_grad:
            output.register_hook(count)
        return output

    def _counted(self, pictures: Sequence[int]) -> list[int]:
        """The edits that rows of a call are counted to: an edit's own, a source's to every edit of it."""
        count = len(self.source_of)
        of_sources = [[n for n, s in enumerate(self.source_of) if s == p - count] for p in pictures if p >= count]
        return [p for p in pictures if p < count] + [n for each in of_sources for n in each]

    def _told(self, condition: Condition, i: int, call: Asked) -> Condition:
        """The condition with each row's scale, where the network is told it."""
        if self.model.guidance != "distilled":
            return condition
        if "guidance" not in condition.more:
            raise Incompatible(f"{self.model.id} is conditioned on more than prompt_embeds; give prompts")
        row = condition.more["guidance"]
        w = row.new_tensor([self.guidance[k][i] for k in call.pictures.tolist()])
        told = w.reshape(-1, *[1] * (row.ndim - 1)).expand_as(row)
        return replace(condition, more={**condition.more, "guidance": told})

    def _rows(self, pictures: Tensor, conditional: Tensor, timestep: float) -> Asked:
        """Who is who in a call."""
        count, places = len(self.source_of), {}
        halves = conditional.tolist()
        for k, (picture, half) in enumerate(zip(pictures.tolist(), halves, strict=True)):
            places[picture, half] = k
        own = [
            places.get((count + self.source_of[p], half), places[p, half]) if p < count else places[p, half]
            for p, half in zip(pictures.tolist(), halves, strict=True)
        ]
        return Asked(pictures, conditional, pictures < count, pictures.new_tensor(own), timestep)


def _real(tensor: Tensor) -> Any:
    """A floating dtype to write scales in."""
    import torch

    return tensor.dtype if tensor.dtype is torch.float64 else torch.float32
