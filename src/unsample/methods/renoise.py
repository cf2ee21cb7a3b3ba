"""ReNoise: renoising at each step, averaged predictions, regularisation, and correction of the sampler's noises.

`x^(k+1) = F(x_i, eps(x^(k), t_j))`, `x_j = F(x_i, reg(mean eps_k))` (Garibi, Patashnik, Voynov, Averbuch-Elor and
Cohen-Or, 2024, arXiv:2403.14602; numerics in `solvers.renoise`). For a stochastic sampler F holds the sampler's
noise n of the step, and a corrected n is stored: `n* = (x_i - mean(x_j)) / s` reconstructs exactly. EasyInv reports
black pictures of plain white ones from the authors' code; here overshooting steps of the regulariser are not taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from unsample.errors import BadOption, Incompatible
from unsample.methods.base import STEPS, Kept, Method, Task, Walked
from unsample.methods.settings import Setting, Started, configured
from unsample.numbers.solvers.ddim import ddim_sample
from unsample.numbers.solvers.renoise import RenoisePlan, renoise_invert
from unsample.numbers.solvers.start import Start, asked, starting
from unsample.numbers.solvers.stochastic import noisy_sample, shares
from unsample.numbers.walk import State

if TYPE_CHECKING:
    from torch import Tensor

CORRECTION_STEPS, CORRECTION_RATE = 10, 1.8  # the authors' descent on |n - n*|


@configured
def renoise(
    num_renoise_steps: Annotated[int, Setting("K; each step makes K + 1 predictions.")] = 1,
    early_renoise_steps: Annotated[int, Setting("at most so many where the timestep is below `early_timestep`.")] = 5,
    early_timestep: Annotated[int, Setting("the first timestep that is not early (250 of 1000).")] = 250,
    average: Annotated[bool, Setting("whether the final step takes the mean of a window of predictions.")] = True,
    early_from: Annotated[int, Setting("the first prediction of that window at early steps.")] = 0,
    early_to: Annotated[int, Setting("the first one after it.", low=1)] = 5,
    late_from: Annotated[int, Setting("the first prediction of the window at the other steps.")] = 8,
    late_to: Annotated[int, Setting("the first one after it.", low=1)] = 10,
    lambda_ac: Annotated[float, Setting("weight of the autocorrelation of eps.")] = 20.0,
    lambda_kl: Annotated[
        float,
        Setting(
            "weight of the divergence of its 4 x 4 patches from those of the eps that the network predicts for the "
            "picture with forward noise; that prediction is one more evaluation of each step that regularises."
        ),
    ] = 0.065,
    num_reg_steps: Annotated[int, Setting("rounds of regularisation, 0 for none.")] = 4,
    num_ac_rolls: Annotated[int, Setting("autocorrelation steps a round.", low=1)] = 5,
    lowest_roll: Annotated[
        int,
        Setting(
            "rolls are drawn from [0, side / 2) as in the authors' code, or with 1 from [1, side / 2).", among=(0, 1)
        ),
    ] = 0,
    eta: Annotated[
        float,
        Setting(
            "of the sampler, as in DDIM, from 0 (deterministic) to 1 (ancestral: Euler's, in the frame x / alpha).",
            high=1.0,
        ),
    ] = 0.0,
    noise_correction: Annotated[
        Literal["exact", "optimised"] | None,
        Setting(
            "None replays the drawn noises; `exact` stores n*, which is not Gaussian; `optimised` (the authors' "
            "default) takes 10 gradient steps of rate 1.8 from the drawn noise on |n - n*|. One evaluation a step, "
            "under the guidance of sampling. Needs eta above 0."
        ),
    ] = None,
    start: Started = "source",
) -> Method:
    """ReNoise inversion.

    The defaults are those of the authors' 50-step Stable Diffusion example; the preset `few_step` is their SDXL-Turbo
    configuration (4 steps). In the example K = 1 ends before the late window, so averaging and regularisation work at
    timesteps below 250 only. With eta = 0 the noise alone is kept; otherwise the sampler's noises are kept with it, and
    played back.

    Raises:
        Incompatible: while inverting, latents smaller than a patch.

    Reference:
        Garibi et al., 2024, arXiv:2403.14602.

    Example:
        >>> import unsample
        >>> few = unsample.methods.get_method("renoise", {"preset": "few_step"})
        >>> few.passes(unsample.methods.Walked(steps=4, timesteps=(249, 499, 749, 999)))
        44
    """
    for name, low, high in (("early", early_from, early_to), ("late", late_from, late_to)):
        if low >= high:
            raise BadOption(f"renoise: {name}_from must be below {name}_to; got {low} and {high}, an empty window")
    if noise_correction is not None and eta == 0:
        raise BadOption("renoise: noise_correction corrects a stochastic sampler's noises; eta=0 has none, use eta=1")
    plan = RenoisePlan(
        num_renoise_steps=num_renoise_steps,
        early_renoise_steps=early_renoise_steps,
        early_timestep=early_timestep,
        early_window=(early_from, early_to),
        late_window=(late_from, late_to),
        average=average,
        lambda_ac=lambda_ac,
        lambda_kl=lambda_kl,
        num_reg_steps=num_reg_steps,
        num_ac_rolls=num_ac_rolls,
        eta=eta,
    )
    corrected, stochastic = noise_correction is not None, eta > 0
    return Method(
        invert_step=starting(renoise_invert(plan), start, eta),
        sample_step=noisy_sample(eta) if stochastic else ddim_sample,
        passes=lambda walked: _passes(plan, walked, start) + (walked.steps * walked.sampling_pair if corrected else 0),
        begin=lambda task: _draws(task, plan, lowest_roll),
        fit=(lambda task, pivots, state: _corrected(task, pivots, state, eta, noise_correction == "exact"))
        if corrected
        else None,
        keeps={"noises": Kept("the sampler's noise of each step, the last step's first", STEPS)} if stochastic else {},
        stores="noise and the sampler's noise of each step" if stochastic else "noise",
        fitted=corrected,
        exact=noise_correction == "exact",
        guidance_bound=noise_correction == "exact",
        handles_guidance=noise_correction == "exact",  # the authors invert and reconstruct at 0 or 1
        no_root="what its iteration ends at is averaged or regularised" if average or num_reg_steps > 0 else None,
    )


def _passes(plan: RenoisePlan, walked: Walked, start: Start) -> int:
    # without timesteps: those that diffusers' leading spacing gives a model of 1000
    timesteps = walked.timesteps or tuple(k * (1000 // walked.steps) for k in range(walked.steps))
    return walked.pair * (sum(plan.passes(t) for t in timesteps) + asked(start, walked.steps))


def _draws(task: Task, plan: RenoisePlan, lowest_roll: int) -> State:
    """What the walk needs of chance: the sampler's noises, the forward noise, the rolls. The last two are not kept."""
    from unsample.numbers.solvers.regularise import LEAST_SIDE, draw_rolls

    shape, state = task.x0.shape[1:], {}
    if plan.eta > 0:
        state["noises"] = task.noise(task.stop, *shape)
        for i in range(task.stop):
            if shares(task.grid, i, i + 1, plan.eta)[0] == 0:
                state["noises"][:, i] = 0.0  # no fresh noise enters the step; the place is for a correction
    if plan.num_reg_steps == 0:
        return state
    if len(shape) != 3 or min(shape[-2:]) < LEAST_SIDE:
        raise Incompatible(f"renoise regularises patches of {LEAST_SIDE} x {LEAST_SIDE}; got latents {tuple(shape)}")
    count = (task.stop, plan.num_renoise_steps + 2, plan.num_reg_steps, plan.num_ac_rolls)
    rolls = draw_rolls(task.generators, count, shape, lowest_roll).to(task.x0.device)
    return {**state, "renoise_x0": task.x0, "renoise_noise": task.noise(), "renoise_rolls": rolls}


def _corrected(task: Task, pivots: list[Tensor], state: State, eta: float, exact: bool) -> State:
    """The noises with which the sampler comes back through the pivots, or that are nearer to them."""
    from unsample.numbers.solvers.stochastic import descended, needed_noise

    noises = state["noises"].clone()
    for j in task.progress(range(1, task.stop + 1), "noise correction"):
        found = task.playback(pivots[j], j)
        needed = needed_noise(found, pivots[j - 1], task.grid, j - 1, j, eta)
        if exact:
            noises[:, j - 1] = needed
        elif shares(task.grid, j - 1, j, eta)[0] > 0:
            noises[:, j - 1] = descended(noises[:, j - 1], needed, CORRECTION_STEPS, CORRECTION_RATE)
    return {**state, "noises": noises}
