"""The noise levels that a diffusers scheduler has set: its own timesteps, sigmas and end level, as one kind of numbers.

Schedulers write them in four ways: a table of `alphas_cumprod`, noise-to-picture ratios (alpha = 1 / sqrt(1 + sigma^2),
`x_ve = x0 + sigma eps`; the state here is `x_ve * alpha`, which is what `scale_model_input` feeds the network), the
sigma of flow matching (alpha = 1 - sigma), and angles (alpha = cos, sigma = sin).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from unsample.errors import Incompatible

CONVERTED = ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler")
"""Those whose levels are DDIM's of the same config."""
TABLES = (*CONVERTED[:-1], "LCMScheduler", "TCDScheduler", "CogVideoXDDIMScheduler")
RATIOS = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
)
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
ANGLES = ("SCMScheduler", "IPNDMScheduler")
SERVED = {*CONVERTED, *TABLES, *RATIOS, *FLOWS, *ANGLES}

EDM = "its network is preconditioned as in EDM: it is fed x / sqrt(sigma^2 + sigma_data^2) and answers another quantity"
ONE_STEP = "a consistency model maps noise to a picture at once; there are no steps between to walk back"
INVERTING = "it is an inversion itself; give the scheduler that samples"
REFUSED = {
    "EDMEulerScheduler": EDM,
    "EDMDPMSolverMultistepScheduler": EDM,
    "CosineDPMSolverMultistepScheduler": EDM,
    "CMStochasticIterativeScheduler": ONE_STEP,
    "ConsistencyDecoderScheduler": ONE_STEP,
    "DDIMInverseScheduler": INVERTING,
    "DPMSolverMultistepInverseScheduler": INVERTING,
    "CogVideoXDPMScheduler": "its steps draw noise and look two points back; give CogVideoXDDIMScheduler of its config",
    "RePaintScheduler": "it goes back and forth with a mask; give DDIMScheduler of its config",
    "UnCLIPScheduler": "its steps draw noise by a variance that the network learned; it has no ODE to walk back",
    "KarrasVeScheduler": "it adds noise at every step and keeps no levels of its own",
    "VQDiffusionScheduler": "its state is discrete",
}

STOCHASTIC = {
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
    "SASolverScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "SCMScheduler",
    "FlowMatchLCMScheduler",
}
ORDERS = {
    "HeunDiscreteScheduler": 2,
    "KDPM2DiscreteScheduler": 2,
    "FlowMatchHeunDiscreteScheduler": 2,
    "LMSDiscreteScheduler": 4,
    "IPNDMScheduler": 4,
}
RECORDED = (
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "final_sigmas_type",
    "interpolation_type",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "shift",
    "flow_shift",
    "shift_terminal",
)
"""What of a config makes levels, and so stands in a grid's `meta` where the scheduler knows it and it is not off."""


@dataclass(frozen=True)
class Levels:
    """Noise levels from noisiest to cleanest, the end level last; one timestep fewer."""

    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    timesteps: tuple[float, ...]
    zero: tuple[float, float]  # alpha and sigma at timestep 0, by which the clean end is asked about


def name_of(scheduler: Any) -> str:
    """The class of diffusers that a scheduler is, or comes from; else its own."""
    kind: Any = type(scheduler)
    return _name_of(kind)


@cache
def _name_of(kind: type) -> str:
    known = (base.__name__ for base in kind.__mro__ if base.__name__ in SERVED or base.__name__ in REFUSED)
    return next(known, kind.__name__)


@cache
def _settings_of(kind: type) -> frozenset[str]:
    return frozenset(name for base in kind.__mro__[:-1] for name in inspect.signature(base).parameters)


def setting(scheduler: Any, name: str) -> Any:
    """An entry of a scheduler's config that its class knows; what `from_config` carried along from another is none."""
    kind: Any = type(scheduler)
    return getattr(scheduler, "config", {}).get(name) if name in _settings_of(kind) else None


def recorded(scheduler: Any) -> dict[str, Any]:
    """The settings in `RECORDED` that are on, as plain JSON."""
    named = {name: setting(scheduler, name) for name in RECORDED}
    return {k: float(v) if isinstance(v, float) else v for k, v in named.items() if v is not None and v is not False}


def sampler_of(scheduler: Any) -> str | None:
    """What its own sampling steps are beyond deterministic ones of first order, in words; None: no more than that."""
    name, algorithm = name_of(scheduler), setting(scheduler, "algorithm_type") or ""
    if name in STOCHASTIC or algorithm.startswith("sde") or setting(scheduler, "stochastic_sampling"):
        return "draws noise at every step"
    order = ORDERS.get(name) or setting(scheduler, "solver_order") or 1
    if name == "UniPCMultistepScheduler":
        return f"is a predictor and corrector of order {order}"
    return f"is of order {order}" if order > 1 else None


def check_served(scheduler: Any) -> str:
    """The name of a scheduler whose levels can be read.

    Raises:
        Incompatible: it is none of them; with the reason.
    """
    name = name_of(scheduler)
    if name in REFUSED:
        raise Incompatible(f"{name} cannot be inverted: {REFUSED[name]}")
    if name not in SERVED or not isinstance(getattr(scheduler, "config", None), Mapping):
        raise Incompatible(
            f"{type(scheduler).__name__} is no scheduler whose noise levels are known here; a diffusers scheduler such "
            f"as DDIM, DDPM, PNDM, Euler, DPM-Solver or FlowMatchEuler is needed ({', '.join(sorted(SERVED))})"
        )
    return name


