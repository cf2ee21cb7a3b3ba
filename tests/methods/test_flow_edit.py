"""FlowEdit and FlowAlign: edits in closed form, and what they do where both prompts are one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

import unsample
from tests.problems import mixture, normal, rms
from unsample.errors import BadOption, Incompatible
from unsample.methods import flow_align, flow_edit

STEPS = 12
BOTH = pytest.mark.parametrize("method", [flow_edit(), flow_edit(n_avg=3), flow_align()], ids=["1", "3", "align"])


@pytest.fixture(scope="module")
def flow() -> Any:
    return mixture(scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0))


def pictures(model: Any, count: int = 2) -> Tensor:
    """Drawn from components that "left" names, float64."""
    means, variances = model.means[:count], model.variances[:count]
    x: Tensor = means + variances.sqrt() * normal(count, *model.sample_shape, seed=3)
    return x


def inverted(model: Any, method: Any, **more: Any) -> tuple[Tensor, unsample.Inversion]:
    x = pictures(model)
    given = {"prompt": "left", "method": method, "num_inference_steps": STEPS, "strength": 1.0}
    return x, unsample.invert(model, latents=x, **given | more)


def asked(model: Any, x: Tensor, t: float, prompt: str) -> Tensor:
    """The network's velocity."""
    velocity: Tensor = model.network(x, t, unsample.verbs.prompts.Prompts(prompt).conditions(model, len(x), 1)[0])
    return velocity


@BOTH
def test_the_record_is_the_picture_and_asks_the_network_nothing(flow: Any, method: Any) -> None:
    x, inversion = inverted(flow, method)
    again = unsample.reconstruct(flow, inversion)
    assert torch.equal(again.latents, x)
    assert inversion.nfe == again.nfe == [0, 0]
    assert abs(float(inversion.noise.std()) - 1) < 0.1  # fresh: nothing of the picture is recovered
    assert rms(unsample.reconstruct(flow, inversion, use="noise").latents - x) > 0.3


@BOTH
@pytest.mark.parametrize("scheduler", [FlowMatchEulerDiscreteScheduler(), None], ids=["flow", "vp"])
def test_an_edit_from_a_prompt_to_itself_moves_nothing(method: Any, scheduler: Any) -> None:
    if scheduler is None and method.refuses_vp:
        pytest.skip("refuses")
    model = mixture(scheduler=scheduler)
    x, inversion = inverted(model, method)
    same = unsample.edit(model, inversion, "left", guidance_scale=inversion.meta.guidance_scale)
    assert rms(same.latents - x) < 1e-12


