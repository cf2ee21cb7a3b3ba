"""The grid: noise levels from clean (index 0) to noisiest (index N), taken from a diffusers scheduler as it is.

`x_i = alpha_i x_0 + sigma_i eps`. Sampling walks the indices down, inversion walks them up; both use these same
numbers, so a step never works out its own neighbour (diffusers' DDIM does, as `t - 1000 // N`, and then disagrees
with its own grid for `trailing` and `linspace`).
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible, shown
from unsample.numbers import levels
from unsample.numeric import is_whole

if TYPE_CHECKING:
    from torch import Tensor

FLOW = "flow_prediction"  # diffusers' name for a network that predicts eps - x0 on a grid with alpha + sigma = 1
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", FLOW)
MAX_STEPS = 10**6  # where no model says how many it was trained with
# spacings of Euler and DPM-Solver configs that the conversion to DDIM leaves out
RESPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


@dataclass(frozen=True)
class Grid:
    """N + 1 noise levels; index 0 is the clean end.

    alpha^2 + sigma^2 = 1 (the variance is preserved), or of a flow alpha + sigma = 1.

    `timesteps[0]` is 0: the clean end has no network timestep of its own, and timestep 0 stands for it.
    `eval_alpha` and `eval_sigma` are the levels at which a network output is converted; they differ from `alpha`
    and `sigma` at index 0 only, where they are those of timestep 0.
    """

    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    timesteps: tuple[float, ...]  # whole numbers where they are rows of a table
    eval_alpha: tuple[float, ...]
    eval_sigma: tuple[float, ...]
    prediction_type: str = "epsilon"
    clip: float | None = None  # clamp of the predicted x_0, off unless asked for
    meta: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def is_flow(self) -> bool:
        """Whether its levels are those of flow matching, `x = (1 - sigma) x0 + sigma eps`."""
        return self.prediction_type == FLOW

    @property
    def num_steps(self) -> int:
        """N, the number of steps."""
        return len(self.alpha) - 1

    def asked_at(self, i: int) -> tuple[float, int]:
        """The timestep that the network is asked at, and the sign of its answer: inverted sigmas count the picture."""
        trained = self.meta.get("invert_sigmas")
        return (self.timesteps[i], 1) if trained is None else (trained - self.timesteps[i], -1)

    def stop_index(self, strength: float) -> int:
        """The noisiest index that `strength` reaches: diffusers' `min(int(N * strength), N)`."""
        return min(int(self.num_steps * strength), self.num_steps)


def says_nothing(timestep: float) -> str:
    """Of an epsilon-predicting network at alpha = 0."""
    return (
        f"an epsilon-predicting network says nothing at alpha = 0 (zero terminal SNR, timestep {timestep:g}); use a "
        "v_prediction model, or rescale_betas_zero_snr=False"
    )


def check_steps(num_inference_steps: object, num_train_timesteps: int | None = None) -> int:
    """The number of steps as an int, or `BadOption`."""
    highest = num_train_timesteps or MAX_STEPS
    if not is_whole(num_inference_steps):
        raise BadOption(f"num_inference_steps must be a whole number; got {num_inference_steps!r}")
    count = int(num_inference_steps)
    if not 1 <= count <= highest:
        why = ", what the model was trained with" if num_train_timesteps else ""
        limit = f" and at most {highest}{why}" if num_train_timesteps or count > 0 else ""
        raise BadOption(f"num_inference_steps must be at least 1{limit}; got {shown(count)}")
    return count


def prediction_type_of(scheduler: Any) -> str:
    """What a scheduler's network predicts, in diffusers' words; that of a flow may be told by the scheduler's class."""
    name = levels.name_of(scheduler)
    if name in levels.FLOWS:
        return FLOW
    if name in levels.ANGLES:
        return "v_prediction"
    return str(getattr(scheduler, "config", {}).get("prediction_type", "epsilon"))


