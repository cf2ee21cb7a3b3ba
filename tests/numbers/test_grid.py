"""The grid against diffusers' own DDIM, every number of steps, and what is refused."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import SD_TABLE, float64_tables, normal, predictor, rms, smooth_network
from unsample.errors import BadOption, Incompatible
from unsample.numbers.grid import Grid, grid_from_scheduler, transfer
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.walk import walk

SHAPE = (2, 3, 4, 4)
LINEAR = {"beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}

# timestep_spacing, N, T: where `t - T // N` is the grid's own next point. linspace agrees only where N is T (or 1):
# its distance (T - 1) / (N - 1) is never T // N otherwise.
AGREEING = [
    ("leading", 50, 1000),
    ("leading", 7, 1000),
    ("trailing", 50, 1000),
    ("trailing", 8, 1000),
    ("linspace", 1, 1000),
    ("linspace", 60, 60),
]


def quiet_grid(scheduler: Any, steps: int, **more: Any) -> Grid:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return grid_from_scheduler(scheduler, steps, **more)


def trajectory_of_diffusers(scheduler: Any, steps: int, x: Tensor) -> list[Tensor]:
    """DDIMScheduler.step over its own timesteps."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    points = [x]
    for t in scheduler.timesteps:
        points.append(scheduler.step(smooth_network(points[-1], t), t, points[-1]).prev_sample)
    return points


def trajectory_of_ours(scheduler: Any, steps: int, x: Tensor, **more: Any) -> list[Tensor]:
    grid = quiet_grid(scheduler, steps, **more)
    model = unsample.wrap(smooth_network, scheduler, sample_shape=SHAPE[1:])
    points = [x]

    def observe(k: int, j: int, y: Tensor, state: Any) -> Tensor:
        points.append(y)
        return y

    walk(ddim_sample, predictor(model, grid, len(x)), x, grid, range(steps, -1, -1), None, observe)
    return points


def largest_difference(scheduler: Any, steps: int, **more: Any) -> float:
    """Over the whole trajectory, relative to the size of each point where that is above 1."""
    x = normal(*SHAPE)
    ours, theirs = (
        trajectory_of_ours(scheduler, steps, x, **more),
        trajectory_of_diffusers(scheduler, steps, x),
    )
    assert len(ours) == len(theirs) == steps + 1
    return max(rms(a - b) / max(rms(b), 1) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("spacing", "steps", "trained"), AGREEING)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_trajectories_agree_with_diffusers(
    spacing: str, steps: int, trained: int, offset: int, to_one: bool, prediction: str
) -> None:
    scheduler = DDIMScheduler(
        **SD_TABLE,
        num_train_timesteps=trained,
        timestep_spacing=spacing,
        steps_offset=offset,
        set_alpha_to_one=to_one,
        prediction_type=prediction,
    )
    # The stock tables are float32; diffusers takes their square roots in float32, we in float64: 6e-8 a step.
    assert largest_difference(scheduler, steps) < 1e-6
    # With float64 tables both compute in float64; what is left is the order of operations.
    assert largest_difference(float64_tables(scheduler), steps) < 1e-10


def test_a_thousand_steps_agree_with_diffusers() -> None:
    scheduler = DDIMScheduler(**SD_TABLE, timestep_spacing="trailing")
    assert largest_difference(float64_tables(scheduler), 1000) < 1e-10


def test_diffusers_stops_short_of_the_clean_end_when_the_offset_reaches_the_step_width() -> None:
    """leading, offset 1, N = 999: its last step goes from t = 1 to t = 0; ours ends at `final_alpha_cumprod`."""
    scheduler = float64_tables(DDIMScheduler(**SD_TABLE, num_train_timesteps=60, steps_offset=1))
    x = normal(*SHAPE)
    ours, theirs = trajectory_of_ours(scheduler, 59, x), trajectory_of_diffusers(scheduler, 59, x)
    assert max(rms(a - b) / rms(b) for a, b in zip(ours[:-1], theirs[:-1], strict=True)) < 1e-10
    assert rms(ours[-1] - theirs[-1]) > 1e-3
    one_level = float64_tables(
        DDIMScheduler(**SD_TABLE, num_train_timesteps=60, steps_offset=1, set_alpha_to_one=False)
    )
    assert largest_difference(one_level, 59) < 1e-10  # the same level, so the same numbers


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize(("spacing", "steps"), [("trailing", 50), ("leading", 40)])
def test_trajectories_agree_with_diffusers_at_zero_terminal_snr(prediction: str, spacing: str, steps: int) -> None:
    scheduler = DDIMScheduler(
        **SD_TABLE, timestep_spacing=spacing, prediction_type=prediction, rescale_betas_zero_snr=True
    )
    assert largest_difference(scheduler, steps) < 1e-6  # float32 square roots of the tables
    assert largest_difference(float64_tables(scheduler), steps) < 1e-10
    grid = quiet_grid(scheduler, steps)
    assert (grid.alpha[-1] == 0) == (spacing == "trailing")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("limit", [1.0, 0.3])
