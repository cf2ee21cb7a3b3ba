"""The grid of every scheduler against its own `scale_model_input` and `step`, of first order and without noise."""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import sys
import warnings
from types import ModuleType
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import unsample
from tests.problems import SD_TABLE, normal, predictor, rms
from unsample.errors import BadOption, Incompatible
from unsample.numbers.grid import Grid, grid_from_scheduler, grid_of_set
from unsample.numbers.levels import ANGLES, CONVERTED, FLOWS, RATIOS, REFUSED, SERVED, TABLES
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.walk import walk

pytestmark = pytest.mark.filterwarnings("ignore")
SHAPE = (2, 3, 4, 4)
TABLE = {name: v for name, v in SD_TABLE.items() if name != "clip_sample"}
STEPS = (4, 10, 20, 50)
SPACINGS = ("leading", "trailing", "linspace")
RESPACED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
VE = [name for name in RATIOS if not name.startswith(("DPMSolverM", "DPMSolverSi", "UniPC", "DEIS", "SA"))]
FIRST_ORDER = {  # what makes a step of theirs deterministic and of first order
    "DPMSolverMultistepScheduler": {"solver_order": 1},
    "DPMSolverSinglestepScheduler": {"solver_order": 1},
    "UniPCMultistepScheduler": {"solver_order": 1, "disable_corrector": list(range(1000))},
    "DEISMultistepScheduler": {"solver_order": 1},
}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def kind_of(name: str) -> Any:
    """A scheduler's class; torchsde, which draws the noise of some, need not be there."""
    if name not in ("DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler"):
        return getattr(diffusers, name)
    module = "cosine_dpmsolver_multistep" if name.startswith("Cosine") else "dpmsolver_sde"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchsde", ModuleType("torchsde"))
        return getattr(importlib.import_module(f"diffusers.schedulers.scheduling_{module}"), name)


def made(name: str, **more: Any) -> Any:
    """A scheduler of diffusers with a table of Stable Diffusion."""
    return kind_of(name)(**(TABLE if name not in (*FLOWS, *ANGLES) else {}), **more)


def network(x: Tensor, t: Tensor) -> Tensor:
    """Smooth in both."""
    return torch.tanh(0.8 * x + 0.3 * x.roll(1, -1)) + 0.2 * math.sin(float(t) / 100)


def ours(scheduler: Any, grid: Grid, x: Tensor) -> Tensor:
    """The end of a DDIM walk on a grid."""
    model = unsample.wrap(network, diffusers.DDIMScheduler(**SD_TABLE), sample_shape=SHAPE[1:])
    model.scheduler = scheduler
    end, _ = walk(ddim_sample, predictor(model, grid, len(x)), x, grid, range(grid.num_steps, -1, -1))
    return end


def theirs(scheduler: Any, steps: int, x: Tensor, **more: Any) -> Tensor:
    """The end of the scheduler's own loop, as a pipeline runs it, from `x` as a point that preserves the variance."""
    own = copy.deepcopy(scheduler)
    own.set_timesteps(steps)
    own.set_begin_index(0)  # else it starts at the second of two equal timesteps, and runs out of them
    if hasattr(own, "sigmas"):
        own.sigmas = own.sigmas.double()
    ve = type(own).__name__ in VE
    at = x * (float(own.sigmas[0]) ** 2 + 1) ** 0.5 if ve else x
    for t in own.timesteps:
        if 0 <= t <= 1000:
            asked = own.scale_model_input(at, t) if hasattr(own, "scale_model_input") else at
            at = own.step(network(asked, t), t, at, **more).prev_sample
    return at / (float(own.sigmas[len(own.timesteps)]) ** 2 + 1) ** 0.5 if ve else at