def grid_from_scheduler(
    scheduler: Any, num_inference_steps: int, *, clip: str = "off", timestep_spacing: str | None = None
) -> Grid:
    """The grid of a diffusers scheduler: its own timesteps, sigmas and end level, as its `set_timesteps` sets them.

    The scheduler given is not touched. DDPM, PNDM and the Parallel ones are converted to DDIM first, and so is any
    with a table where `timestep_spacing` is given; `meta` says so. Of a sampler of higher order or one that draws
    noise this is the grid of first order, and `meta["sampler"]` says what that sampler does beside it. Timesteps
    outside the training range are dropped (`trailing` gives an extra -1 for some counts).

    A point of the grid preserves the variance: the start of diffusers' Euler is `noise * init_noise_sigma`, in these
    terms `noise * init_noise_sigma / sqrt(1 + sigma_N^2)`, which of the tables in use is the noise to 0.3 %. `noise`
    is the point at the noisiest level itself.

    Args:
        scheduler: a diffusers scheduler (`numbers.levels.SERVED`).
        num_inference_steps: 1 to `num_train_timesteps`.
        clip: "off", or "config" to clamp the predicted x_0 where the scheduler's config says `clip_sample`.
        timestep_spacing: in place of the scheduler's own.

    Raises:
        BadOption: a number of steps that the scheduler cannot give, or another value of `clip`.
        Incompatible: a scheduler whose levels are not known or cannot be walked back, or thresholding asked for with
            `clip="config"`.
    """
    if clip not in ("off", "config"):
        raise BadOption(f"clip must be 'off' or 'config'; got {clip!r}")
    name = levels.check_served(scheduler)
    if name in levels.CONVERTED or timestep_spacing is not None:
        own = as_ddim(scheduler, timestep_spacing)
    else:
        own = copy.deepcopy(scheduler)
    num_inference_steps = check_steps(num_inference_steps, own.config.num_train_timesteps)
    _set_timesteps(own, num_inference_steps)
    grid = _read(own, clip)
    if grid.num_steps != num_inference_steps:
        raise BadOption(
            f"asked for {num_inference_steps} steps, but {type(scheduler).__name__} with "
            f"timestep_spacing={own.config.get('timestep_spacing')!r}, steps_offset={own.config.get('steps_offset')} "
            f"has {grid.num_steps} of them inside its training range; use at most {grid.num_steps} steps, or a "
            "scheduler with timestep_spacing='linspace'"
        )
    _say_what_is_kept(grid)
    converted = type(own).__name__ != type(scheduler).__name__
    return replace(grid, meta={**grid.meta, "scheduler": type(scheduler).__name__, "converted_to_ddim": converted})


def grid_of_set(scheduler: Any, *, clip: str = "off") -> Grid:
    """The grid of the timesteps and sigmas that are set on a scheduler now, by its pipeline for example.

    Args:
        scheduler: as in `grid_from_scheduler`, but for PNDM; it is read and not touched.
        clip: as there.

    Raises:
        Incompatible: as there.
    """
    grid = _read(scheduler, clip)
    if grid.num_steps < 1:
        raise Incompatible(f"no timestep of {type(scheduler).__name__} lies inside its training range")
    _say_what_is_kept(grid)
    return grid


def _read(scheduler: Any, clip: str) -> Grid:
    """What is set, as a grid."""
    kind = prediction_type_of(scheduler)
    set_now = levels.levels_of(scheduler, kind == FLOW)
    if kind not in PREDICTION_TYPES:
        raise Incompatible(
            f"{type(scheduler).__name__} has prediction_type {kind!r}; supported are {', '.join(PREDICTION_TYPES)}"
        )
    points = _distinct(type(scheduler).__name__, set_now)
    clean = (set_now.alpha[-1], set_now.sigma[-1], 0)
    alpha, sigma, timesteps = zip(clean, *reversed(points), strict=True)
    meta = {
        "scheduler": type(scheduler).__name__,
        "converted_to_ddim": False,
        "prediction_type": kind,
        "rescale_betas_zero_snr": bool(levels.setting(scheduler, "rescale_betas_zero_snr")),
        "clip": clip,
        **levels.recorded(scheduler),
    }
    if (sampler := levels.sampler_of(scheduler)) is not None:
        meta["sampler"] = sampler
    if len({*timesteps[1:]}) < len(points):
        meta["rounded"] = True  # its timesteps are rounded, and some of other levels are the same
    if (trained := levels.inverted(scheduler)) is not None:
        meta["invert_sigmas"] = trained
    zero = set_now.zero
    limit = _limit(scheduler) if clip == "config" else None
    return Grid(alpha, sigma, timesteps, (zero[0], *alpha[1:]), (zero[1], *sigma[1:]), kind, limit, meta)