def test_clip_config_reproduces_a_pipeline_that_clips(prediction: str, limit: float) -> None:
    table = LINEAR | {"clip_sample": True, "clip_sample_range": limit}
    scheduler = float64_tables(DDIMScheduler(**table, prediction_type=prediction))
    assert largest_difference(scheduler, 50, clip="config") < 1e-10
    assert largest_difference(scheduler, 50, clip="off") > 1e-3  # it does clip in this trajectory


def test_clip_is_off_unless_asked_for_and_recorded() -> None:
    scheduler = DDIMScheduler()  # whose config says clip_sample=True
    assert scheduler.config.clip_sample
    assert grid_from_scheduler(scheduler, 50).clip is None
    assert grid_from_scheduler(scheduler, 50).meta["clip"] == "off"
    assert grid_from_scheduler(scheduler, 50, clip="config").clip == 1.0
    assert grid_from_scheduler(scheduler, 50, clip="config").meta["clip"] == "config"
    assert grid_from_scheduler(DDIMScheduler(clip_sample=False), 50, clip="config").clip is None


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
def test_diffusers_neighbours_disagree_with_its_own_grid_at_30_steps(spacing: str) -> None:
    """diffusers goes from t to t - 1000 // 30 = t - 33, where its own next timestep is 33 or 34 away."""
    scheduler = DDIMScheduler(**SD_TABLE, timestep_spacing=spacing, steps_offset=1, set_alpha_to_one=False)
    scheduler.set_timesteps(30)
    listed = scheduler.timesteps.tolist()
    taken = [t - 1000 // 30 for t in listed[:-1]]
    off = [a != b for a, b in zip(taken, listed[1:], strict=True)]
    assert sum(off) == {"trailing": 10, "linspace": 29}[spacing]
    grid = grid_from_scheduler(scheduler, 30)
    assert list(grid.timesteps[1:]) == listed[::-1]  # ours is its list as it stands
    assert largest_difference(float64_tables(scheduler), 30) > 1e-3


def test_the_numbers_are_those_of_the_scheduler() -> None:
    grid = grid_from_scheduler(DDIMScheduler(**SD_TABLE, set_alpha_to_one=False, steps_offset=1), 50)
    table = DDIMScheduler(**SD_TABLE).alphas_cumprod.double()
    assert grid.timesteps == (0, *range(1, 982, 20))
    assert grid.alpha[0] == grid.eval_alpha[0] == math.sqrt(table[0])
    assert grid.alpha[50] == math.sqrt(table[981])
    assert all(abs(a * a + s * s - 1) < 1e-15 for a, s in zip(grid.alpha, grid.sigma, strict=True))  # one rounding


def test_the_clean_end_is_at_sigma_zero_and_asked_about_at_timestep_zero() -> None:
    grid = grid_from_scheduler(DDIMScheduler(**LINEAR), 50)
    table = DDIMScheduler(**LINEAR).alphas_cumprod.double()
    assert (grid.alpha[0], grid.sigma[0], grid.timesteps[0]) == (1.0, 0.0, 0)
    assert (grid.eval_alpha[0], grid.eval_sigma[0]) == (math.sqrt(table[0]), math.sqrt(1 - table[0]))
    assert grid.eval_alpha[1:] == grid.alpha[1:]


# ---------------------------------------------------------------- every number of steps


def check_monotone(grid: Grid, steps: int, trained: int) -> None:
    inside = grid.timesteps[1:]
    assert grid.num_steps == len(inside) == steps
    assert all(a < b for a, b in itertools.pairwise(inside))
    assert inside[0] >= 0
    assert inside[-1] < trained
    assert all(a > b for a, b in zip(grid.alpha[1:], grid.alpha[2:], strict=False))
    assert grid.alpha[0] >= grid.alpha[1]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("trained", [1, 2, 7, 60])
def test_every_number_of_steps_works_on_small_tables(spacing: str, offset: int, trained: int) -> None:
    scheduler = DDIMScheduler(
        **SD_TABLE, num_train_timesteps=trained, timestep_spacing=spacing, steps_offset=offset, set_alpha_to_one=True
    )
    for steps in range(1, trained + 1):
        if spacing == "leading" and offset == 1 and steps == trained:
            with pytest.raises(BadOption, match=f"asked for {steps} steps"):
                quiet_grid(scheduler, steps)
        else:
            check_monotone(quiet_grid(scheduler, steps), steps, trained)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_numbers_of_steps_up_to_1000_work(spacing: str, offset: int) -> None:
    scheduler = DDIMScheduler(**SD_TABLE, timestep_spacing=spacing, steps_offset=offset)
    for steps in [*range(1, 60), *range(60, 1000, 23), 998, 999]:
        check_monotone(quiet_grid(scheduler, steps), steps, 1000)
    if spacing == "leading" and offset == 1:
        with pytest.raises(BadOption, match="use at most 999 steps"):
            quiet_grid(scheduler, 1000)
    else:
        check_monotone(quiet_grid(scheduler, 1000), 1000, 1000)


def test_the_extra_minus_one_of_trailing_is_dropped() -> None:
    """diffusers' trailing list has N + 1 entries for 62 values of N, the last of them -1."""
    scheduler = DDIMScheduler(**SD_TABLE, timestep_spacing="trailing")
    odd = []
    for steps in range(1, 1001):
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) != steps:
            odd.append(steps)
            assert len(scheduler.timesteps) == steps + 1
            assert int(scheduler.timesteps[-1]) == -1
    assert len(odd) == 62
    for steps in odd:
        check_monotone(quiet_grid(scheduler, steps), steps, 1000)


