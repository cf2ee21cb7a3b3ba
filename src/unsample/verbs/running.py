"""One walk with everything that hangs on it: finite checks, callback, trajectory, progress, cost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Diverged, LostAt, UnsampleWarning
from unsample.methods import Method, Task
from unsample.models.base import Model
from unsample.models.calling import evaluating
from unsample.models.guidance import Cost, Predict, spoken
from unsample.numbers.grid import Grid
from unsample.numbers.walk import State, Step, walk
from unsample.verbs.inputs import GivenImages, Prompts
from unsample.verbs.results import Images

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Callback = Callable[[Any, int, int, "dict[str, Any]"], "dict[str, Any] | None"]


@dataclass(frozen=True)
class Watching:
    """How a caller wants to watch a walk."""

    keep_trajectory: bool = False
    callback: Callback | None = None
    progress: bool | None = None


@dataclass
class Watch:
    """Everything that hangs on the loop: finite check, callback, trajectory, progress."""

    model: Model
    grid: Grid
    points: range
    asked: Watching
    verb: str
    pivots: list[Tensor] | None = None  # a list to keep the points in, on their device
    trajectory: list[Tensor] = field(default_factory=list)
    lost_at: dict[int, LostAt] = field(default_factory=dict)
    cost: Cost = field(default_factory=lambda: Cost([]))

    def run(self, step: Step, predict: Predict, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Walk, watched."""
        from tqdm import tqdm

        self.cost = predict.cost
        self.trajectory = [x.cpu()] if self.asked.keep_trajectory else []
        if self.pivots is not None:
            self.pivots.append(x)
        self.bar = tqdm(total=len(self.points) - 1, desc=self.verb, disable=self.hidden, leave=False)
        with self.bar:
            return walk(step, predict, x, self.grid, self.points, state, self.observe)

    @property
    def hidden(self) -> bool | None:
        """Whether bars are hidden; None: shown on a terminal only."""
        return None if self.asked.progress is None else not self.asked.progress

    def progress(self, steps: Iterable[int], what: str) -> Iterable[int]:
        """The steps of a method's own loop, with a bar."""
        from tqdm import tqdm

        return tqdm(steps, desc=f"{self.verb}: {what}", disable=self.hidden, leave=False)

    def observe(self, k: int, j: int, x: Tensor, state: State) -> Tensor:
        """After each step."""
        timestep = self.grid.timesteps[max(j, self.points[k])]  # the noisier end: where the network was asked
        if self.asked.callback is not None:
            x = _replaced(x, self.asked.callback(self.model, k, timestep, {"latents": x}))
        finite = x.flatten(1).isfinite().all(1)
        if not bool(finite.all()):
            where = LostAt("step", k + 1, len(self.points) - 1, timestep)
            for row in (~finite).nonzero().flatten().tolist():
                self.lost_at.setdefault(row, where)
            if len(self.lost_at) == len(x):
                raise Diverged(
                    f"{self.verb} with {self.model.id} diverged: no picture was finite any more at {where}"
                    f"{self.cost.because(row)}; try more steps, guidance 1, another method, or dtype float32",
                    self.cost.nonfinite,
                    self.places(len(x)),
                )
        if self.asked.keep_trajectory:
            self.trajectory.append(x.cpu())
        if self.pivots is not None:
            self.pivots.append(x)
        self.bar.update()
        return x

    def warn_lost(self, stacklevel: int) -> None:
        """One warning that names every picture that was lost, and where."""

        def text(name: Callable[[int], str]) -> str:
            lost = ", ".join(f"{name(k)} diverged at {where}" for k, where in self.lost_at.items())
            return f"{self.verb}: {lost}; the others are untouched"

        if self.lost_at:
            warnings.warn(UnsampleWarning("diverged", text, self.lost_at), stacklevel=stacklevel)

    def places(self, count: int) -> list[LostAt | None]:
        """Where each of `count` pictures was lost."""
        return [self.lost_at.get(k) for k in range(count)]

    def kept(self) -> Tensor | None:
        """(N + 1, B, C, H, W) in the order of the walk, or None."""
        import torch

        return torch.stack(self.trajectory) if self.asked.keep_trajectory else None


def warn_nonfinite(verb: str, cost: Cost, status: Sequence[str]) -> None:
    """Name the pictures that the network failed and that are finite all the same; of a lost one the result tells."""
    failed = {k: where for k, where in enumerate(cost.nonfinite) if where and status[k] != "diverged"}

    def text(name: Callable[[int], str]) -> str:
        return f"{verb}: {'; '.join(f'{name(k)} ({status[k]}): {spoken(where)}' for k, where in failed.items())}"

    if failed:
        warnings.warn(UnsampleWarning("nonfinite", text, failed), stacklevel=5)


def recorded(places: Sequence[LostAt | None]) -> list[dict[str, Any] | None]:
    """Where the pictures were lost, as it stands in a result's meta."""
    return [None if where is None else asdict(where) for where in places]