def _distinct(name: str, found: levels.Levels) -> list[tuple[float, float, float]]:
    """alpha, sigma and timestep of each point but the clean end, noisiest first; whole timesteps as such."""
    whole = [int(t) if t == int(t) else t for t in found.timesteps]
    points = list(dict.fromkeys(zip(found.alpha, found.sigma, whole, strict=False)))
    noise = [sigma for _, sigma, _ in points]
    if noise != sorted(noise, reverse=True) or found.sigma[-1] > min(noise, default=1):
        raise Incompatible(f"{name}: its levels do not run from noisy to clean: sigma {shown(found.sigma)}")
    return points


def _limit(scheduler: Any) -> float | None:
    """Where the predicted x0 is clamped, of a scheduler that does so."""
    if levels.setting(scheduler, "thresholding"):
        raise Incompatible("clip='config' was asked for, but dynamic thresholding is not invertible; use clip='off'")
    return float(scheduler.config.clip_sample_range) if levels.setting(scheduler, "clip_sample") else None


def _say_what_is_kept(grid: Grid) -> None:
    """A noisiest point that holds much of the picture."""
    picture, noise = grid.alpha[-1] ** 2, grid.sigma[-1] ** 2
    if (kept := picture / (picture + noise)) > 0.1:
        way = "a noisier first timestep" if grid.is_flow else "a scheduler with timestep_spacing='trailing'"
        warnings.warn(
            f"the noisiest of {grid.num_steps} grid points keeps alphas_cumprod = {kept:.3g} > 0.1: the "
            f"recovered noise still holds the picture; use more steps, or {way}",
            stacklevel=5,
        )


def _set_timesteps(scheduler: Any, num_inference_steps: int) -> None:
    """`set_timesteps`, with a refusal where the scheduler has one."""
    name, more = levels.name_of(scheduler), {}
    if levels.setting(scheduler, "use_dynamic_shifting") and name in (*levels.FLOWS, "UniPCMultistepScheduler"):
        raise Incompatible(
            f"{name} shifts its levels with the size of the picture (use_dynamic_shifting), by a mu that its pipeline "
            "works out; load the pipeline, or give it use_dynamic_shifting=False and a shift"
        )
    if name == "SCMScheduler" and num_inference_steps != 2:
        more = {"intermediate_timesteps": None}
    try:
        scheduler.set_timesteps(num_inference_steps, **more)
    except ValueError as error:
        raise BadOption(f"{name} cannot give {num_inference_steps} steps: {error}") from error


MOST_LEAP = 50.0  # linear and sigmoid schedules make at most 12 in 5 steps, a cosine that ends near 0 158 in 200


def leap(grid: Grid, stop: int) -> float:
    """The factor by which the step into the noisiest point reached makes alpha smaller; 1 out of the picture itself."""
    if grid.timesteps[stop - 1] == 0:
        return 1.0  # one step, or two of which the first has no length: there is nothing between that it leaps over
    return grid.alpha[stop - 1] / grid.alpha[stop] if grid.alpha[stop] > 0 else math.inf


