"""The oracle itself, against automatic differentiation, sampling and exact inference."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

import unsample
from tests.problems import float64_tables, gaussian, mixture, normal, rms, seeded
from unsample.datasets.rendered import mixture_scenes
from unsample.errors import Incompatible
from unsample.models.base import Condition
from unsample.models.gaussian import GaussianModel, scenes_mixture

SHAPE = (2, 3, 4)


def log_density(model: GaussianModel, x: Tensor, abar: float, log_weights: Tensor | None = None) -> Tensor:
    """Of the noisy mixture, component by component, by torch's own distributions."""
    components = []
    for mean, variance in zip(model.means, model.variances, strict=True):
        spread = (abar * variance + 1 - abar).sqrt()
        normal_k = torch.distributions.Normal(math.sqrt(abar) * mean, spread)
        components.append(normal_k.log_prob(x).flatten(1).sum(1))
    logits = torch.stack(components, 1)
    return (logits if log_weights is None else logits + log_weights).logsumexp(1)


@pytest.mark.parametrize("timestep", [0, 10, 300, 999])
@pytest.mark.parametrize("prompt", [None, "left", "right", ""])
def test_eps_is_minus_sigma_times_the_score_of_the_mixture(timestep: int, prompt: str | None) -> None:
    model = mixture(SHAPE, scheduler=float64_tables(DDIMScheduler(clip_sample=False)))
    abar = float(model.scheduler.alphas_cumprod[timestep])
    condition = Condition() if prompt is None else Condition(model.embed([prompt]).prompt_embeds.expand(5, -1, -1))
    weights = None if prompt is None else model.embed([prompt]).prompt_embeds[0, 0]
    # noisy data, as the walks meet it: a point between components is where the score is hardest
    x = math.sqrt(abar) * 0.5 * normal(5, *SHAPE) + math.sqrt(1 - abar) * normal(5, *SHAPE, seed=1)
    x.requires_grad_()
    (score,) = torch.autograd.grad(log_density(model, x, abar, weights).sum(), x)
    eps = model.network(x.detach(), timestep, condition)
    # float64; the quadratic form is expanded into x^2 terms of up to 1e4 at timestep 0
    assert rms(eps + math.sqrt(1 - abar) * score) < 1e-9 * max(1, rms(eps))


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_the_other_prediction_types_say_the_same(kind: str) -> None:
    schedulers = [float64_tables(DDIMScheduler(prediction_type=k)) for k in ("epsilon", kind)]
    by_eps, other = (mixture(SHAPE, scheduler=s) for s in schedulers)
    x = normal(5, *SHAPE)
    for timestep in (0, 300, 999):
        abar = float(schedulers[0].alphas_cumprod[timestep])
        a, s = math.sqrt(abar), math.sqrt(1 - abar)
        eps = by_eps.network(x, timestep, Condition())
        x0 = (x - s * eps) / a
        expected = x0 if kind == "sample" else a * eps - s * x0
        assert rms(other.network(x, timestep, Condition()) - expected) < 1e-11 / a  # float64, divided by alpha


def test_the_conditional_eps_is_that_of_the_subset_of_components() -> None:
    model = mixture(SHAPE)
    subset = GaussianModel(model.means[:3], model.variances[:3], model.scheduler)
    x = normal(4, *SHAPE)
    for timestep in (5, 500):
        conditional = model.network(x, timestep, Condition(model.embed(["left"]).prompt_embeds.expand(4, -1, -1)))
        assert rms(conditional - subset.network(x, timestep, Condition())) < 1e-11  # rounding
        both = model.network(x, timestep, Condition(model.embed([""]).prompt_embeds.expand(4, -1, -1)))
        assert torch.equal(both, model.network(x, timestep, Condition()))


def test_at_the_ends_eps_is_what_it_must_be() -> None:
    model = gaussian(
        scheduler=float64_tables(DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True))
    )
    x = normal(3, 1, 1, 1)
    v = model.network(x, 999, Condition())  # alpha = 0: v = -E[x0] = -mean, whatever x is
    assert rms(v + 0.4) < 1e-6  # the mean was given in float32


def test_samples_have_the_mean_and_variance_of_the_data() -> None:
    """Exact inference: many samples of a two-component mixture land on its components in equal shares."""
    means = torch.tensor([-0.7, 0.7])[:, None, None, None]
    model = GaussianModel(means, torch.full_like(means, 0.01), DDIMScheduler(clip_sample=False))
    made = unsample.sample(model, num_inference_steps=100, noise=normal(4000, 1, 1, 1)).latents.flatten()
    right = made > 0
    assert float(right.double().mean()) == pytest.approx(0.5, abs=0.03)  # 4 standard errors
    assert float(made[right].mean()) == pytest.approx(0.7, abs=0.02)  # first order in 100 steps
    assert float(made[right].std()) == pytest.approx(0.1, abs=0.02)