def agrees(scheduler: Any, steps: int, **more: Any) -> None:
    x = normal(*SHAPE)
    end = theirs(scheduler, steps, x, **more)
    found = ours(scheduler, grid_from_scheduler(scheduler, steps), x)
    assert rms(found - end) / max(rms(end), 1) < 1e-6  # Euler and flow matching step in float32


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", *FIRST_ORDER, "TCDScheduler"])
def test_first_order_steps_are_those_of_the_scheduler(name: str, spacing: str, prediction: str, steps: int) -> None:
    if name == "TCDScheduler":  # has a spacing of its own
        agrees(made(name, prediction_type=prediction), steps, eta=0.0)
    elif name == "DPMSolverSinglestepScheduler":  # has linspace alone
        agrees(made(name, prediction_type=prediction, **FIRST_ORDER[name]), steps)
    else:
        agrees(made(name, timestep_spacing=spacing, prediction_type=prediction, **FIRST_ORDER.get(name, {})), steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    ("name", "respaced"),
    [
        *itertools.product(["EulerDiscreteScheduler", *FIRST_ORDER], RESPACED),
        ("DPMSolverMultistepScheduler", "use_lu_lambdas"),
    ],
)
def test_respaced_levels_are_those_of_the_scheduler(name: str, respaced: str, steps: int) -> None:
    agrees(made(name, **{respaced: True}, **FIRST_ORDER.get(name, {})), steps)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}),
        ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
        ("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
    ],
)
def test_the_end_levels_are_those_of_the_scheduler(name: str, more: dict[str, Any]) -> None:
    agrees(made(name, **more, **FIRST_ORDER.get(name, {})), 20)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"shift": 3.0},
        {"shift_terminal": 0.02},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
    ],
)
def test_flow_steps_are_those_of_the_scheduler(more: dict[str, Any], steps: int) -> None:
    agrees(made("FlowMatchEulerDiscreteScheduler", **more), steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_solvers_on_flow_sigmas_are_those_of_the_scheduler(name: str, steps: int) -> None:
    agrees(made(name, flow_shift=3.0, **FLOW, **FIRST_ORDER[name]), steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_inverted_sigmas_ask_the_network_at_their_own_times_and_turn_its_answer_round(shift: float, steps: int) -> None:
    agrees(made("FlowMatchEulerDiscreteScheduler", invert_sigmas=True, shift=shift), steps)


@pytest.mark.parametrize("steps", STEPS)
def test_a_shift_that_the_pipeline_works_out_is_read_once_it_is_set(steps: int) -> None:
    scheduler = made("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True)
    with pytest.raises(Incompatible, match="mu that its pipeline works out"):
        grid_from_scheduler(scheduler, steps)
    scheduler.set_timesteps(steps, mu=0.8)
    grid, x = grid_of_set(scheduler), normal(*SHAPE)
    end = ours(scheduler, grid, x)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
    assert rms(end - x) < 1e-5


@pytest.mark.parametrize("steps", [10, 50])
def test_ipndm_starts_with_the_step_of_its_grid(steps: int) -> None:
    scheduler = made("IPNDMScheduler")
    scheduler.set_timesteps(steps)
    grid, x = grid_of_set(scheduler), normal(*SHAPE)
    model = unsample.wrap(network, diffusers.DDIMScheduler(), sample_shape=SHAPE[1:])
    x, _ = walk(ddim_sample, predictor(model, grid, len(x)), x, grid, [1, 0])
    scheduler._step_index = steps - 1  # the last step, with nothing before it
    t, at = scheduler.timesteps[-1], normal(*SHAPE)
    assert rms(scheduler.step(network(at, t), t, at).prev_sample - x) < 1e-6


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", sorted(SERVED - {*CONVERTED}))
def test_every_grid_is_the_first_order_list_of_its_scheduler(name: str, steps: int) -> None:
    scheduler = made(name)
    grid = grid_from_scheduler(scheduler, steps)
    more = {"intermediate_timesteps": None} if name == "SCMScheduler" else {}
    scheduler.set_timesteps(steps, **more)
    listed = scheduler.timesteps.tolist()
    assert list(grid.timesteps[:0:-1]) == listed[:: scheduler.order][:steps]
    assert grid.num_steps == steps
    assert (grid.meta["scheduler"], grid.meta["converted_to_ddim"]) == (name, False)
    if name in RATIOS:
        assert grid.sigma[-1] / grid.alpha[-1] == pytest.approx(float(scheduler.sigmas[0]), rel=1e-12)
        assert grid.sigma[0] / grid.alpha[0] == pytest.approx(float(scheduler.sigmas[-1]), rel=1e-12)


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler"])
@pytest.mark.parametrize("respaced", [None, *RESPACED])
def test_solvers_of_higher_order_have_the_levels_of_euler(name: str, respaced: str | None) -> None:
    """Or of its Karras levels; KDPM2 rounds the timesteps of those."""
    more = {respaced: True} if respaced else {}
    own, euler = (grid_from_scheduler(made(n, **more), 20) for n in (name, "EulerDiscreteScheduler"))
    assert own.sigma == pytest.approx(euler.sigma, rel=1e-6)
    assert own.timesteps == pytest.approx(euler.timesteps, abs=0.51 if name.startswith("KDPM2") else 1e-3)


def test_the_published_timesteps_of_dpm_solver_are_kept() -> None:
    scheduler = made("DPMSolverMultistepScheduler", timestep_spacing="leading", steps_offset=1)
    assert grid_from_scheduler(scheduler, 50).timesteps[:0:-1] == tuple(range(951, 1, -19))
    assert grid_from_scheduler(made("DPMSolverMultistepScheduler"), 10).timesteps[-2:] == (899, 999)
    spaced = grid_from_scheduler(scheduler, 50, timestep_spacing="leading")
    assert spaced.timesteps[1:] == tuple(range(1, 982, 20))  # DDIM's, asked for by name
    assert spaced.meta["converted_to_ddim"]


def test_levels_that_share_a_rounded_timestep_are_all_kept() -> None:
    grid = grid_from_scheduler(made("DPMSolverMultistepScheduler", use_karras_sigmas=True), 50)
    assert len(set(grid.timesteps[1:])) < grid.num_steps == len(set(grid.sigma[1:])) == 50
    assert grid.meta["rounded"]


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("EulerDiscreteScheduler", {}, None),
        ("DPMSolverMultistepScheduler", {}, "order 2"),
        ("DPMSolverMultistepScheduler", {"solver_order": 1}, None),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "draws noise"),
        ("UniPCMultistepScheduler", {}, "corrector"),
        ("HeunDiscreteScheduler", {}, "order 2"),
        ("EulerAncestralDiscreteScheduler", {}, "draws noise"),
        ("LCMScheduler", {}, "draws noise"),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "draws noise"),
    ],
)
def test_what_a_sampler_does_beyond_first_order_is_said(name: str, more: dict[str, Any], says: str | None) -> None:
    found = grid_from_scheduler(made(name, **more), 10).meta.get("sampler")
    assert found is None if says is None else says in found