def end_of(grid: Grid, stop: int, *, sampling: bool = False, whose: str = "") -> str:
    """The step into the noisiest point in words, where it leaps, and what to do; `whose` spacing it is."""
    spacing = f"{whose}timestep_spacing='leading', which ends at a lower timestep"
    kept = math.ceil(1000 * (stop - 1) / grid.num_steps) / 1000
    ways = [spacing] if grid.meta.get("timestep_spacing") != "leading" else []
    ways += [f"strength={kept:g}, a step less"] if stop > 1 and not sampling else []
    return (
        f"between timesteps {grid.timesteps[stop - 1]:g} and {grid.timesteps[stop]:g} alpha goes from "
        f"{grid.alpha[stop - 1]:.2g} to {grid.alpha[stop]:.2g}, a factor of {leap(grid, stop):.0f}; use "
        f"{', or '.join(ways) or 'a schedule that does not end at 0'}"
    )


def check_end(grid: Grid, stop: int, *, sampling: bool = False) -> None:
    """Say before any work that an epsilon-predicting network cannot be used at the noisiest point, or hardly.

    Its x0 is (x - sigma eps) / alpha, so a sampling step from there magnifies every error of eps by `leap`.

    Raises:
        Incompatible: alpha is 0.
    """
    if grid.prediction_type != "epsilon":
        return
    if grid.alpha[stop] == 0:
        raise Incompatible(says_nothing(grid.timesteps[stop]))
    if leap(grid, stop) > MOST_LEAP:
        warnings.warn(
            f"sampling magnifies what an epsilon-predicting network gets wrong by the last leap of alpha: "
            f"{end_of(grid, stop, sampling=sampling)}",
            stacklevel=3,
        )


def as_ddim(scheduler: Any, timestep_spacing: str | None = None) -> Any:
    """A fresh `DDIMScheduler` of the same table, with another spacing if one is given; the one given is not touched.

    Raises:
        Incompatible: a scheduler without a table, or with one that DDIM does not know.
    """
    from diffusers import DDIMScheduler

    name = type(scheduler).__name__
    if not hasattr(scheduler, "alphas_cumprod") or prediction_type_of(scheduler) == FLOW:
        raise Incompatible(f"{name} has no table of alphas_cumprod, so no other timestep_spacing; leave it out (None)")
    config = dict(scheduler.config)
    if config.get("prediction_type", "epsilon") not in PREDICTION_TYPES:
        raise Incompatible(
            f"{name} has prediction_type {config['prediction_type']!r}; supported are {', '.join(PREDICTION_TYPES)}"
        )
    left_out = [n for n in RESPACINGS if levels.setting(scheduler, n)]
    if left_out:
        warnings.warn(f"{name}: {', '.join(left_out)} is left out; timestep_spacing alone makes the grid", stacklevel=5)
    known = set(inspect.signature(DDIMScheduler.__init__).parameters)
    try:
        ddim = DDIMScheduler.from_config({k: v for k, v in config.items() if k in known})
    except NotImplementedError as error:
        raise Incompatible(
            f"{name} has beta_schedule {config.get('beta_schedule')!r}, which DDIM does not know; give its numbers as "
            "trained_betas"
        ) from error
    if name == "DDIMScheduler":  # its tables may have been changed in place, to float64 say
        ddim.alphas_cumprod, ddim.final_alpha_cumprod = scheduler.alphas_cumprod, scheduler.final_alpha_cumprod
    if timestep_spacing is not None:
        ddim.register_to_config(timestep_spacing=timestep_spacing)
    return ddim


def transfer(x: Tensor, direction: Tensor, grid: Grid, i: int, j: int) -> Tensor:
    """Carry `x` from grid point i to j along the line that eps fixes, either way (DDIM, Eq. 12).

    Of a flow that is Euler's step along the velocity eps - x0, which divides by nothing.

    Args:
        x: (B, ...), at i.
        direction: eps, or of a flow the velocity (`prediction.direction`).
        grid: the noise levels.
        i: where x is.
        j: where it is carried.

    Reference: Song, Meng and Ermon, 2021, arXiv:2010.02502.
    """
    if grid.is_flow:
        return x + (grid.sigma[j] - grid.sigma[i]) * direction
    x0 = (x - grid.sigma[i] * direction) / grid.alpha[i]
    if grid.clip is not None:
        x0 = x0.clamp(-grid.clip, grid.clip)
    return grid.alpha[j] * x0 + grid.sigma[j] * direction