# ---------------------------------------------------------------- other schedulers


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        ("PNDMScheduler", None),
        ("DDPMScheduler", None),
        ("EulerDiscreteScheduler", "leading"),
        ("EulerAncestralDiscreteScheduler", "leading"),
        ("DPMSolverMultistepScheduler", "leading"),
        ("UniPCMultistepScheduler", "leading"),
        ("LMSDiscreteScheduler", "leading"),
        ("HeunDiscreteScheduler", "leading"),
        ("DEISMultistepScheduler", "leading"),
        ("LCMScheduler", "leading"),
    ],
)
def test_other_discrete_schedulers_are_converted_where_a_spacing_is_asked_for(name: str, spacing: str | None) -> None:
    table = {k: v for k, v in SD_TABLE.items() if k != "clip_sample"}
    scheduler = getattr(diffusers, name)(**table, timestep_spacing="leading", steps_offset=1)
    grid = grid_from_scheduler(scheduler, 50, timestep_spacing=spacing)
    assert grid.timesteps[1:] == tuple(range(1, 982, 20))
    expected = DDIMScheduler(**SD_TABLE).alphas_cumprod.double()
    assert grid.alpha[1:] == tuple(math.sqrt(expected[t]) for t in range(1, 982, 20))
    assert grid.meta["scheduler"] == name
    assert grid.meta["converted_to_ddim"]


def test_the_config_that_stable_diffusion_1_ships_is_converted() -> None:
    """PNDM lists a timestep twice (951, 951 at 20 steps without this conversion)."""
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    scheduler.set_timesteps(50)
    assert len(set(scheduler.timesteps.tolist())) < len(scheduler.timesteps)
    grid = grid_from_scheduler(scheduler, 50)
    assert grid == grid_from_scheduler(DDIMScheduler(**SD_TABLE, set_alpha_to_one=False, steps_offset=1), 50)


def test_a_schedule_that_the_conversion_cannot_keep_is_refused_or_said() -> None:
    with pytest.raises(Incompatible, match="sigmoid"):
        grid_from_scheduler(diffusers.DDPMScheduler(beta_schedule="sigmoid"), 10)
    karras = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True)
    with pytest.warns(UserWarning, match="use_karras_sigmas"):
        grid_from_scheduler(karras, 10, timestep_spacing="linspace")


