"""InfEdit, DDS, Uni-Edit and h-Edit: each against its paper's equations written out, and where both prompts are one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

import unsample
from tests.problems import mixture, normal, rms
from unsample.errors import BadOption, Incompatible
from unsample.methods import dds, h_edit, infedit, uni_edit
from unsample.numbers.solvers.coupled import drawn_levels
from unsample.numbers.solvers.regional import disagreement

STEPS, W_SOURCE, W = 12, 2.0, 3.0
SCHEDULERS = {
    "vp": DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),  # its clean end is below alpha = 1
    "flow": FlowMatchEulerDiscreteScheduler(shift=2.0),
}
ROWS = [
    (infedit(), "vp"),
    (infedit(), "flow"),
    (dds(), "vp"),
    (uni_edit(), "vp"),
    (uni_edit(), "flow"),
    (h_edit(), "vp"),
    (h_edit(num_iters=3), "vp"),
    (h_edit(form="explicit"), "vp"),
]
EVERY = pytest.mark.parametrize(("method", "kind"), ROWS, ids=[f"{m!r}-{k}" for m, k in ROWS])


def pictures(model: Any) -> Tensor:
    """Drawn from components that "left" names, float64."""
    x: Tensor = model.means[:2] + model.variances[:2].sqrt() * normal(2, *model.sample_shape, seed=3)
    return x


def inverted(kind: str, method: Any, **more: Any) -> tuple[Any, Tensor, unsample.Inversion]:
    model = mixture(scheduler=SCHEDULERS[kind])
    given = {"prompt": "left", "method": method, "num_inference_steps": STEPS, "strength": 1.0}
    x = pictures(model)
    return model, x, unsample.invert(model, latents=x, **given | more)


class Asked:
    """The network's own answers: eps, or of a flow the velocity."""

    def __init__(self, model: Any, inversion: unsample.Inversion, kind: str) -> None:
        self.model, self.grid = model, inversion.meta.grid.grid("flow_prediction" if kind == "flow" else "epsilon")

    def __call__(self, x: Tensor, i: int, prompt: str, w: float = 1.0) -> Tensor:
        own = self._half(x, i, prompt)
        free = own if w == 1 else self._half(x, i, "")
        return free + w * (own - free)

    def _half(self, x: Tensor, i: int, prompt: str) -> Tensor:
        condition = unsample.verbs.prompts.Prompts(prompt).conditions(self.model, len(x), 1)[0]
        output: Tensor = self.model.network(x, self.grid.timesteps[i], condition)
        return output


@EVERY
def test_an_edit_from_a_prompt_to_itself_is_the_reconstruction(method: Any, kind: str) -> None:
    model, x, inversion = inverted(kind, method)
    w = W if method.name == "uni_edit" else inversion.meta.guidance_scale  # it asks both prompts under the edit's
    again = unsample.reconstruct(model, inversion, guidance_scale=w)
    same = unsample.edit(model, inversion, "left", guidance_scale=w)
    assert rms(same.latents - again.latents) < 1e-10
    assert method.name == "uni_edit" or rms(again.latents - x) < 1e-10  # the picture; of uni_edit, what its base gives


@EVERY
def test_a_mask_keeps_the_reconstruction_outside_and_changes_nothing_inside(method: Any, kind: str) -> None:
    model, _, inversion = inverted(kind, method, guidance_scale=1.0)
    plain, kept = unsample.edit(model, inversion, "right"), unsample.reconstruct(model, inversion)
    mask = torch.zeros(1, 1, 8, 8)
    none = unsample.edit(model, inversion, "right", mask=mask, mask_dilate=0)
    assert rms(none.latents - kept.latents) < 1e-9
    every = unsample.edit(model, inversion, "right", mask=mask + 1, mask_dilate=0)
    assert rms(every.latents - plain.latents) < 1e-9 * rms(plain.latents)


