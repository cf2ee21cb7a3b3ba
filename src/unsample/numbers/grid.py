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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unsample.errors import BadOption, Incompatible, shown
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

    def stop_index(self, strength: float) -> int:
        """The noisiest index that `strength` reaches: diffusers' `min(int(N * strength), N)`."""
        return min(int(self.num_steps * strength), self.num_steps)


def says_nothing(timestep: float) -> str:
    """Of an epsilon-predicting network at alpha = 0."""
    return (
        f"an epsilon-predicting network says nothing at alpha = 0 (zero terminal SNR, timestep {timestep}); use a "
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
    """What a scheduler's network predicts, in diffusers' words; flow matching names it in the scheduler's class."""
    if type(scheduler).__name__.startswith("FlowMatch"):
        return FLOW
    return str(getattr(scheduler, "config", {}).get("prediction_type", "epsilon"))


def grid_from_scheduler(
    scheduler: Any, num_inference_steps: int, *, clip: str = "off", timestep_spacing: str | None = None
) -> Grid:
    """The grid of a diffusers scheduler.

    Any discrete scheduler other than DDIM is converted with `DDIMScheduler.from_config` first and the original is
    recorded in `meta`. Timesteps outside the training range are dropped (`trailing` gives an extra -1 for some
    counts).

    Args:
        scheduler: a diffusers scheduler with a discrete `betas` table.
        num_inference_steps: 1 to `num_train_timesteps`.
        clip: "off", or "config" to clamp the predicted x_0 where the scheduler's config says `clip_sample`.
        timestep_spacing: in place of the scheduler's own.

    Raises:
        BadOption: a number of steps that the scheduler cannot give, or another value of `clip`.
        Incompatible: a scheduler that is not discrete or that DDIM cannot stand for, or thresholding asked for with
            `clip="config"`.
    """
    if clip not in ("off", "config"):
        raise BadOption(f"clip must be 'off' or 'config'; got {clip!r}")
    if prediction_type_of(scheduler) == FLOW:
        return _flow_grid(scheduler, num_inference_steps)
    ddim = as_ddim(scheduler)
    if timestep_spacing is not None:
        ddim.register_to_config(timestep_spacing=timestep_spacing)
    config = ddim.config
    num_inference_steps = check_steps(num_inference_steps, config.num_train_timesteps)
    if len(ddim.alphas_cumprod) != config.num_train_timesteps:
        raise Incompatible(
            f"{type(scheduler).__name__} has num_train_timesteps={config.num_train_timesteps} and a table of "
            f"{len(ddim.alphas_cumprod)} betas; the two must agree"
        )
    ddim.set_timesteps(num_inference_steps)
    listed = [int(t) for t in ddim.timesteps.tolist()]
    inside = sorted({t for t in listed if 0 <= t < config.num_train_timesteps})
    if len(inside) != num_inference_steps:
        raise BadOption(
            f"asked for {num_inference_steps} steps, but {type(scheduler).__name__} with timestep_spacing="
            f"{config.timestep_spacing!r}, steps_offset={config.steps_offset} has {len(inside)} of them inside its "
            f"training range; use at most {len(inside)} steps, or a scheduler with timestep_spacing='linspace'"
        )
    if clip == "config" and config.get("thresholding"):
        raise Incompatible("clip='config' was asked for, but dynamic thresholding is not invertible; use clip='off'")
    table = ddim.alphas_cumprod.double().tolist()
    clean, zero = float(ddim.final_alpha_cumprod), table[0]
    abar = [clean, *(table[t] for t in inside)]
    if abar[-1] > 0.1:
        warnings.warn(
            f"the noisiest of {num_inference_steps} grid points keeps alphas_cumprod = {abar[-1]:.3g} > 0.1: the "
            "recovered noise still holds the picture; use more steps, or a scheduler with timestep_spacing='trailing'",
            stacklevel=4,
        )
    converted = None if type(scheduler).__name__ == "DDIMScheduler" else type(scheduler).__name__
    meta = {
        "scheduler": type(scheduler).__name__,
        "converted_to_ddim": converted is not None,
        "timestep_spacing": config.timestep_spacing,
        "steps_offset": config.steps_offset,
        "set_alpha_to_one": config.set_alpha_to_one,
        "prediction_type": config.prediction_type,
        "rescale_betas_zero_snr": bool(config.get("rescale_betas_zero_snr", False)),
        "clip": clip,
    }
    return Grid(
        alpha=tuple(math.sqrt(a) for a in abar),
        sigma=tuple(math.sqrt(1 - a) for a in abar),
        timesteps=(0, *inside),
        eval_alpha=tuple(math.sqrt(a) for a in [zero, *abar[1:]]),
        eval_sigma=tuple(math.sqrt(1 - a) for a in [zero, *abar[1:]]),
        prediction_type=config.prediction_type,
        clip=float(config.clip_sample_range) if clip == "config" and config.clip_sample else None,
        meta=meta,
    )


def _flow_grid(scheduler: Any, num_inference_steps: int) -> Grid:
    """The scheduler's own sigmas and timesteps, which need not be whole; alpha = 1 - sigma."""
    own = copy.deepcopy(scheduler)
    own.set_timesteps(check_steps(num_inference_steps, own.config.num_train_timesteps))
    sigma = tuple(float(s) for s in own.sigmas.double().flip(0))
    alpha = tuple(1 - s for s in sigma)
    timesteps = (0, *(float(t) for t in own.timesteps.double().flip(0)))
    return Grid(alpha, sigma, timesteps, alpha, sigma, FLOW, None, {"scheduler": type(scheduler).__name__})


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
        f"between timesteps {grid.timesteps[stop - 1]} and {grid.timesteps[stop]} alpha goes from "
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


def as_ddim(scheduler: Any) -> Any:
    """A fresh `DDIMScheduler` of the same tables; the scheduler given is not touched."""
    from diffusers import DDIMScheduler

    name = type(scheduler).__name__
    if not hasattr(scheduler, "alphas_cumprod") or not hasattr(scheduler, "config"):
        raise Incompatible(
            f"{name} has no discrete alphas_cumprod table; a diffusers scheduler such as "
            "DDIM, DDPM, PNDM, Euler or DPM-Solver is needed"
        )
    config = dict(scheduler.config)
    if config.get("prediction_type", "epsilon") not in PREDICTION_TYPES:
        raise Incompatible(
            f"{name} has prediction_type {config['prediction_type']!r}; supported are {', '.join(PREDICTION_TYPES)}"
        )
    left_out = [n for n in RESPACINGS if config.get(n)]
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