def test_trained_betas_survive_the_conversion() -> None:
    betas = torch.linspace(0.001, 0.03, 100).numpy()
    grid = grid_from_scheduler(diffusers.DDPMScheduler(num_train_timesteps=100, trained_betas=betas), 100)
    expected = torch.cumprod(1 - torch.linspace(0.001, 0.03, 100), 0).double().sqrt()
    assert torch.tensor(grid.alpha[1:]).double().sub(expected).abs().max() < 1e-7  # float32 tables


def test_a_table_of_another_length_than_the_training_is_refused() -> None:
    scheduler = diffusers.DDPMScheduler(trained_betas=torch.linspace(0.001, 0.03, 100).numpy())
    with pytest.raises(Incompatible, match="num_train_timesteps=1000 and a table of 100"):
        grid_from_scheduler(scheduler, 50)


def test_the_scheduler_given_is_not_modified() -> None:
    for name in ("DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "DDPMScheduler"):
        scheduler = getattr(diffusers, name)()
        scheduler.set_timesteps(17)
        before = {k: copy.deepcopy(v) for k, v in vars(scheduler).items()}
        quiet_grid(scheduler, 50)
        assert set(vars(scheduler)) == set(before)
        for key, value in before.items():
            now = vars(scheduler)[key]
            assert torch.equal(now, value) if isinstance(value, Tensor) else repr(now) == repr(value), key


# ---------------------------------------------------------------- refusals and warnings


@pytest.mark.parametrize("steps", [0, -1, 1001, True, 2.5, "50", None])
def test_numbers_of_steps_that_cannot_be_are_refused(steps: Any) -> None:
    with pytest.raises(BadOption, match="num_inference_steps"):
        grid_from_scheduler(DDIMScheduler(), steps)


def test_a_flow_matching_scheduler_keeps_its_own_sigmas_and_timesteps() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    grid = grid_from_scheduler(scheduler, 10)
    scheduler.set_timesteps(10)
    assert grid.is_flow
    assert grid.sigma == tuple(scheduler.sigmas.double().flip(0).tolist())
    assert grid.timesteps[1:] == tuple(scheduler.timesteps.double().flip(0).tolist())
    assert all(a + s == pytest.approx(1) for a, s in zip(grid.alpha, grid.sigma, strict=True))


def test_something_that_is_no_scheduler_is_refused() -> None:
    with pytest.raises(Incompatible, match="a diffusers scheduler such as"):
        grid_from_scheduler(object(), 10)


def test_another_value_of_clip_is_refused() -> None:
    with pytest.raises(BadOption, match="clip must be 'off' or 'config'"):
        grid_from_scheduler(DDIMScheduler(), 10, clip="on")


def test_thresholding_is_refused_only_with_clip_config() -> None:
    scheduler = DDIMScheduler(thresholding=True)
    grid_from_scheduler(scheduler, 50)
    with pytest.raises(Incompatible, match="thresholding"):
        grid_from_scheduler(scheduler, 50, clip="config")


def test_a_grid_whose_noisiest_point_keeps_the_picture_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"alphas_cumprod = 1 > 0\.1"):
        grid_from_scheduler(DDIMScheduler(), 1)  # leading: timestep 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid_from_scheduler(DDIMScheduler(timestep_spacing="trailing"), 1)


# ---------------------------------------------------------------- transfer and strength


def test_transfer_there_and_back_is_the_identity() -> None:
    grid = grid_from_scheduler(float64_tables(DDIMScheduler(**LINEAR)), 50)
    x, eps = normal(*SHAPE), normal(*SHAPE, seed=1)
    for i, j in [(0, 1), (3, 40), (49, 50)]:
        back = transfer(transfer(x, eps, grid, i, j), eps, grid, j, i)
        # rounding, magnified by alpha_i / alpha_j <= 160
        assert rms(back - x) < 1e-13


def test_strength_means_what_it_means_in_diffusers() -> None:
    grid = grid_from_scheduler(DDIMScheduler(), 50)
    for strength in [0.02, 0.3, 0.5, 0.58, 0.8, 0.999, 1.0]:
        assert grid.stop_index(strength) == min(int(50 * strength), 50)