@EVERY
def test_an_edit_lands_in_a_component_of_the_target(method: Any, kind: str) -> None:
    model, _, inversion = inverted(kind, method, guidance_scale=1.0)
    made = unsample.edit(model, inversion, "right", guidance_scale=W if method.name == "h_edit" else 1.0)
    apart = (made.latents[:, None] - model.means).flatten(2).square().mean(2).sqrt()
    assert (apart.argmin(1) >= len(model.means) // 2).all()  # the other half is what "right" names


@pytest.mark.parametrize("kind", ["vp", "flow"])
def test_infedit_is_algorithm_2_in_eps(kind: str) -> None:
    model, x, inversion = inverted(kind, infedit(), guidance_scale=W_SOURCE)
    asked, noise = Asked(model, inversion, kind), inversion.state["forward_noise"]
    alpha, sigma = asked.grid.alpha, asked.grid.sigma
    points = range(STEPS, 0, -1)
    if kind == "flow":  # v = eps - x0 at y = alpha x0 + sigma eps: eps = y + alpha v; alpha is 0 at the noisiest point
        x0 = x.clone()
        for i in points:
            s, t = (alpha[i] * p + sigma[i] * noise[:, i - 1] for p in (x, x0))
            v_s, v_t = asked(s, i, "left", W_SOURCE), asked(t, i, "right", W)
            x0 = x + (t - sigma[i] * v_t) - (s - sigma[i] * v_s)
    else:
        z_source = z_target = alpha[STEPS] * x + sigma[STEPS] * noise[:, -1]
        for i in points:
            consistent = (z_source - alpha[i] * x) / sigma[i]
            eps = asked(z_target, i, "right", W) - asked(z_source, i, "left", W_SOURCE) + consistent
            x0 = (z_target - sigma[i] * eps) / alpha[i]
            if i > 1:
                z_source, z_target = (alpha[i - 1] * p + sigma[i - 1] * noise[:, i - 2] for p in (x, x0))
    made = unsample.edit(model, inversion, "right", guidance_scale=W)
    assert rms(made.latents - x0) < 1e-9 * rms(x0)
    assert made.nfe == [4 * STEPS] * 2
    assert unsample.reconstruct(model, inversion).nfe == inversion.nfe == [0, 0]


def test_dds_is_gradient_descent_on_the_authors_loss() -> None:
    iterations, rate = 30, 0.2
    model, x, inversion = inverted("vp", dds(num_iters=iterations, lr=rate), guidance_scale=W_SOURCE)
    asked, noise = Asked(model, inversion, "vp"), inversion.state["delta_noise"]
    z = x.clone().requires_grad_()
    cells = z.shape[2] * z.shape[3]
    optimizer = torch.optim.SGD([z], lr=rate * cells / 2000)
    for k, t in enumerate(drawn_levels(iterations, STEPS, (0.05, 0.95))):
        with torch.no_grad():
            ours, theirs = (asked.grid.alpha[t] * y + asked.grid.sigma[t] * noise[:, k] for y in (z, x))
            gradient = asked(ours, t, "right", W) - asked(theirs, t, "left", W_SOURCE)
        optimizer.zero_grad()
        (2000 * (z * gradient).sum() / cells).backward()
        optimizer.step()
    made = unsample.edit(model, inversion, "right", guidance_scale=W)
    assert rms(made.latents - z.detach()) < 1e-9 * rms(x)
    assert made.nfe == [4 * iterations] * 2
    assert made.backward == [0, 0]


def test_the_levels_of_dds_are_uniform_within_their_span_and_the_same_again() -> None:
    levels = drawn_levels(4000, 100, (0.05, 0.95))
    assert levels == drawn_levels(4000, 100, (0.05, 0.95))
    assert (min(levels), max(levels)) == (6, 95)
    counts = torch.tensor(levels).bincount()[6:].double()
    assert abs(float(counts.std()) - 4000 / 90 / 6.7) < 2  # a Poisson law's, of mean 44
    assert drawn_levels(3, 1, (0.05, 0.95)) == [1, 1, 1]


@pytest.mark.parametrize("kind", ["vp", "flow"])
def test_uni_edit_is_the_correction_and_the_fusion_of_its_paper(kind: str) -> None:
    omega, stop = 2.0, 8
    model, _, inversion = inverted(kind, uni_edit(omega=omega), strength=stop / STEPS + 1e-9)
    asked = Asked(model, inversion, kind)
    alpha, sigma, z = asked.grid.alpha, asked.grid.sigma, inversion.noise
    for i in range(stop, 0, -1):
        v_s, v_t = asked(z, i, "left"), asked(z, i, "right")
        mask = (v_t - v_s).abs().mean(1, keepdim=True)
        for k in range(len(mask)):
            if mask[k].max() > mask[k].min():  # else both prompts say the same, bit for bit
                mask[k] = (mask[k] - mask[k].min()) / (mask[k].max() - mask[k].min())
        v = mask * v_t + (1 - mask) * v_s + omega * (1 + mask) * (v_t - v_s)
        if kind == "flow":
            z = z + (sigma[i - 1] - sigma[i]) * v
        else:
            z = alpha[i - 1] * (z - sigma[i] * v) / alpha[i] + sigma[i - 1] * v
    made = unsample.edit(model, inversion, "right")
    assert rms(made.latents - z) < 1e-8 * rms(z)
    assert made.nfe == [2 * stop] * 2
    assert inversion.nfe == [stop + 1] * 2


def test_uni_edit_takes_any_base_that_finds_noise_and_masks_nothing_where_nothing_differs() -> None:
    _, _, inversion = inverted("vp", uni_edit(base="ddim"))
    model, _, plain = inverted("vp", "ddim")
    assert torch.equal(inversion.noise, plain.noise)
    assert torch.equal(unsample.reconstruct(model, inversion).latents, unsample.reconstruct(model, plain).latents)
    assert torch.equal(disagreement(torch.zeros(2, 3, 4, 4)), torch.zeros(2, 1, 4, 4))
    with pytest.raises(Incompatible, match=r"uni_edit\(base=edict\) makes no sense"):
        uni_edit(base="edict")


def _ancestral(asked: Asked, i: int) -> tuple[float, float, float]:
    """What x0, eps and z are multiplied by in DDPM's step into i - 1 (arXiv:2010.02502, Eq. 12 and 16)."""
    now, then = asked.grid.alpha[i] ** 2, asked.grid.alpha[i - 1] ** 2
    variance = (1 - then) / (1 - now) * (1 - now / then)
    return then**0.5, (1 - then - variance) ** 0.5, variance**0.5


@pytest.mark.parametrize("method", [h_edit(), h_edit(num_iters=3, pull=0.2), h_edit(form="explicit")], ids=str)
def test_h_edit_is_its_papers_equations_written_in_eps(method: Any) -> None:
    stop = 8
    more = {"guidance_scale": W_SOURCE, "strength": stop / STEPS + 1e-9}
    model, x, inversion = inverted("vp", method, **more)
    asked, maps = Asked(model, inversion, "vp"), inversion.state["noise_maps"]
    alpha, sigma, z = asked.grid.alpha, asked.grid.sigma, inversion.noise

    def f(y: Tensor, i: int) -> Tensor:
        return asked(y, i, "right", W) - asked(y, i, "left", W_SOURCE)

    def coefficient(i: int) -> float:
        return _ancestral(asked, i)[1] - sigma[i] * alpha[i - 1] / alpha[i]

    if method.settings["form"] == "implicit":
        z = z + coefficient(stop + 1) * f(z, stop)
    for i in range(stop, 0, -1):
        a, d, s = _ancestral(asked, i)
        own = asked(z, i, "left")
        base = a * (z - sigma[i] * own) / alpha[i] + d * own + (s if i > 1 else 1.0) * maps[:, i - 1]
        if method.settings["form"] == "explicit":
            z = base + coefficient(i) * f(z, i)
            continue
        z = base
        for k in range(method.settings["num_iters"]):
            edit, y = f(z, i - 1), z.detach().requires_grad_()
            z = z + coefficient(i) * edit
            for n in range(len(z)) if k else ():
                gradient = torch.autograd.grad((y[n] - base[n]).abs().mean(), y)[0][n]
                if gradient.any():  # else both prompts agree, bit for bit
                    z[n] -= method.settings["pull"] * rms(edit[n]) / rms(gradient) * gradient
    made = unsample.edit(model, inversion, "right", guidance_scale=W)
    assert rms(made.latents - z) < 1e-8 * rms(z)
    again = unsample.reconstruct(model, inversion, guidance_scale=7.5)  # under the maps' own guidance all the same
    assert rms(again.latents - x) < 1e-10
    each = 1 + 4 * method.settings["num_iters"]
    assert made.nfe == [each * stop + 4 * (method.settings["form"] == "implicit")] * 2
    assert inversion.nfe == again.nfe == [stop] * 2


def test_what_cannot_be_is_refused() -> None:
    for method, use in ((dds(), "flow_edit"), (h_edit(), "uni_edit")):
        with pytest.raises(Incompatible, match=f"{method.name} does not run on flow matching: .* use {use}"):
            inverted("flow", method)
    with pytest.raises(BadOption, match=r"dds: t_min must be at most t_max, 0\.2; got 0\.3"):
        dds(t_min=0.3, t_max=0.2)
    with pytest.raises(BadOption, match="h_edit: num_iters must be 1 in the explicit form"):
        h_edit(form="explicit", num_iters=2)
    zero = DDIMScheduler(
        clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    model = mixture(scheduler=zero)
    given = {"latents": pictures(model), "prompt": "left", "num_inference_steps": 6, "strength": 1.0}
    with pytest.raises(Incompatible, match="h_edit: its implicit form divides by alpha"):
        unsample.invert(model, method=h_edit(), **given)
    inversion = unsample.invert(model, method=h_edit(form="explicit"), **given)
    assert unsample.edit(model, inversion, "right", guidance_scale=1.0).latents.isfinite().all()