def test_the_state_keeps_its_dtype() -> None:
    model = mixture(SHAPE)
    for dtype in (torch.float32, torch.float64):
        assert model.network(normal(1, *SHAPE, dtype=dtype), 5, Condition()).dtype is dtype


def test_threads_may_share_a_model() -> None:
    """What is kept of a noise level belongs to one call; another thread's level must not get in."""
    model = mixture((3, 16, 16), components=12)
    x = normal(2, 3, 16, 16)
    expected = {t: model.network(x, t, Condition()) for t in (10, 400, 900)}
    wrong: list[Any] = []

    def work(timestep: int) -> None:
        for _ in range(150):
            try:
                if not torch.equal(model.network(x, timestep, Condition()), expected[timestep]):
                    wrong.append(timestep)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(t,)) for t in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_change_of_the_schedulers_table_is_noticed() -> None:
    model = mixture(SHAPE)
    x = normal(1, *SHAPE)
    before = model.network(x, 500, Condition())
    model.scheduler.alphas_cumprod = model.scheduler.alphas_cumprod**2
    fresh = GaussianModel(model.means, model.variances, model.scheduler)
    assert torch.equal(model.network(x, 500, Condition()), fresh.network(x, 500, Condition()))
    assert not torch.equal(model.network(x, 500, Condition()), before)


def test_wrong_shapes_and_prompts_are_refused() -> None:
    with pytest.raises(Incompatible, match="must both be"):
        GaussianModel(torch.zeros(2, 3, 4, 4), torch.ones(3, 3, 4, 4), DDIMScheduler())
    with pytest.raises(Incompatible, match="takes no prompt"):
        gaussian().embed(["a"])


def test_the_hash_is_of_means_and_variances() -> None:
    a, b = mixture(SHAPE), mixture(SHAPE)
    assert a.weights_sha256() == b.weights_sha256()
    b.means[0, 0, 0, 0] += 1e-3
    changed = GaussianModel(b.means, b.variances, b.scheduler)
    assert changed.weights_sha256() != a.weights_sha256()


# ---------------------------------------------------------------- scenes-mixture


@pytest.fixture(scope="module")
def scenes() -> GaussianModel:
    return scenes_mixture()


def test_scenes_mixture_has_a_component_for_every_combination(scenes: GaussianModel) -> None:
    drawn = mixture_scenes()
    assert len({(s.shape, s.colour, s.background, s.texture, s.background_texture) for s in drawn}) == 512
    assert scenes.means.shape == (512, 3, 32, 32)
    assert len({(s.jitter, s.light, s.size, s.place) for s in drawn}) == 1  # a change of attribute is another component


def test_a_prompt_picks_the_components_that_fit(scenes: GaussianModel) -> None:
    drawn = mixture_scenes()

    def picked(prompt: str) -> list[Any]:
        return [s for s, fits in zip(drawn, scenes.embed([prompt]).prompt_embeds[0, 0] == 0, strict=True) if fits]

    assert len(picked("")) == 512
    assert {s.shape for s in picked("a circle")} == {"circle"}
    red = picked("a red circle on a white background")
    assert [(s.colour, s.background, s.texture, s.background_texture) for s in red] == [
        ("red", "white", "plain", "plain")
    ]
    assert {s.background_texture for s in picked("a red circle on a dotted white background")} == {"dotted"}
    for scene in drawn[::37]:
        assert picked(scene.caption) == [scene]
    with pytest.warns(UserWarning, match="no component of scenes-mixture fits all"):
        picked("a pink circle")
    with pytest.warns(UserWarning, match="knows no word of 'ein Hund'"):
        assert len(picked("ein Hund")) == 512


def test_scenes_mixture_is_sampled_by_prompt_and_inverted(scenes: GaussianModel) -> None:
    model, drawn = unsample.load("scenes-mixture"), mixture_scenes()
    assert model.weights_sha256() == scenes.weights_sha256()
    prompts = ["a red circle on a white background", "a blue star"]
    made = unsample.sample(scenes, prompts, num_inference_steps=12, generator=seeded(0))
    nearest = [drawn[int((scenes.means - x).square().mean((1, 2, 3)).argmin())] for x in made.latents]
    assert [(s.colour, s.shape) for s in nearest] == [("red", "circle"), ("blue", "star")]
    inversion = unsample.invert(scenes, made.images, prompts, num_inference_steps=12)
    assert rms(unsample.reconstruct(scenes, inversion).latents - inversion.latents) > 0.01  # not linear: DDIM fails
