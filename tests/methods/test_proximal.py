"""ProxEdit: the thresholds against their definitions, and what stays on the inversion trajectory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.methods.test_null_text import SHAPE, smooth, texts
from tests.problems import normal, rms, smooth_network
from unsample.errors import BadOption
from unsample.methods import negative_prompt, proximal
from unsample.methods.base import Method
from unsample.numbers.solvers.proximal import proximal_factor

pytestmark = pytest.mark.filterwarnings("ignore:the noisiest of", "ignore:.*did not converge")

STEPS = 6  # at the timesteps 0, 166, 332, ...: three below 400


@pytest.mark.parametrize("soft", [False, True])
def test_what_remains_minimises_the_proximal_objective(soft: bool) -> None:
    """Over a fine grid of z: (z - d)^2 / 2 + h |z| (l1), or + h^2 / 2 where z is not 0 (l0), with the threshold h."""
    delta = normal(1, 1, 5, 5, seed=7)
    threshold = float(delta.abs().flatten().sort().values[16])  # (25 - 1) * 2 / 3
    made = (proximal_factor(delta, 2 / 3, soft) * delta).flatten()
    z = torch.linspace(-4, 4, 160_001, dtype=torch.float64)
    for d, found in zip(delta.flatten().tolist(), made.tolist(), strict=True):
        cost = (z - d) ** 2 / 2 + (threshold * z.abs() if soft else threshold**2 / 2 * (z.abs() > 1e-9))
        if soft or abs(abs(d) - threshold) > 1e-9:  # at the threshold itself l0 has two answers
            assert float(z[cost.argmin()]) == pytest.approx(found, abs=1e-4)


def test_the_quantile_is_each_pictures_own() -> None:
    delta = normal(2, *SHAPE, seed=3) * torch.tensor([1.0, 100.0])[:, None, None, None]
    for soft in (False, True):
        together = proximal_factor(delta, 0.7, soft)
        for k in range(2):
            assert torch.equal(together[k : k + 1], proximal_factor(delta[k : k + 1], 0.7, soft))
            assert int((together[k] > 0).sum()) == 15  # 30 % of 48, rounded up
    assert torch.equal(proximal_factor(torch.zeros(1, 2, 2), 0.7, True), torch.zeros(1, 2, 2))


def edited(method: Method, x0: Tensor, **more: Any) -> tuple[unsample.Inversion, unsample.Images, unsample.Images]:
    model = smooth()
    given = {"num_inference_steps": STEPS, **texts(len(x0)), **more}
    inversion = unsample.invert(model, latents=x0, method=method, **given)
    target = {"prompt_embeds": normal(len(x0), 2, 3, seed=9).float(), "negative_prompt_embeds": torch.zeros(1, 2, 3)}
    return inversion, unsample.reconstruct(model, inversion), unsample.edit(model, inversion, **target)


def test_without_threshold_and_pull_it_is_negative_prompt_inversion() -> None:
    x0 = 0.3 * normal(2, *SHAPE, seed=2)
    _, again, edit = edited(proximal(quantile=0, recon_t=0), x0)
    _, other_again, other_edit = edited(negative_prompt(), x0)
    assert rms(again.latents - other_again.latents) < 1e-12
    assert rms(edit.latents - other_edit.latents) < 1e-10
    assert rms(edited(proximal(recon_t=0), x0)[2].latents - other_edit.latents) > 1e-2


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_reconstruction_ends_on_the_picture_itself(strength: float) -> None:
    x0 = 0.3 * normal(2, *SHAPE, seed=2)
    inversion, again, edit = edited(proximal(), x0, strength=strength)
    assert torch.equal(again.latents, x0)  # the difference is 0 everywhere, so nothing is left off the trajectory
    assert again.nfe == [int(STEPS * strength)] * 2
    assert inversion.state["pivots"].shape == (2, 3, *SHAPE)
    assert torch.equal(inversion.state["pivots"][:, 0], x0)
    assert rms(edit.latents - x0) > 1e-2
    assert not proximal(recon_lr=0.5).exact
    assert rms(edited(proximal(recon_lr=0.5), x0)[1].latents - x0) > 1e-3


def test_an_edit_stays_on_the_picture_where_the_difference_was_dropped() -> None:
    """One step, hence one mask: what was kept, grown by the radius, may differ; the rest is the picture."""
    shape = (1, 8, 8)

    def network(x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        spot = torch.zeros(1, *shape, dtype=x.dtype)
        spot[..., 3, 5] = 1
        return 0.1 * x + encoder_hidden_states.to(x.dtype).mean((1, 2))[:, None, None, None] * spot

    model, x0 = smooth(network, shape), 0.3 * normal(1, *shape)
    for radius, count in ((0, 1), (1, 9), (2, 25)):
        method = proximal(quantile=0.99, dilate_mask=radius, recon_t=1000)
        inversion = unsample.invert(model, latents=x0, method=method, num_inference_steps=1, **texts(1))
        target = {"prompt_embeds": torch.ones(1, 2, 3), "negative_prompt_embeds": torch.zeros(1, 2, 3)}
        differs = unsample.edit(model, inversion, **target).latents != x0
        assert int(differs.sum()) == count
        assert bool(differs[..., 3 - radius : 4 + radius, 5 - radius : 6 + radius].all())


def test_a_batch_edits_as_single_pictures_do() -> None:
    x0 = torch.cat([normal(1, *SHAPE, seed=1), 0.1 * normal(1, *SHAPE, seed=2)])
    model, given = smooth(), texts(2)
    target = {"prompt_embeds": normal(1, 2, 3, seed=9).float(), "negative_prompt_embeds": torch.zeros(1, 2, 3)}
    run = {"method": proximal(recon_lr=0.5), "num_inference_steps": STEPS}
    together = unsample.edit(model, unsample.invert(model, latents=x0, **run, **given), **target)
    for k in range(2):
        own = given | {"prompt_embeds": given["prompt_embeds"][k : k + 1]}
        alone = unsample.edit(model, unsample.invert(model, latents=x0[k : k + 1], **run, **own), **target)
        assert rms(alone.latents[0] - together.latents[k]) < 1e-12


@pytest.mark.parametrize(
    "settings",
    [{"prox": "l2"}, {"quantile": 1.2}, {"recon_t": -400}, {"recon_t": 0.5}, {"recon_lr": 2}, {"dilate_mask": -1}],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        proximal(**settings)


@pytest.mark.parametrize("off", [{"recon_lr": 0.0}, {"recon_t": 0}])
def test_without_inversion_guidance_the_noise_alone_is_kept_and_plays_back(off: dict[str, Any]) -> None:
    x0 = 0.3 * normal(2, *SHAPE, seed=2)
    inversion, again, edit = edited(proximal(**off), x0)
    assert inversion.state == {}
    _, other_again, other_edit = edited(proximal(recon_t=0), x0)
    assert torch.equal(again.latents, other_again.latents)
    assert torch.equal(edit.latents, other_edit.latents)


def test_inversion_guidance_that_no_step_has_is_said() -> None:
    model = unsample.wrap(smooth_network, DDIMScheduler(steps_offset=1, clip_sample=False), sample_shape=SHAPE)
    given = {"latents": 0.3 * normal(1, *SHAPE), "num_inference_steps": STEPS, **texts(1)}
    with pytest.warns(UserWarning, match=r"no step starts below timestep 1 .*the last one starts at 1"):
        unsample.invert(model, method=proximal(recon_t=1), **given)
    exact = unsample.invert(model, method=proximal(recon_t=2), **given)
    assert rms(unsample.reconstruct(model, exact).latents - given["latents"]) < 1e-12