@pytest.mark.parametrize("name", sorted(name for name in REFUSED if hasattr(diffusers, name)))
def test_what_cannot_be_served_is_refused_by_name(name: str) -> None:
    more = {"num_vec_classes": 4} if name.startswith("VQ") else {}
    with pytest.raises(Incompatible, match=f"{name} cannot be inverted"):
        grid_from_scheduler(kind_of(name)(**more), 10)


@pytest.mark.parametrize(
    ("name", "more", "error", "says"),
    [
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, Incompatible, "use_flow_sigmas=False"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, Incompatible, "use_flow_sigmas=True"),
        ("DPMSolverMultistepScheduler", {**FLOW, "use_karras_sigmas": True}, Incompatible, "between 0 and 1"),
        (
            "EulerDiscreteScheduler",
            {"timestep_type": "continuous", "prediction_type": "v_prediction"},
            Incompatible,
            "continuous",
        ),
        ("LCMScheduler", {"original_inference_steps": 5}, BadOption, "cannot give 10 steps"),
        ("EulerDiscreteScheduler", {"prediction_type": "score"}, Incompatible, "'score'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name: str, more: dict[str, Any], error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        grid_from_scheduler(made(name, **more), 10)


def test_a_flow_has_no_other_spacing() -> None:
    with pytest.raises(Incompatible, match="leave it out"):
        grid_from_scheduler(made("FlowMatchEulerDiscreteScheduler"), 10, timestep_spacing="linspace")


def test_what_from_config_carries_along_is_no_setting() -> None:
    """Euler made from a config that clips and has flow sigmas does neither."""
    scheduler = diffusers.EulerDiscreteScheduler()
    scheduler.register_to_config(clip_sample=True, use_flow_sigmas=True)
    grid = grid_from_scheduler(scheduler, 10, clip="config")
    assert grid.clip is None
    assert not grid.is_flow


def test_a_subclass_is_what_it_comes_from() -> None:
    class Mine(diffusers.EulerDiscreteScheduler):
        pass

    assert grid_from_scheduler(Mine(), 10) == grid_from_scheduler(diffusers.EulerDiscreteScheduler(), 10)


@pytest.mark.parametrize("name", [*RATIOS, *TABLES[-3:], *FLOWS, *ANGLES])
def test_the_scheduler_given_is_not_touched(name: str) -> None:
    scheduler = made(name)
    before = {k: copy.deepcopy(v) for k, v in vars(scheduler).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        grid_from_scheduler(scheduler, 10)
    for key, value in before.items():
        now = vars(scheduler)[key]
        same = (
            torch.equal(now.nan_to_num(), value.nan_to_num()) if isinstance(value, Tensor) else repr(now) == repr(value)
        )
        assert same, key


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_start_of_euler_is_the_noise_to_a_few_parts_in_a_thousand(spacing: str) -> None:
    scheduler = made("EulerDiscreteScheduler", timestep_spacing=spacing)
    grid = grid_from_scheduler(scheduler, 50)
    scheduler.set_timesteps(50)
    assert float(scheduler.init_noise_sigma) * grid.alpha[-1] == pytest.approx(1, abs=0.003)
