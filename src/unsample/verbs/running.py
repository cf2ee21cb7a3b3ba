"""One walk with everything that hangs on it: finite checks, callback, trajectory, progress, cost."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Diverged, LostAt, UnsampleWarning
from unsample.methods import Method, Task
from unsample.methods.base import Seen
from unsample.models.base import Model
from unsample.models.calling import evaluating
from unsample.models.guidance import Cost, Predict, spoken
from unsample.models.listening import is_heard, listener
from unsample.numbers.grid import Grid
from unsample.numbers.walk import State, Step, walk
from unsample.verbs.inputs import GivenImages
from unsample.verbs.prompts import Prompts
from unsample.verbs.results import Images

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Callback = Callable[[Any, int, float, "dict[str, Any]"], "dict[str, Any] | None"]


@dataclass(frozen=True)
class Watching:
    """The verb that walks, and how a caller wants to watch it."""

    verb: str
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
    cost: Cost
    pivots: list[Tensor] | None = None  # a list to keep the points in, on their device
    first: Tensor | None = None  # where the first step out of the clean end led
    trajectory: list[Tensor] = field(default_factory=list)
    lost_at: dict[int, LostAt] = field(default_factory=dict)

    @contextmanager
    def from_start(self, x: Tensor) -> Iterator[Callable[[int, int, Tensor, State], Tensor]]:
        """While it lasts, a bar is shown; what it gives is called after each step of a walk from `x`."""
        from tqdm import tqdm

        self._keep(x)
        with tqdm(total=len(self.points) - 1, desc=self.asked.verb, disable=self.hidden, leave=False) as self.bar:
            yield self.observe

    @property
    def hidden(self) -> bool | None:
        """Whether bars are hidden, as they are where somebody listens; None: shown on a terminal only."""
        return is_heard() or (None if self.asked.progress is None else not self.asked.progress)

    def progress(self, steps: Iterable[int], what: str) -> Iterable[int]:
        """The steps of a method's own loop, with a bar."""
        from tqdm import tqdm

        each = list(steps)
        for done, step in enumerate(tqdm(each, desc=f"{self.asked.verb}: {what}", disable=self.hidden, leave=False)):
            yield step
            listener().stepped(f"{self.asked.verb}: {what}", done + 1, len(each))

    def observe(self, k: int, j: int, x: Tensor, state: State) -> Tensor:
        """After each step."""
        timestep = self.grid.timesteps[max(j, self.points[k])]  # the noisier end: where the network was asked
        if self.asked.callback is not None:
            x = _replaced(x, self.asked.callback(self.model, k, timestep, {"latents": x}))
        if not math.isfinite(x.sum().item()):  # one number, so that a sound step costs next to nothing
            self._look_for_lost(x, LostAt("step", k + 1, len(self.points) - 1, timestep))
        if self.points[k] == 0:
            self.first = x
        self._keep(x)
        self.bar.update()
        listener().stepped(self.asked.verb, k + 1, len(self.points) - 1)
        return x

    def _keep(self, x: Tensor) -> None:
        if self.asked.keep_trajectory:
            self.trajectory.append(x.cpu())
        if self.pivots is not None:
            self.pivots.append(x)

    def _look_for_lost(self, x: Tensor, where: LostAt) -> None:
        """Which pictures are not finite; an error where none is left."""
        lost = not_finite(x)
        for row in lost:
            self.lost_at.setdefault(row, where)
        if lost and len(self.lost_at) == len(x):
            raise Diverged(
                f"{self.asked.verb} with {self.model.id} diverged: no picture was finite any more at {where}"
                f"{self.cost.because(lost[-1])}; try more steps, guidance 1, another method, or dtype float32",
                self.cost.nonfinite,
                self.places(len(x)),
            )

    def warn_lost(self, stacklevel: int) -> None:
        """One warning that names every picture that was lost, and where."""

        def text(name: Callable[[int], str]) -> str:
            lost = ", ".join(f"{name(k)} diverged at {where}" for k, where in self.lost_at.items())
            return f"{self.asked.verb}: {lost}; the others are untouched"

        if self.lost_at:
            warnings.warn(UnsampleWarning("diverged", text, self.lost_at), stacklevel=stacklevel)

    def warn_nonfinite(self, status: Sequence[str], stacklevel: int) -> None:
        """Name the pictures that the network failed and that are finite all the same; of a lost one `lost_at` tells."""
        failed = {k: where for k, where in enumerate(self.cost.nonfinite) if where and status[k] != "diverged"}

        def text(name: Callable[[int], str]) -> str:
            told = [f"{name(k)} ({status[k]}): {spoken(where)}" for k, where in failed.items()]
            return f"{self.asked.verb}: {'; '.join(told)}"

        if failed:
            warnings.warn(UnsampleWarning("nonfinite", text, failed), stacklevel=stacklevel)

    def places(self, count: int) -> list[LostAt | None]:
        """Where each of `count` pictures was lost."""
        return [self.lost_at.get(k) for k in range(count)]

    def kept(self) -> Tensor | None:
        """(N + 1, B, C, H, W) in the order of the walk, or None."""
        import torch

        return torch.stack(self.trajectory) if self.asked.keep_trajectory else None


