"""An edit beside its source: both are walked down together, the source by the method's own record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unsample.edits import Editor
from unsample.edits.base import Branches, Steering
from unsample.edits.beside import Beside
from unsample.edits.branches import BranchPredict
from unsample.edits.masks import MaskAsked
from unsample.methods import Method
from unsample.models.base import Condition, Model
from unsample.models.guidance import Predict
from unsample.numbers.grid import Grid
from unsample.numbers.walk import State, Step
from unsample.verbs import masking
from unsample.verbs.masking import Masks
from unsample.verbs.playing import (
    PlayGuidance,
    bound_to,
    check_bound,
    check_model,
    check_state,
    grid_of,
    guidance_of,
    method_of,
    prompts_of,
    warn_constant,
)
from unsample.verbs.prompts import Prompts
from unsample.verbs.recording import played
from unsample.verbs.results import Images, Inversion
from unsample.verbs.running import Run, Watching, quiet, state_dtype

if TYPE_CHECKING:
    from torch import Tensor


def edit_beside(
    model: Model,
    inversion: Inversion,
    prompts: Prompts,
    guidance: PlayGuidance,
    editor: Editor,
    masked: MaskAsked | None,
    allow_other_model: bool,
    asked: Watching,
) -> Images:
    """Walk edits and sources down.

    Args:
        model: that inverted.
        inversion: of the S sources; of one where there are more prompts than one.
        prompts: of the edits.
        guidance: of the edits; the sources are played under their own.
        editor: what the edits take of their sources.
        masked: outside of its mask an edit is its source.
        allow_other_model: play back with other weights.
        asked: how the walk is watched.
    """
    check_model(model, inversion, allow_other_model)
    model = bound_to(model, inversion)
    method, grid, count = method_of(inversion), grid_of(inversion, model), len(inversion)
    each = inversion if count > 1 else inversion.repeated(prompts.count()) if prompts.count() > 1 else inversion
    source_of = [0] * len(each) if count == 1 else range(count)
    masking.check_mask(masked, model, inversion, prompts.texts(len(source_of)), source_of)
    scales = guidance.at(grid)
    check_bound(method, each, scales, "record", "edit")
    with quiet(model):
        run = Run(model, grid, inversion.meta.stop_index, prompts, len(each), [scales], asked)
        check_state(method, inversion, run.predict)
        found = None if masked is None else masking.masks_of(masked, run, inversion, source_of)
        beside = Beside(source_of, None if found is None else found.state)
        noise = inversion.noise.to(model.device, state_dtype(model, inversion.noise))
        x, record = noise[list(beside.source_of)], {k: v.to(model.device) for k, v in inversion.state.items()}
        walked = _Walked(run, inversion, method, beside, (x, noise), record)
        steering = walked.steered(editor, scales) if editor.steer else walked.apart()
        with steering.attached():
            made = run.sample(x, walked.step, walked.state, beside=noise)
        walked.count_sources()
    warn_constant(made, inversion, asked.verb)
    made = replace(made, nfe=list(run.cost.nfe), backward=list(run.cost.backward))
    made = played(made, run, each, (guidance.scale, _named(guidance)), "record")
    about: dict[str, Any] = {"editor": {"name": editor.name, "settings": dict(editor.settings)}}
    notes = steering.notes()
    if found is not None:
        about |= {"mask": found.records}
    meta = type(made.meta).model_validate(made.meta | about | ({"editor_notes": notes} if notes else {}))
    assert run.beside is not None
    return replace(
        made,
        meta=meta,
        reconstruction=run.beside[list(beside.source_of)],
        attention_maps=list(steering.maps() or (found.maps if found else ())),
        mask=_shown(found, steering.mask(), made),
    )


class _Walked:
    """The walk of one edit: its step and state, in one batch (`steered`) or side by side (`apart`)."""

    step: Step
    state: State

    def __init__(
        self,
        run: Run,
        inversion: Inversion,
        method: Method,
        beside: Beside,
        starts: tuple[Tensor, Tensor],
        record: Mapping[str, Tensor],
    ) -> None:
        self.run, self.inversion, self.method, self.beside, self.record = run, inversion, method, beside, record
        self.starts = starts
        self.own: Predict | None = None  # of the sources, where they are asked apart
        self.source_scales = guidance_of(inversion, None, None).at(run.grid)

    def edits_record(self) -> State:
        """The record as it plays in the edits' branch."""
        return self.record if self.method.edit_state is None else self.method.edit_state(self.record)

    def conditions(self, guided: float) -> tuple[Condition, Condition | None]:
        """Of the sources, (S, ...)."""
        return prompts_of(self.inversion).conditions(self.run.model, len(self.inversion), guided)

    def apart(self) -> Steering:
        """Two predictions, each under its own guidance and with no more passes than that needs."""
        method, run, index = self.method, self.run, list(self.beside.source_of)
        own, free = self.conditions(max((w for w in self.source_scales if w != 1), default=1.0))
        self.own = source = Predict(run.model, run.grid, own, free, self.source_scales, len(self.inversion))
        target, played = run.predict, source
        if method.playback is not None:
            w = float(self.inversion.meta.guidance_scale)
            theirs, away = self.conditions(w)
            rows = self.starts[0].new_tensor(index).long()
            away = None if away is None else away.rows(rows)
            inverted = Predict(run.model, run.grid, theirs.rows(rows), away, w, len(index), run.cost)
            target, played = method.playback(target, inverted), method.playback(source, source)
        count, change = self.beside.count, method.edit_step or method.sample_step

        def step(_: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
            edited, ours = change(target, x[:count], grid, i, j, state["edits"])
            kept, theirs = method.sample_step(played, x[count:], grid, i, j, state["sources"])
            return self._blended(edited, kept, ours, theirs)

        edits = {name: value[index] for name, value in self.edits_record().items()}
        self.step, self.state = step, {"edits": edits, "sources": self.record}
        return Steering()

    def _blended(self, edited: Tensor, kept: Tensor, ours: State, theirs: State) -> tuple[Tensor, State]:
        import torch

        ours = self.beside.blended_state(ours, theirs, edited)
        return torch.cat([self.beside.blended(edited, kept), kept]), {"edits": ours, "sources": theirs}

    def steered(self, editor: Editor, scales: Sequence[float]) -> Steering:
        """One batch, with an editor that is told of every call."""
        assert editor.steer is not None
        run, beside, method = self.run, self.beside, self.method
        model = getattr(run.model, "bare", run.model)  # what an editor changes is not remembered
        guided = max((w for w in (*scales, *self.source_scales) if w != 1), default=1.0)
        guided = 0.0 if editor.needs_unconditional and guided == 1 else guided
        own, free = self.conditions(guided)
        rows = self.starts[0].new_tensor(list(beside.source_of)).long()
        target, away = run.condition, run.predict.unconditional
        if free is not None and away is None:
            away = run.prompts.conditions(run.model, beside.count, guided)[1]
        both = None if free is None or away is None else away.joined(free)
        guidance = [list(scales)] * beside.count + [list(self.source_scales)] * len(self.inversion)
        predict = BranchPredict(model, run.grid, target.joined(own), both, guidance, beside.source_of, cost=run.cost)
        branches = Branches(
            model,
            run.grid,
            run.stop,
            beside.source_of,
            self.inversion.meta.prompt,
            run.prompts.texts(beside.count),
            predict,
            self.starts[0],
            self.inversion.latents,
        )
        steering = predict.steering = editor.steer(branches)
        played: Any = predict
        if method.playback is not None:
            w = float(self.inversion.meta.guidance_scale)
            theirs = own.rows(rows).joined(own)
            nothing = None if free is None else free.rows(rows).joined(free)
            each = [[w] * (run.grid.num_steps + 1)] * len(guidance)
            source = BranchPredict(model, run.grid, theirs, nothing, each, beside.source_of, steering, run.cost)
            played = method.playback(predict, source)
        run.predict = steering.predict(played)

        def step(predict: Any, x: Tensor, grid: Grid, i: int, j: int, state: State) -> tuple[Tensor, State]:
            k = run.stop - i
            steering.before(k, i, j)
            x, state = steering.departs(k, i, x, state)
            x, state = method.sample_step(predict, x, grid, i, j, state)
            x, state = steering.after(k, j, x, state)
            return beside.blended_rows(x, state)

        self.step, self.state = step, beside.stacked(self.edits_record(), self.record)
        return steering

    def count_sources(self) -> None:
        """What the sources cost apart is counted to each of their edits."""
        if self.own is None:
            return
        cost, mine = self.run.cost, self.own.cost
        for k, s in enumerate(self.beside.source_of):
            cost.nfe[k] += mine.nfe[s]
            cost.backward[k] += mine.backward[s]
            cost.nonfinite[k] = cost.nonfinite[k] or mine.nonfinite[s]


def _named(guidance: PlayGuidance) -> str:
    from unsample.models.guidance import schedule_name

    return schedule_name(guidance.schedule)


def _shown(found: Masks | None, own: Tensor | None, made: Images) -> Tensor | None:
    """Where the pictures were let change, at their size: (T, 1, H, W) in [0, 1]; by a mask, by the editor, or both."""
    from torch.nn.functional import interpolate

    if own is None:
        return None if found is None else found.shown
    own = interpolate(own.float(), size=made.images.shape[-2:], mode="nearest").cpu()
    return own if found is None else own * found.shown