def _replaced(x: Tensor, returned: Any) -> Tensor:
    """The latents, or those that a callback returned in their place."""
    if not returned:
        return x
    latents = returned.get("latents", x) if isinstance(returned, Mapping) else returned
    if getattr(latents, "shape", None) != x.shape:
        raise BadOption(
            'callback_on_step_end must return nothing or {"latents": ...} of '
            f"{tuple(x.shape)}; got {type(returned).__name__}"
        )
    return latents if isinstance(returned, Mapping) else x


def encoded(model: Model, given: GivenImages | None, latents: Tensor | None) -> Tensor:
    """The start of the walk: (B, C, h, w) on the model's device, in the state's dtype."""
    import torch

    with torch.no_grad(), evaluating(model):
        x0 = latents if given is None else model.encode(given.images.to(model.device))
    assert x0 is not None
    return x0.to(model.device, state_dtype(model, latents, given.images if given else None), copy=latents is not None)


def state_dtype(model: Model, *given: Tensor | None) -> torch.dtype:
    """float32, or float64 when the network or what was given is."""
    import torch

    wide = model.dtype is torch.float64 or any(t is not None and t.dtype is torch.float64 for t in given)
    return torch.float64 if wide else torch.float32


class Run:
    """One walk: model, grid, condition, watch. Making it embeds the prompts and refuses what does not go together."""

    def __init__(
        self,
        model: Model,
        grid: Grid,
        prompts: Prompts,
        count: int,
        w: float | tuple[float, ...],
        stop: int,
        asked: Watching,
        verb: str,
        sampling: tuple[float, ...] | None = None,
    ) -> None:
        """`w` is the guidance of this walk, one scale or one a grid point; `sampling` that of the playback to come."""
        import torch

        self.begin, self.model, self.grid, self.stop = time.perf_counter(), model, grid, stop
        self.asked, self.verb = asked, verb
        every = {*(w if isinstance(w, tuple) else [w]), *(sampling or ())}
        with torch.no_grad(), evaluating(model):
            self.condition, free = prompts.conditions(model, count, max((v for v in every if v != 1), default=1.0))
        self.predict = Predict(model, grid, self.condition, free, w, count)
        self.playback = self.predict
        if sampling is not None:
            self.playback = Predict(model, grid, self.condition, free, sampling, count, self.predict.cost)

    def invert(
        self, x: Tensor, method: Method, generators: Sequence[torch.Generator], trajectory: Tensor | None
    ) -> tuple[Tensor, State]:
        import torch

        self.watch = Watch(self.model, self.grid, range(self.stop + 1), self.asked, self.verb)
        self.watch.pivots = None if method.fit is None else []
        self._check_start(x)
        task = Task(self.predict, self.playback, self.grid, self.stop, x, generators, trajectory, self.watch.progress)
        with torch.no_grad(), evaluating(self.model):
            state = {} if method.begin is None else method.begin(task)
            noise, state = self.watch.run(method.invert_step, self.predict, x, state)
            if method.fit is not None:
                state = method.fit(task, self.watch.pivots or [], state)
        return noise, state

    def _check_start(self, x: Tensor) -> None:
        """Pictures that the encoder lost are lost there, not at the first step."""
        lost = (~x.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        vae = getattr(self.model, "vae", None)
        what = "the model" if vae is None else f"{type(vae).__name__} in {vae.dtype}"
        where = LostAt("encoder", what=f"{what} is not finite")
        self.watch.lost_at |= dict.fromkeys(lost, where)
        if len(lost) == len(x):
            raise Diverged(
                f"{self.verb} with {self.model.id}: no picture is finite any more after {where}: a VAE in float16 "
                "overflows; put it in float32 (vae.to(torch.float32)), as unsample.load does from a folder",
                [None] * len(x),
                self.watch.places(len(x)),
            )

    def sample(self, x: Tensor, step: Step, state: State | None = None) -> Images:
        import torch

        self.watch = Watch(self.model, self.grid, range(self.stop, -1, -1), self.asked, self.verb)
        with torch.no_grad(), evaluating(self.model):
            latents, _ = self.watch.run(step, self.predict, x, state)
            images = self.model.decode(latents).float()
        for k in (~images.flatten(1).isfinite().all(1)).nonzero().flatten().tolist():
            self.watch.lost_at.setdefault(k, LostAt("decoder"))
        status = ["diverged" if k in self.watch.lost_at else "ok" for k in range(len(x))]
        self._report(status)
        cost, seconds = self.predict.cost, time.perf_counter() - self.begin
        shown = images.clamp(0, 1)
        kept = self.watch.kept()
        about = {"nonfinite_at": cost.nonfinite, "lost_at": recorded(self.watch.places(len(x)))}
        return Images(shown, latents, x, status, cost.nfe, cost.backward, seconds, trajectory=kept, meta=about)

    def _report(self, status: list[str]) -> None:
        if all(s == "diverged" for s in status):
            raise Diverged(
                f"{self.verb} with {self.model.id}: the decoder's output is not finite for any picture",
                self.predict.cost.nonfinite,
                self.watch.places(len(status)),
            )
        self.watch.warn_lost(stacklevel=5)
        warn_nonfinite(self.verb, self.predict.cost, status)