def not_finite(x: Tensor) -> list[int]:
    """The rows of `x` (B, ...) that hold a number which is not finite."""
    return (~x.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()


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
    x0 = latents if given is None else model.encode(given.images.to(model.device))
    assert x0 is not None
    return x0.to(model.device, state_dtype(model, latents, given.images if given else None), copy=latents is not None)


def state_dtype(model: Model, *given: Tensor | None) -> torch.dtype:
    """float32, or float64 when the network or what was given is."""
    import torch

    wide = model.dtype is torch.float64 or any(t is not None and t.dtype is torch.float64 for t in given)
    return torch.float64 if wide else torch.float32


@contextmanager
def quiet(model: Model) -> Iterator[None]:
    """While it lasts, no gradients are kept, and the model's networks are in evaluation mode."""
    import torch

    with torch.no_grad(), evaluating(model, stacklevel=6):
        yield


class Run:
    """One walk: model, grid, condition, watch. Making it embeds the prompts and refuses what does not go together.

    It is made and used while the model is `quiet`.

    Args:
        model: the adapter.
        grid: the noise levels.
        stop: the noisiest grid point of the walk.
        prompts: what the pictures are conditioned on.
        count: of the pictures.
        scales: guidance at every grid point, of this walk and then, if there is one, of the sampling to come.
        asked: which verb walks, and how it is watched.
    """

    def __init__(
        self,
        model: Model,
        grid: Grid,
        stop: int,
        prompts: Prompts,
        count: int,
        scales: Sequence[tuple[float, ...]],
        asked: Watching,
    ) -> None:
        self.begin, self.model, self.grid, self.stop = time.perf_counter(), model, grid, stop
        self.prompts, self.count, self.asked = prompts, count, asked
        guided = max((w for each in scales for w in each if w != 1), default=1.0)
        self.condition, free = prompts.conditions(model, count, guided)
        predicts = [Predict(model, grid, self.condition, free, scales[0], count)]
        predicts += [Predict(model, grid, self.condition, free, w, count, predicts[0].cost) for w in scales[1:]]
        self.predict, self.playback = predicts[0], predicts[-1]
        self.cost: Cost = self.predict.cost  # of the walk so far
        self.beside: Tensor | None = None  # the pictures that came of the rows beside

    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self.begin

    def invert(
        self,
        x: Tensor,
        method: Method,
        generators: Sequence[torch.Generator],
        trajectory: Tensor | None,
        pictures: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Walk up from the clean end, which `pictures` were encoded to: the noise, and the state that is kept."""
        watch = self._watch(range(self.stop + 1))
        watch.pivots = None if method.fit is None else []
        self._check_start(x)
        seen = Seen(self.model.encode, self.model.decode, None if pictures is None else pictures.to(x.device))
        given = (self.grid, self.stop, x, generators, trajectory, watch.progress, seen)
        task = Task(self.predict, self.playback, *given)
        state = {} if method.begin is None else method.begin(task)
        with watch.from_start(x) as observe:
            noise, state = walk(method.invert_step, self.predict, x, self.grid, watch.points, state, observe)
        if method.fit is not None:
            state = method.fit(task, watch.pivots or [], state)
        return noise, state

    def first_step_radius(self, x0: Tensor) -> Tensor:
        """Of the walk up from x0: (B,); counted as the walk is."""
        from unsample.numbers.spectrum import first_step_radius

        assert self.watch.first is not None
        return first_step_radius(self.predict, x0, self.watch.first)

    def sample(self, x: Tensor, step: Step, state: State | None = None, beside: Tensor | None = None) -> Images:
        """Walk down from the noisiest point, and decode; the images say nothing yet of how they were made.

        Rows `beside` are walked below those of x and watched by nobody; `self.beside` then has their pictures.
        """
        import torch

        watch, count = self._watch(range(self.stop, -1, -1)), len(x)
        start = x if beside is None else torch.cat([x, beside])
        with watch.from_start(x) as observe:

            def own(k: int, j: int, reached: Tensor, state: State) -> Tensor:
                return torch.cat([observe(k, j, reached[:count], state), reached[count:]])

            seen = observe if beside is None else own
            latents, _ = walk(step, self.predict, start, self.grid, watch.points, state, seen)
        if beside is not None:  # decoded apart, so that each is what it is alone
            self.beside, latents = self.model.decode(latents[count:]).float().clamp(0, 1), latents[:count]
        images = self.model.decode(latents).float()
        for k in not_finite(images):
            watch.lost_at.setdefault(k, LostAt("decoder"))
        status = ["diverged" if k in watch.lost_at else "ok" for k in range(len(x))]
        self._report(status)
        cost, shown = self.cost, images.clamp(0, 1)
        return Images(shown, latents, x, status, cost.nfe, cost.backward, self.seconds(), trajectory=watch.kept())

    def _watch(self, points: range) -> Watch:
        self.watch = Watch(self.model, self.grid, points, self.asked, self.cost)
        return self.watch

    def _check_start(self, x: Tensor) -> None:
        """Pictures that the encoder lost are lost there, not at the first step."""
        lost = not_finite(x)
        vae = getattr(self.model, "vae", None)
        what = "the model" if vae is None else f"{type(vae).__name__} in {vae.dtype}"
        where = LostAt("encoder", what=f"{what} is not finite")
        self.watch.lost_at |= dict.fromkeys(lost, where)
        if len(lost) == len(x):
            raise Diverged(
                f"{self.asked.verb} with {self.model.id}: no picture is finite any more after {where}: a VAE in "
                "float16 overflows; put it in float32 (vae.to(torch.float32)), as unsample.load does from a folder",
                [None] * len(x),
                self.watch.places(len(x)),
            )

    def _report(self, status: list[str]) -> None:
        if all(s == "diverged" for s in status):
            raise Diverged(
                f"{self.asked.verb} with {self.model.id}: the decoder's output is not finite for any picture",
                self.cost.nonfinite,
                self.watch.places(len(status)),
            )
        self.watch.warn_lost(stacklevel=5)
        self.watch.warn_nonfinite(status, stacklevel=5)