@pytest.mark.parametrize("scheduler", [FlowMatchEulerDiscreteScheduler(), None], ids=["flow", "vp"])
@pytest.mark.parametrize("settings", [{}, {"n_avg": 2}, {"n_min": 4}, {"n_min": STEPS}], ids=str)
def test_an_edit_lands_in_a_component_of_the_target(scheduler: Any, settings: dict[str, Any]) -> None:
    model = mixture(scheduler=scheduler)
    _, inversion = inverted(model, flow_edit(**settings), guidance_scale=1.0)
    made = unsample.edit(model, inversion, "right", guidance_scale=1.0)
    apart = (made.latents[:, None] - model.means).flatten(2).square().mean(2).sqrt()
    assert (apart.argmin(1) >= len(model.means) // 2).all()  # the other half is what "right" names
    assert (apart.min(1).values < 1.5 * model.variances.mean().sqrt()).all()
    moves, last = STEPS - settings.get("n_min", 0), settings.get("n_min", 0)
    assert made.nfe == [2 * settings.get("n_avg", 1) * moves + last] * 2


def test_the_flow_edits_are_their_papers_equations_written_in_velocities(flow: Any) -> None:
    """Euler in Z by hand, guided where the paper guides; FlowEdit's n_avg is the mean over noises."""
    w, zeta = 3.0, 0.02
    for method in (flow_edit(n_avg=2), flow_align(zeta=zeta)):
        x, inversion = inverted(flow, method, guidance_scale=2.0)
        grid, draws = inversion.meta.grid, method.settings.get("n_avg", 1)
        sigma, times = grid.sigma, grid.timesteps
        z, noise = x, inversion.state["forward_noise"]
        for i in range(STEPS, 0, -1):
            moves, dt = torch.zeros_like(x), sigma[i - 1] - sigma[i]
            for k in range(draws):
                s = (1 - sigma[i]) * x + sigma[i] * noise[:, (i - 1) * draws + k]
                t = z + s - x
                if method.name == "flow_edit":
                    v_s, v_t = (asked(flow, y, times[i], "") for y in (s, t))
                    v_s = v_s + 2.0 * (asked(flow, s, times[i], "left") - v_s)
                    v_t = v_t + w * (asked(flow, t, times[i], "right") - v_t)
                    moves += dt * (v_t - v_s) / draws
                else:
                    v_s, v_t = (asked(flow, y, times[i], "left") for y in (s, t))
                    v_t = v_t + w * (asked(flow, t, times[i], "right") - v_t)
                    moves += dt * (v_t - v_s) + zeta * ((s - sigma[i] * v_s) - (t - sigma[i] * v_t))
            z = z + moves
        made = unsample.edit(flow, inversion, "right", guidance_scale=w)
        assert rms(made.latents - z) < 1e-9 * rms(z)
        assert made.nfe == [(4 * draws if method.name == "flow_edit" else 3) * STEPS] * 2


def test_on_other_levels_it_is_the_same_edit_of_the_straightened_paths() -> None:
    """A path of a VP grid over alpha + sigma is straight, in t = sigma / (alpha + sigma): FlowEdit by hand there."""
    model = mixture()
    x, inversion = inverted(model, flow_edit(), guidance_scale=1.0)
    grid, noise, z = inversion.meta.grid.grid("epsilon"), inversion.state["forward_noise"], None
    scale = [a + s for a, s in zip(grid.alpha, grid.sigma, strict=True)]
    t = [s / c for s, c in zip(grid.sigma, scale, strict=True)]
    moved = torch.zeros_like(x)
    for i in range(STEPS, 0, -1):
        s = (1 - t[i]) * x + t[i] * noise[:, i - 1]
        each = []
        for prompt, y in (("left", s), ("right", s + moved)):
            eps = asked(model, scale[i] * y, grid.timesteps[i], prompt)
            each.append((eps - y) / (1 - t[i]))  # the authors' form: v = (eps - x) / (1 - t)
        moved = moved + (t[i - 1] - t[i]) * (each[1] - each[0])
    z = x + scale[0] * moved
    assert rms(unsample.edit(model, inversion, "right", guidance_scale=1.0).latents - z) < 1e-9 * rms(z)


@BOTH
def test_noises_are_a_pictures_own_in_any_batch(flow: Any, method: Any) -> None:
    _, both = inverted(flow, method)
    edits = unsample.edit(flow, both, "right")
    alone = unsample.invert(
        flow, latents=pictures(flow)[1:], prompt="left", method=method, num_inference_steps=STEPS, strength=1.0
    )
    assert torch.equal(alone.state["forward_noise"][0], both.state["forward_noise"][1])
    assert rms(unsample.edit(flow, alone, "right").latents[0] - edits.latents[1]) < 1e-8
    again = unsample.edit(flow, both, ["right", "right"])
    assert torch.equal(again.latents, edits.latents)
    other = unsample.invert(
        flow, latents=pictures(flow), prompt="left", method=method, num_inference_steps=STEPS, generator=7
    )
    assert not torch.equal(other.noise, both.noise)


def test_an_edit_starts_where_strength_says(flow: Any) -> None:
    _, inversion = inverted(flow, flow_edit(), strength=None)
    assert inversion.meta.stop_index == int(0.66 * STEPS)
    assert unsample.edit(flow, inversion, "right").nfe == [4 * int(0.66 * STEPS)] * 2
    near = inverted(flow, flow_edit(), strength=1 / STEPS)
    small = rms(unsample.edit(flow, near[1], "right", guidance_scale=1.0).latents - near[0])
    assert small < rms(unsample.edit(flow, inversion, "right", guidance_scale=1.0).latents - near[0])


def test_a_network_that_is_told_its_guidance_is_not_guided_between_prompts(
    flow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, inversion = inverted(flow, flow_align())
    monkeypatch.setattr(flow, "guidance", "distilled", raising=False)
    with pytest.raises(Incompatible, match="is told its guidance and cannot be guided away from another prompt"):
        unsample.edit(flow, inversion, "right")


def test_what_cannot_be_is_refused(flow: Any) -> None:
    with pytest.raises(BadOption, match="n_min must be at most the steps of the edit, 6; got 7"):
        inverted(flow, flow_edit(n_min=7), strength=0.5)
    with pytest.raises(Incompatible, match="flow_align does not run on a diffusion model: .* use flow_edit"):
        inverted(mixture(), flow_align())