def levels_of(scheduler: Any, flow: bool) -> Levels:
    """The levels as they are set now (`set_timesteps` was called).

    Args:
        scheduler: one of `SERVED`.
        flow: whether its network predicts a flow's velocity.

    Raises:
        Incompatible: a scheduler that is not served, or whose settings do not fit together.
    """
    name = check_served(scheduler)
    if getattr(scheduler, "num_inference_steps", None) is None:
        raise Incompatible(f"{name} has no timesteps set; call its set_timesteps first")
    if name in ANGLES:
        return _of_angles(scheduler, name)
    if name in TABLES:
        return _of_table(scheduler, name)
    if name in CONVERTED:
        raise Incompatible(f"{name} lists a timestep twice and looks back over four; give DDIMScheduler of its config")
    if flow is not (name in FLOWS or bool(setting(scheduler, "use_flow_sigmas"))):
        raise Incompatible(
            f"{name} with prediction_type={setting(scheduler, 'prediction_type')!r} needs use_flow_sigmas={flow}"
        )
    if setting(scheduler, "timestep_type") == "continuous":
        raise Incompatible(
            f"{name} has timestep_type='continuous': its network is asked at log(sigma) / 4, and the clean end has none"
        )
    return _of_flow(scheduler, name) if flow else _of_ratios(scheduler)


def _of_table(scheduler: Any, name: str) -> Levels:
    """The rows of `alphas_cumprod` at the timesteps."""
    table = scheduler.alphas_cumprod.double().tolist()
    trained = scheduler.config.num_train_timesteps
    if len(table) != trained:
        raise Incompatible(
            f"{name} has num_train_timesteps={trained} and a table of {len(table)} betas; the two must agree"
        )
    inside = [int(t) for t in scheduler.timesteps.tolist() if 0 <= t < trained]
    # what the last step of each goes to, whatever set_alpha_to_one says
    last = {"LCMScheduler": 1.0, "TCDScheduler": table[0]}.get(name)
    last = float(getattr(scheduler, "final_alpha_cumprod", 1.0)) if last is None else last
    abar = [*(table[t] for t in inside), last]
    alpha, sigma = (tuple(math.sqrt(v) for v in values) for values in (abar, [1 - a for a in abar]))
    return Levels(alpha, sigma, tuple(inside), (math.sqrt(table[0]), math.sqrt(1 - table[0])))


def _as_set(scheduler: Any) -> tuple[list[float], list[float]]:
    """Sigmas with the end level last, and timesteps, of first order: schedulers of order 2 list a level twice."""
    stride = int(getattr(scheduler, "order", 1))
    sigmas, timesteps = scheduler.sigmas.double().tolist(), scheduler.timesteps.double().tolist()
    return [*sigmas[: len(timesteps) : stride], sigmas[len(timesteps)]], timesteps[::stride]


def _of_ratios(scheduler: Any) -> Levels:
    """sigma as the ratio of noise to picture."""
    sigmas, timesteps = _as_set(scheduler)
    kept = [k for k, t in enumerate(timesteps) if 0 <= t < scheduler.config.num_train_timesteps]
    pairs = [preserving(sigmas[k]) for k in (*kept, -1)]
    alpha, sigma = (tuple(pair[n] for pair in pairs) for n in (0, 1))
    inside, abar = tuple(timesteps[k] for k in kept), float(scheduler.alphas_cumprod[0].double())
    zero = pairs[-2] if inside[-1:] == (0,) else (math.sqrt(abar), math.sqrt(1 - abar))
    return Levels(alpha, sigma, inside, zero)


def preserving(ratio: float) -> tuple[float, float]:
    """alpha and sigma of a level sigma / alpha, alpha^2 + sigma^2 = 1."""
    alpha = 1 / math.sqrt(1 + ratio * ratio)
    return alpha, ratio * alpha


def _of_flow(scheduler: Any, name: str) -> Levels:
    """sigma of flow matching; inverted sigmas count the picture, and their timesteps are turned round with them."""
    sigma, timesteps = _as_set(scheduler)
    if not all(0 <= s <= 1 for s in sigma):
        raise Incompatible(f"{name}: sigmas of a flow lie between 0 and 1, and these reach {max(sigma):.3g}")
    if (trained := inverted(scheduler)) is not None:
        sigma, timesteps = [1 - s for s in sigma], [trained - t for t in timesteps]
    return Levels(tuple(1 - s for s in sigma), tuple(sigma), tuple(timesteps), (1.0, 0.0))


def inverted(scheduler: Any) -> int | None:
    """The number of training steps where sigma counts the picture (`invert_sigmas`), else None."""
    return int(scheduler.config.num_train_timesteps) if setting(scheduler, "invert_sigmas") else None


def _of_angles(scheduler: Any, name: str) -> Levels:
    """Timesteps that are angles, or parts of a right one."""
    timesteps = scheduler.timesteps.double().tolist()
    if name == "IPNDMScheduler":
        alpha, sigma = scheduler.alphas.double().tolist(), scheduler.betas.double().tolist()
    else:
        alpha, sigma = [max(math.cos(t), 0.0) for t in timesteps], [math.sin(t) for t in timesteps]
        timesteps = timesteps[:-1]
    return Levels(tuple(alpha), tuple(sigma), tuple(timesteps), (1.0, 0.0))
